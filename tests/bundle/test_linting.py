"""All checks in one go: what runs, what is left out and why, and what each finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.bundle import check_keys, check_requirements, run_checks
from msrf_monai.bundle.checks import check_exported, check_properties
from msrf_monai.errors import ConfigError

NAMES = ["files", "contents", "large files", "weights", "metadata", "schema", "requirements", "configs", "keys"]
EXECUTING = ["properties", "network", "TorchScript", "model.ts"]


def _change(bundle: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = bundle / "configs" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=4) + "\n")


@pytest.fixture
def clean(bundle: Path) -> Path:
    """The toy bundle with all keys of the zoo, in which every check is content."""
    _change(bundle, "metadata", lambda m: m["changelog"].update({"0.1.0": "no trained weights"}))
    _change(bundle, "inference", lambda c: c.update(preprocessing=None, postprocessing=None))
    keys: dict[str, Any] = {"bundle_root": ".", "device": "cpu", "dataset_dir": "data"}
    keys["train"] = {"trainer": {"max_epochs": 1}, "dataset": None, "inferer": None}
    _change(bundle, "train", lambda c: c.update(keys))
    return bundle


def test_a_clean_bundle_passes_everything(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"required": ["version"]}')

    checks = run_checks(clean, schema=tmp_path / "schema.json")

    assert [check.name for check in checks] == NAMES + EXECUTING
    assert [check for check in checks if check.state != "ok"] == []


def test_the_schema_comes_by_the_environment_too(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema.json").write_text('{"required": ["nothing"]}')
    without = {check.name: check for check in run_checks(clean, fast=True)}["schema"]
    monkeypatch.setenv("MSRF_METADATA_SCHEMA", str(tmp_path / "schema.json"))

    found = {check.name: check for check in run_checks(clean, fast=True)}["schema"]

    assert (without.state, without.problems) == ("not checked", ())
    assert "--schema" in without.note
    assert found.problems == ("metadata.json: : 'nothing' is a required property",)


@pytest.mark.parametrize("content", [None, "{"], ids=["missing", "broken"])
def test_a_schema_that_cannot_be_read_is_an_error(clean: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "schema.json").write_text(content)

    with pytest.raises(ConfigError, match="is no JSON schema that can be read"):
        run_checks(clean, fast=True, schema=tmp_path / "schema.json")


@pytest.mark.parametrize(
    ("options", "broken", "reason"),
    [
        ({"fast": True}, False, "left out by --fast"),
        ({"trusted": False}, False, "--trust does"),
        ({}, True, "there are problems above"),
    ],
    ids=["fast", "foreign", "broken"],
)
def test_a_bundle_is_executed_only_when_it_is_wanted_trusted_and_clean(
    clean: Path, options: dict[str, bool], broken: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the bundle was executed")

    monkeypatch.setattr("msrf_monai.bundle.linting._execute", never)
    if broken:
        (clean / "LICENSE").unlink()

    checks = [check for check in run_checks(clean, **options) if check.name in EXECUTING]

    assert [check.state for check in checks] == ["not checked"] * len(EXECUTING)
    assert all(reason in check.note for check in checks)


def test_findings_of_execution_are_problems(clean: Path) -> None:
    _change(clean, "metadata", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=2))

    found = {check.name: check for check in run_checks(clean)}

    assert found["network"].state == "problems"
    assert "output channel number" in found["network"].problems[0]


def test_properties_of_training_are_asked_by_the_names_of_monai(clean: Path) -> None:
    _change(clean, "train", lambda c: c["train"].pop("inferer"))

    assert check_properties(clean) == [
        "train.json: the property train_inferer is missing, MONAI looks for train::inferer"
    ]


def test_shipped_torchscript_has_to_load(clean: Path) -> None:
    (clean / "models").mkdir()
    without = check_exported(clean)
    (clean / "models" / "model.ts").write_bytes(b"nothing")

    assert without == []
    assert check_exported(clean)[0].startswith("models/model.ts: ")


def test_a_key_that_nearly_has_the_name_of_the_zoo_is_named(clean: Path) -> None:
    _change(clean, "inference", lambda c: c.update(preprocesing=c.pop("preprocessing")))
    _change(clean, "train", lambda c: c["train"].update({"dataset": {"datas": 1}, "handler": []}))

    assert check_keys(clean) == [
        "train.json: train::dataset::datas: is not found under this name; MONAI looks for train::dataset::data",
        "train.json: train::handler: is not found under this name; MONAI looks for train::handlers",
        "inference.json: preprocesing: is not found under this name; MONAI looks for preprocessing",
    ]


def test_missing_keys_are_named_and_ids_in_keys_count(clean: Path) -> None:
    _change(clean, "inference", lambda c: (c.pop("network_def"), c.pop("inferer")))
    _change(clean, "train", lambda c: c.update({"train": {"inferer": 1}, "train#dataset": 1}))

    assert check_keys(clean) == [
        "train.json: train::trainer is missing; MONAI or MONAI Label looks it up",
        "train.json: train::trainer::max_epochs is missing; MONAI or MONAI Label looks it up",
        "inference.json: network_def is missing; MONAI or MONAI Label looks it up",
        "inference.json: inferer is missing; MONAI or MONAI Label looks it up",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.update(monai_version=">=1.3"), "monai_version is '>=1.3'"),
        (lambda m: m.update(pytorch_version=None), "pytorch_version is None"),
        (lambda m: m["required_packages_version"].update(x="@ https://example.org/x.whl"), "give one released version"),
        (lambda m: m["required_packages_version"].update({"-r x": "1.0"}), "is no package's name"),
        (lambda m: m.update(required_packages_version=[]), "must be an object"),
    ],
    ids=["range", "none", "address", "option", "list"],
)
def test_requirements_have_to_be_pinned(clean: Path, change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    before = check_requirements(clean)
    _change(clean, "metadata", change)

    assert before == []
    assert any(problem in each for each in check_requirements(clean))
