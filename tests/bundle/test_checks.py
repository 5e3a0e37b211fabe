"""The zoo's checks on a bundle that passes, and on bundles with one thing broken."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msrf_monai import __version__
from msrf_monai import bundle as checks

CONSTRAINTS = "monai==1.6.1\ntorch==2.13.0+cpu  # CPU\nnumpy==2.4.6; python_version>'3'\n\npytorch-ignite==0.5.5\n"


def _change(bundle: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = bundle / "configs" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=4) + "\n")


def _tensor(meta: dict[str, Any], side: str) -> dict[str, Any]:
    found: dict[str, Any] = meta["network_data_format"][side]["image" if side == "inputs" else "pred"]
    return found


def test_good_bundle_passes_the_static_checks(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(CONSTRAINTS)

    assert checks.check_files(bundle) == []
    assert checks.check_metadata(bundle) == []
    assert checks.check_versions(bundle, tmp_path / "constraints.txt") == []


def test_good_bundle_passes_the_network_checks(bundle: Path, tmp_path: Path) -> None:
    assert checks.check_network(bundle) == []
    assert checks.check_torchscript(bundle, tmp_path) == []
    assert checks.check_onnx(bundle, tmp_path) == []


def test_good_bundle_initialises_and_runs(bundle: Path) -> None:
    assert checks.check_workflow(bundle, ["inference.json"], "infer", run=True) == []


def test_missing_and_forbidden_files_are_named(bundle: Path) -> None:
    (bundle / "LICENSE").unlink()
    (bundle / "scripts").mkdir()
    (bundle / "docs" / "README.md").write_text("copy it from /home/someone/data")
    with (bundle / "big.bin").open("wb") as handle:
        handle.truncate(25 * 1024 * 1024 + 1)

    problems = " | ".join(checks.check_files(bundle))

    for part in ("LICENSE is missing", "scripts/ is there", "big.bin has 26214401 bytes", "README.md holds a path"):
        assert part in problems


def test_large_files_need_a_sha256(bundle: Path) -> None:
    listing = (
        "large_files:\n- {path: a, hash_type: sha256, hash_val: '%s'}\n- {path: b, hash_type: md5, hash_val: '1'}\n"
    )
    (bundle / "large_files.yml").write_text(listing % ("0" * 64))

    assert checks.check_files(bundle) == ["large_files.yml: b has no sha256"]


def test_large_file_that_is_there_must_be_the_listed_one(bundle: Path) -> None:
    # the published SHA-256 test vector of "abc"
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (bundle / "large_files.yml").write_text(
        f"large_files:\n- {{path: models/a.pt, hash_type: sha256, hash_val: '{digest}'}}\n"
    )
    (bundle / "models").mkdir()
    (bundle / "models" / "a.pt").write_bytes(b"abc")
    right = checks.check_large_files(bundle)
    (bundle / "models" / "a.pt").write_bytes(b"abd")

    assert right == []
    assert checks.check_files(bundle) == ["large_files.yml: models/a.pt is not the file whose sha256 is listed"]


def test_bundle_has_weights_or_says_that_it_has_none(bundle: Path) -> None:
    missing = checks.check_weights(bundle)
    (bundle / "large_files.yml").write_text("large_files:\n- {path: models/other.pt}\n")
    other = checks.check_weights(bundle)
    (bundle / "large_files.yml").write_text("large_files:\n- {path: models/model.pt}\n")
    listed = checks.check_weights(bundle)
    (bundle / "large_files.yml").write_text("large_files:\n")
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").touch()
    there = checks.check_weights(bundle)

    assert len(missing) == 1
    assert missing[0].startswith("models/model.pt is neither there nor in large_files.yml")
    assert (other, listed, there) == (missing, [], [])


@pytest.mark.parametrize(("version", "count"), [("0.1.0", 0), ("0.2.0", 1)])
def test_only_the_entry_of_the_current_version_can_say_that_there_are_no_weights(
    bundle: Path, version: str, count: int
) -> None:
    _change(
        bundle, "metadata", lambda m: m.update(version=version, changelog={"0.1.0": "no trained weights", "0.2.0": "x"})
    )

    assert len(checks.check_weights(bundle)) == count


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.pop("task"), "the field task is missing"),
        (lambda m: m.update(version="0.2.0"), "0.2.0 is not in the changelog"),
        (lambda m: m.update(version="1.0", changelog={"1.0": "x"}), "not of the form 1.2.3"),
        (lambda m: m.update(optional_packages_version={}), "is the old name"),
        (lambda m: m["network_data_format"]["outputs"].update(mask={}, pred=None), "outputs::pred is missing"),
        (lambda m: _tensor(m, "inputs").pop("dtype"), "image::dtype is missing"),
        (lambda m: _tensor(m, "inputs").update(spatial_shape=["2 ** p", 2]), "spatial_shape must hold integers"),
        (lambda m: _tensor(m, "inputs").update(num_channels=4), "names 3 of 4 channels"),
        (lambda m: _tensor(m, "outputs").update(channel_def={"0": "blob"}), 'needs "0": "background"'),
    ],
)
def test_wrong_metadata_is_named(bundle: Path, change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    _change(bundle, "metadata", change)

    assert any(problem in sentence for sentence in checks.check_metadata(bundle))


def test_missing_metadata_is_one_problem(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").unlink()

    assert len(checks.check_metadata(bundle)) == 1


def test_schema_violations_name_the_field(bundle: Path) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2019-09/schema", "properties": {"version": {"type": "integer"}}}

    assert checks.check_schema(bundle, schema) == ["metadata.json: version: '0.1.0' is not of type 'integer'"]


def test_untested_versions_are_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(CONSTRAINTS.replace("1.6.1", "1.6.0"))
    _change(bundle, "metadata", lambda m: m["required_packages_version"].update({"msrf-monai": "9", "x": "1"}))

    problems = checks.check_versions(bundle, tmp_path / "constraints.txt")

    assert problems == [
        f"metadata.json: msrf-monai is 9, and the tested version is {__version__}",
        "metadata.json: x is 1, and the tested version is not in the constraints",
        "metadata.json: monai is 1.6.1, and the tested version is 1.6.0",
    ]


def test_network_that_does_not_match_the_metadata_is_found(bundle: Path) -> None:
    _change(bundle, "metadata", lambda m: _tensor(m, "outputs").update(num_channels=2))

    assert checks.check_network(bundle) == [
        "verify_net_in_out: ValueError: output channel number `1` doesn't match: `2`."
    ]


def test_network_that_cannot_be_scripted_or_exported_is_found(bundle: Path, tmp_path: Path) -> None:
    _change(bundle, "inference", lambda c: c.update(network_def={"_target_": "torch.nn.NoSuchLayer"}))

    for check in (checks.check_torchscript, checks.check_onnx):
        assert "NoSuchLayer" in check(bundle, tmp_path)[0]


def test_difference_counts_values_shapes_and_nan(bundle: Path) -> None:
    network = checks.build_network(bundle)
    shapes = [(1, 3, 8, 8)]

    assert checks.largest_difference(network, lambda image: network(image) + 1, shapes) == pytest.approx(1.0)
    assert checks.largest_difference(network, lambda image: image, shapes) == float("inf")
    assert checks.largest_difference(network, lambda image: network(image) * float("nan"), shapes) == float("inf")


def test_difference_above_the_tolerance_is_a_problem(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("msrf_monai.bundle.checks")
    monkeypatch.setattr(module, "largest_difference", lambda *args, **kwargs: 0.5)

    assert checks.check_torchscript(bundle, tmp_path) == ["ckpt_export: TorchScript differs from eager by 0.5"]
    assert len(checks.check_onnx(bundle, tmp_path)) == 2


def test_config_without_a_network_is_named(bundle: Path) -> None:
    _change(bundle, "inference", lambda c: c.update(network_def="none"))

    with pytest.raises(Exception, match=r"network_def is str, not a network"):
        checks.build_network(bundle)


@pytest.mark.parametrize("name", ["device", "evaluator"])
def test_missing_property_is_named(bundle: Path, name: str) -> None:
    _change(bundle, "inference", lambda c: c.pop(name))

    problems = checks.check_workflow(bundle, ["inference.json"], "infer")

    assert len(problems) == 1
    assert name in problems[0]


def test_optional_property_under_another_name_is_named(bundle: Path) -> None:
    _change(bundle, "inference", lambda c: c["evaluator"].update(val_handlers="@my_handlers"))

    problems = checks.check_workflow(bundle, ["inference.json"], "infer", my_handlers=[])

    assert problems == ["inference.json: the property handlers is missing or misnamed"]


def test_failing_run_gives_its_innermost_reason(bundle: Path) -> None:
    _change(bundle, "inference", lambda c: c.update(run=["$1 / 0"]))

    problems = checks.check_workflow(bundle, ["inference.json"], "infer", run=True)

    assert problems == ["inference.json: ZeroDivisionError: division by zero"]
