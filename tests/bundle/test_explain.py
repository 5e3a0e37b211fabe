"""What a bundle of others would execute is listed with its place, and nothing of it is executed by listing."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from msrf_monai.bundle import explain_bundle, lint_bundle, run_checks


class Touches:
    """Unpickles to a new file in the current folder."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("unpickled", "w")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A bundle that leaves a file behind however it is touched: imported, evaluated, unpickled, or its logger set."""
    root = tmp_path / "brain_mr_detection"
    for folder in ("configs", "models", "scripts", "docs"):
        (root / folder).mkdir(parents=True)
    touch = "open('executed', 'w')"
    (root / "scripts" / "__init__.py").write_text(f"{touch}\n")
    (root / "scripts" / "net.py").write_text(f"{touch}\nNet = list\n")
    train = {
        "imports": ["$import scripts.net", "$import subprocess as sp", "$import numpy as np"],
        "network": {"_target_": "scripts.net.Net"},
        "short": {"_target_": "BasicUNet", "spatial_dims": 2},
        "running": {"_target_": "run_cmd", "cmd_list": ["touch", "executed"]},
        "plain": {"_target_": "monai.transforms.Compose"},
        "initialize": [f"${touch}", "$sp.run(['touch', 'executed'])", "$np.ones(3)", "$torch.device('cpu')"],
        "weights": "https://example.org/model.pt",
        "other": "%../elsewhere.json::a",
    }
    (root / "configs" / "train.json").write_text(json.dumps(train))
    (root / "configs" / "inference.yaml").write_text(f'run:\n  - "${touch}"\nnet:\n  _target_: "os.system"\n')
    (root / "configs" / "broken.yaml").write_text("!!python/object/apply:os.system ['touch executed']\n")
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": f"${touch}", "schema": "https://a.org/s"}))
    (root / "configs" / "logging.conf").write_text(f"[handler_a]\nclass=StreamHandler\nargs=({touch},)\n")
    (root / "models" / "model.pt").write_bytes(pickle.dumps(Touches()))
    (root / "docs" / "link.md").symlink_to("/etc/hostname")
    return root


def test_nothing_is_executed_by_looking(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(foreign))
    before = sorted(path for path in tmp_path.rglob("*"))

    explain_bundle(foreign)
    lint_bundle(foreign)
    checks = run_checks(foreign)

    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not any(name.partition(".")[0] == "scripts" for name in sys.modules)
    assert [check.state for check in checks if check.name in ("network", "properties")] == ["not checked"] * 2


def test_the_same_bundle_does_execute_when_python_takes_it(foreign: Path, tmp_path: Path) -> None:
    program = "import logging.config, sys; sys.path.insert(0, sys.argv[1]); import scripts.net"

    subprocess.run([sys.executable, "-c", program, str(foreign)], cwd=tmp_path, check=True)

    assert (tmp_path / "executed").exists()


def test_each_kind_is_listed_with_its_place(foreign: Path) -> None:
    items = explain_bundle(foreign).items

    listed = {(item.kind, item.module, item.place) for item in items}
    assert {
        ("target", "scripts", "configs/train.json::network"),
        ("target", "monai", "configs/train.json::short"),
        ("target", "os", "configs/inference.yaml::net"),
        ("import", "subprocess", "configs/train.json::imports::1"),
        ("expression", "subprocess", "configs/train.json::initialize::1"),
        ("expression", "numpy", "configs/train.json::initialize::2"),
        ("expression", "", "configs/metadata.json::version"),
        ("script", "", "scripts/net.py"),
        ("weights", "", "models/model.pt"),
        ("address", "", "configs/train.json::weights"),
        ("macro", "", "configs/train.json::other"),
        ("logging", "", "configs/logging.conf"),
        ("link", "", "docs/link.md"),
        ("unread", "", "configs/broken.yaml"),
    } <= listed
    assert not any(item.kind == "address" and "schema" in item.place for item in items)


def test_what_is_beyond_the_rules_says_why(foreign: Path) -> None:
    warnings = {item.place: item.warnings for item in explain_bundle(foreign).dangerous}

    assert warnings["configs/train.json::initialize::0"] == ("the expression calls open()",)
    assert warnings["models/model.pt"] == ("its pickle imports io.open",)
    assert warnings["configs/broken.yaml"] == ("cannot be read as YAML, so what is in it is unknown",)
    assert warnings["configs/train.json::running"] == ("a name that loads, writes or runs things",)
    assert not {"configs/train.json::plain", "configs/train.json::short"} & set(warnings)
    assert "configs/train.json::initialize::3" not in warnings


def test_what_runs_or_loads_comes_before_what_is_only_hard_to_carry(tmp_path: Path) -> None:
    config = {"a": "$[lambda: 1, '/data/x']", "b": "$'/data/y'", "c": "$__import__('os')"}
    (tmp_path / "a.json").write_text(json.dumps(config))

    places = [item.place for item in explain_bundle(tmp_path).dangerous]

    assert places == ["a.json::c", "a.json::a", "a.json::b"]


def test_modules_come_with_their_counts_most_used_first(foreign: Path) -> None:
    counts = {module: len(items) for module, items in explain_bundle(foreign).by_module().items()}

    assert counts == {"monai": 3, "numpy": 2, "scripts": 2, "subprocess": 2, "os": 1, "torch": 1}
    assert list(counts)[-2:] == ["os", "torch"]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "a: &a [1]\n"
        + "".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 30)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
    ],
    ids=["within-itself", "many-times"],
)
def test_yaml_without_an_end_is_not_walked(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)

    (item,) = explain_bundle(tmp_path).items

    assert item.warnings == ("repeats itself without end, as a trap for readers does",)


def test_our_bundles_do_nothing_beyond_the_rules(repository: Path) -> None:
    for bundle in sorted((repository / "bundles").iterdir()):
        assert explain_bundle(bundle).dangerous == ()
