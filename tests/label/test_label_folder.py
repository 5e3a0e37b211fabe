"""The app's folder: what is copied, what is kept, which weights come into it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from msrf_monai.cli import label as command
from msrf_monai.errors import CheckpointError, ConfigError, EngineError, InputError, StorageError
from msrf_monai.files import sha256_of
from msrf_monai.label.app_folder import AppFolder
from msrf_monai.label.environment import Environment
from msrf_monai.label.weights import has_weights, install_weights, is_untrained, make_untrained
from support.bundle_runs import BUNDLES
from support.orthanc import free_port
from support.small_label_bundles import small_bundle

MSRF, SSR = BUNDLES[:2]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(tmp_path / "env")
    made.python.parent.mkdir(parents=True)
    made.python.touch(0o755)
    stock = made.folder / "monailabel" / "sample-apps" / "monaibundle"
    (stock / "lib").mkdir(parents=True)
    (stock / "lib" / "__init__.py").touch()
    (stock / "main.py").write_text("class MyApp: pass\n")
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


def test_no_images_and_no_links_of_users_are_copied(folder, environment, bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "patient.png").touch()
    for name in ("data", "runs", "mlruns", "eval", "models/state"):
        (bundle / name).mkdir(parents=True, exist_ok=True)
        (bundle / name / "patient.png").touch()
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "images").symlink_to(tmp_path / "elsewhere")

    folder.lay_out([bundle], environment)

    copied = folder.bundle(MSRF.folder_name)
    assert not list(copied.rglob("patient.png"))
    assert {path.name for path in (copied / "configs").iterdir()} == {
        path.name for path in (bundle / "configs").iterdir()
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_bundle_of_another_version_is_told(folder, environment, bundle):
    folder.lay_out([bundle], environment)
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "9.9.9"}))

    (note,) = folder.lay_out([bundle], environment)

    assert "9.9.9" in note
    assert str(folder.bundle(MSRF.folder_name)) in note


def test_an_environment_that_gives_no_app_is_told(folder, environment, bundle):
    shutil.rmtree(environment.folder / "monailabel")

    with pytest.raises(EngineError, match="no app monaibundle"):
        folder.lay_out([bundle], environment)


def test_a_folder_with_other_things_is_left_alone(folder, environment, bundle):
    (folder.root / "lib").mkdir(parents=True, mode=0o755)
    for name in ("README.md", "main.py", "lib/mine.py", ".hidden"):
        (folder.root / name).write_text("mine\n")
    folder.root.chmod(0o755)
    before = {path: path.stat() for path in [folder.root, *folder.root.rglob("*")]}

    with pytest.raises(InputError, match=r"holds other things \(README\.md, lib, main\.py\)"):
        folder.lay_out([bundle], environment)

    assert {path: path.stat() for path in [folder.root, *folder.root.rglob("*")]} == before


def test_a_first_start_that_was_cut_off_is_taken_up_again(folder, environment, bundle, monkeypatch):
    def cut_off(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AppFolder, "_write_segmenter", cut_off)
        with pytest.raises(KeyboardInterrupt):
            folder.lay_out([bundle], environment)

    assert folder.lay_out([bundle], environment) == []


def test_the_app_is_laid_anew_at_each_start_and_the_folder_closed(folder, environment, bundle):
    folder.lay_out([bundle], environment)
    for name in ("stock.py", "main.py", "lib/__init__.py", "lib/more.py"):
        (folder.root / name).write_text("raise SystemExit\n")
    folder.root.chmod(0o755)

    assert folder.lay_out([bundle], environment) == []

    assert (folder.root / "stock.py").read_text() == "class MyApp: pass\n"
    assert "SystemExit" not in (folder.root / "main.py").read_text()
    assert [path.read_text() for path in (folder.root / "lib").iterdir()] == [""]
    assert folder.root.stat().st_mode & 0o077 == 0


def test_nothing_is_put_beside_the_folder_which_may_be_a_mount(folder, environment, bundle, monkeypatch):
    written: list[Path] = []
    copytree = shutil.copytree

    def noted(source, target, *more, **options):
        written.append(Path(target))
        return copytree(source, target, *more, **options)

    monkeypatch.setattr(shutil, "copytree", noted)
    folder.lay_out([bundle], environment)

    assert written
    assert all(path.is_relative_to(folder.root) for path in written)
    assert not list(folder.root.rglob("*.part"))


def test_a_folder_that_cannot_be_written_is_one_sentence(folder, environment, bundle):
    folder.root.write_text("a file")

    with pytest.raises(StorageError, match=r"cannot write .*my app"):
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


def changed(weights: Path, target: Path, by: float = 1) -> Path:
    """Write other weights of the same network, as training does."""
    state = torch.load(weights, weights_only=True)
    torch.save({name: tensor + by for name, tensor in state.items()}, target)
    return target


def test_a_bundle_without_weights_is_refused_with_the_ways_out(tmp_path, environment, bundle, monkeypatch):
    (bundle / "models" / "model.pt").unlink()

    result, called = start(tmp_path, environment, monkeypatch, [bundle])

    assert isinstance(result.exception, ConfigError)
    assert all(word in str(result.exception) for word in (MSRF.folder_name, "--weights", "--untrained"))
    assert called == []


def test_weights_that_come_after_a_refusal_or_after_random_ones_are_taken(tmp_path, environment, bundle, monkeypatch):
    own, away = bundle / "models" / "model.pt", tmp_path / "away.pt"
    copied = tmp_path / "app" / "model" / bundle.name
    own.rename(away)
    refused, _ = start(tmp_path, environment, monkeypatch, [bundle])
    was_copied = copied.exists()
    begun, _ = start(tmp_path, environment, monkeypatch, [bundle], "--untrained")
    was_random = is_untrained(copied)
    away.rename(own)

    result, called = start(tmp_path, environment, monkeypatch, [bundle], "--untrained")

    assert isinstance(refused.exception, ConfigError)
    assert not was_copied
    assert begun.exit_code == 0
    assert was_random
    assert result.exit_code == 0, result.output
    assert called
    assert "random weights" not in result.output
    assert same(copied / "models" / "model.pt", own)


@pytest.mark.parametrize("again", ["the same file", "another file", "the bundle's own"])
def test_fine_tuned_weights_are_kept_and_that_is_said(tmp_path, environment, bundle, monkeypatch, again):
    own = bundle / "models" / "model.pt"
    given, other = changed(own, tmp_path / "given.pt"), changed(own, tmp_path / "other.pt", 2)
    option = ("--weights", f"{bundle.name}={given}")
    start(tmp_path, environment, monkeypatch, [bundle], *option)
    tuned = tmp_path / "app" / "model" / bundle.name / "models" / "model.pt"
    assert same(tuned, given)
    before = sha256_of(changed(tuned, tuned, 5))
    if again == "another file":
        option = ("--weights", f"{bundle.name}={other}")
    elif again == "the bundle's own":
        option = ()
        changed(own, own, 9)

    result, called = start(tmp_path, environment, monkeypatch, [bundle], *option)

    assert called
    assert sha256_of(tuned) == before
    assert "was fine-tuned and is used" in result.output.replace("\n", " ")


def test_a_second_start_changes_nothing_and_other_weights_replace_untouched_ones(
    tmp_path, environment, bundle, monkeypatch
):
    own = bundle / "models" / "model.pt"
    given, other = changed(own, tmp_path / "given.pt"), changed(own, tmp_path / "other.pt", 2)
    copied = tmp_path / "app" / "model" / bundle.name / "models" / "model.pt"
    start(tmp_path, environment, monkeypatch, [bundle], "--weights", f"{bundle.name}={given}")
    before = copied.stat().st_mtime_ns

    start(tmp_path, environment, monkeypatch, [bundle], "--weights", f"{bundle.name}={given}")
    start(tmp_path, environment, monkeypatch, [bundle])
    after = copied.stat().st_mtime_ns
    result, _ = start(tmp_path, environment, monkeypatch, [bundle], "--weights", f"{bundle.name}={other}")

    assert after == before
    assert same(copied, other)
    assert "was not fine-tuned, and is now" in result.output.replace("\n", " ")


def same(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same weights."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return all(torch.equal(first[name], second[name]) for name in second)


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
