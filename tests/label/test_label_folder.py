"""The app's folder: what is copied, what is kept, which weights come into it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from msrf_monai.cli import label as command
from msrf_monai.errors import CheckpointError, ConfigError, EngineError
from msrf_monai.files import sha256_of
from msrf_monai.label.app_folder import AppFolder
from msrf_monai.label.environment import Environment
from msrf_monai.label.weights import has_weights, install_weights, is_untrained, make_untrained
from support.bundle_runs import BUNDLES
from support.orthanc import free_port
from support.small_label_bundles import small_bundle

MSRF, SSR = BUNDLES[:2]
# in the place of Python: does what MONAI Label's command for its apps does, or what the test says
STAND_IN = """#!/bin/sh
test -e "$0.fails" && { echo "no such app"; exit 1; }
mkdir -p "$8/monaibundle/lib" && echo "class MyApp: pass" > "$8/monaibundle/main.py"
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(tmp_path / "env")
    made.python.parent.mkdir(parents=True)
    made.python.write_text(STAND_IN)
    made.python.chmod(0o755)
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(MSRF, tmp_path / "bundles")


@pytest.fixture
def folder(tmp_path: Path) -> AppFolder:
    return AppFolder(tmp_path / "my app")


def test_the_stock_app_is_taken_as_it_is_and_our_class_lies_over_it(folder, environment, bundle):
    assert folder.lay_out([bundle], environment) == []

    assert (folder.root / "stock.py").read_text() == "class MyApp: pass\n"
    assert "class BundleApp(BundleAppMixin, stock.MyApp, MONAILabelApp)" in (folder.root / "main.py").read_text()
    assert (folder.root / "lib").is_dir()
    copied = folder.bundle(MSRF.folder_name)
    assert sha256_of(copied / "models" / "model.pt") == sha256_of(bundle / "models" / "model.pt")
    assert not [path for path in folder.root.parent.iterdir() if path.name.endswith(".part")]
    assert folder.root.stat().st_mode & 0o077 == 0


def test_weights_that_were_fine_tuned_survive_the_next_start(folder, environment, bundle):
    folder.lay_out([bundle], environment)
    tuned = folder.bundle(MSRF.folder_name) / "models" / "model.pt"
    tuned.write_bytes(b"fine-tuned")

    notes = folder.lay_out([bundle], environment)

    assert tuned.read_bytes() == b"fine-tuned"
    assert notes == []


def test_a_bundle_of_another_version_is_told(folder, environment, bundle):
    folder.lay_out([bundle], environment)
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "9.9.9"}))

    (note,) = folder.lay_out([bundle], environment)

    assert "9.9.9" in note
    assert str(folder.bundle(MSRF.folder_name)) in note


def test_an_environment_that_gives_no_app_is_told(folder, environment, bundle):
    Path(f"{environment.python}.fails").touch()

    with pytest.raises(EngineError, match="no such app"):
        folder.lay_out([bundle], environment)


def test_the_writer_of_segmentations_runs_with_pydicom_3_in_front(folder, environment, bundle):
    folder.lay_out([bundle], environment)
    environment.python.write_text('#!/bin/sh\necho "$PYTHONPATH|$MSRF_LABEL_APP|$*"\n')
    variables = {**os.environ, "PYTHONPATH": "/ours"}

    done = subprocess.run(
        [folder.bin / "itkimage2segimage", "--outputDICOM", "a b"], capture_output=True, text=True, env=variables
    )

    assert done.stdout.strip() == (
        f"{environment.dicom3}:/ours|{folder.root}|-m msrf_monai.label.segimage --outputDICOM a b"
    )


def test_weights_are_put_in_place_when_they_fit(folder, environment, bundle, tmp_path):
    folder.lay_out([bundle], environment)
    copied = folder.bundle(MSRF.folder_name)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    given = tmp_path / "checkpoint.pt"
    torch.save({"model": {name: tensor + 1 for name, tensor in state.items()}, "epoch": 3}, given)

    install_weights(copied, given)

    found = torch.load(copied / "models" / "model.pt", weights_only=True)
    assert set(found) == set(state)
    assert all(torch.equal(found[name], state[name] + 1) for name in state)


@pytest.mark.parametrize("kind", ["missing", "of another network"])
def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay(folder, environment, bundle, tmp_path, kind):
    folder.lay_out([bundle], environment)
    copied = folder.bundle(MSRF.folder_name)
    before = sha256_of(copied / "models" / "model.pt")
    given = tmp_path / "other.pt"
    if kind != "missing":
        torch.save({"layer.weight": torch.zeros(3)}, given)

    with pytest.raises(CheckpointError):
        install_weights(copied, given)

    assert sha256_of(copied / "models" / "model.pt") == before


def test_random_weights_are_the_same_each_time_and_are_known_as_such(bundle, tmp_path):
    (bundle / "models" / "model.pt").unlink()
    assert not has_weights(bundle)

    make_untrained(bundle)
    first = torch.load(bundle / "models" / "model.pt", weights_only=True)
    torch.rand(5)
    make_untrained(bundle)

    second = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert is_untrained(bundle)
    torch.save({name: tensor + 1 for name, tensor in first.items()}, bundle / "models" / "model.pt")
    assert not is_untrained(bundle)


def start(here: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, bundles: list[Path], *more: str):
    """Run the command up to the point at which the server would take over; return what it said and the call."""
    called: list[tuple[str, ...]] = []

    def replace(program, arguments, variables):
        called.append(tuple(arguments))

    monkeypatch.delenv("MSRF_LABEL_ENV", raising=False)
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(command, "running_environment", lambda: environment)
    monkeypatch.setattr(command.os, "execve", replace)
    (here / "images").mkdir(exist_ok=True)
    arguments = ["--studies", str(here / "images"), "--bundles", ",".join(map(str, bundles)), "--app-dir"]
    arguments += [str(here / "app"), "--port", str(free_port()), *more]
    return CliRunner().invoke(command.app, arguments), called


def test_a_bundle_without_weights_is_refused_with_the_ways_out(tmp_path, environment, bundle, monkeypatch):
    (bundle / "models" / "model.pt").unlink()

    result, called = start(tmp_path, environment, monkeypatch, [bundle])

    assert isinstance(result.exception, ConfigError)
    assert all(word in str(result.exception) for word in (MSRF.folder_name, "--weights", "--untrained"))
    assert called == []


def test_the_server_starts_with_given_and_with_random_weights(tmp_path, environment, bundle, monkeypatch):
    other = small_bundle(SSR, tmp_path / "bundles")
    weights = tmp_path / "model.pt"
    (bundle / "models" / "model.pt").rename(weights)
    (other / "models" / "model.pt").unlink()

    result, called = start(
        tmp_path, environment, monkeypatch, [bundle, other], "--weights", f"{bundle.name}={weights}", "--untrained"
    )

    assert result.exit_code == 0, result.output
    (arguments,) = called
    assert arguments[:4] == (str(environment.python), "-m", "monailabel.main", "start_server")
    assert f"note: {other.name} has random weights" in result.output
    assert f"{bundle.name} has random weights" not in result.output
    assert has_weights(tmp_path / "app" / "model" / bundle.name)
