"""The record of a run."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from monai.utils import set_determinism

from msrf_monai.bundle import finish_manifest, git_commit, prepare_run, write_manifest
from msrf_monai.bundle.manifest import is_main_process
from msrf_monai.errors import ConfigError, StorageError


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "bundles" / "b").mkdir(parents=True)
    try:
        _git(folder, "init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed; it is the reference that this test compares with")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return folder


@pytest.mark.parametrize("form", ["branch", "packed", "detached", "worktree"])
def test_commit_is_the_one_that_git_reports(checkout: Path, form: str) -> None:
    expected = _git(checkout, "rev-parse", "HEAD")
    place = checkout / "bundles" / "b"
    if form == "packed":
        _git(checkout, "pack-refs", "--all")
    elif form == "detached":
        _git(checkout, "checkout", "-q", "--detach")
    elif form == "worktree":
        place = checkout.parent / "tree"
        _git(checkout, "worktree", "add", "-q", str(place))

    assert git_commit(place) == expected


def test_commit_is_none_outside_a_checkout_and_before_the_first_commit(tmp_path: Path) -> None:
    git = tmp_path / "empty" / ".git"
    git.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")

    assert git_commit(tmp_path / "empty") is None
    (git / "HEAD").write_bytes(b"\xff\xfe")
    assert git_commit(tmp_path / "empty") is None


def test_manifest_is_plain_json_without_object_contents(tmp_path: Path) -> None:
    config = {"a": {1, 2}, "b": torch.ones(2), "c": Path("x/y"), "d": [None, True, 1.5], 5: {"e": "$@f"}}

    path = write_manifest(tmp_path / "out", config=config, seed=3, device=torch.device("cpu"))

    assert path is not None
    read = json.loads(path.read_text())
    assert read["config"] == {
        "a": [1, 2], "b": "<torch.Tensor>", "c": "x/y", "d": [None, True, 1.5], "5": {"e": "$@f"},
    }  # fmt: skip
    assert (read["seed"], read["device"], read["processes"]) == (3, "cpu", 1)
    assert read["versions"]["torch"] == torch.__version__


def test_weights_are_recorded_by_digest(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"abc")

    path = write_manifest(tmp_path, weights=weights)

    assert path is not None
    # the published SHA-256 test vector of "abc"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json.loads(path.read_text())["weights_sha256"] == expected


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")

    assert write_manifest(tmp_path / "out") is None
    finish_manifest(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finish_needs_a_run_that_has_begun(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"run\.json.*call prepare_run first"):
        finish_manifest(tmp_path)


def test_finish_adds_the_wall_time(tmp_path: Path) -> None:
    write_manifest(tmp_path)

    finish_manifest(tmp_path)

    assert json.loads((tmp_path / "run.json").read_text())["wall_time_s"] >= 0


def test_record_of_a_finished_run_outlives_repeats_that_fail(tmp_path: Path) -> None:
    prepare_run(output_dir=tmp_path)
    finish_manifest(tmp_path)
    finished = (tmp_path / "run.json").read_bytes()

    for _ in range(2):  # both stop before their end, for instance for a folder that is not there
        prepare_run(output_dir=tmp_path)

    assert (tmp_path / "run.previous.json").read_bytes() == finished
    assert "finished" not in json.loads((tmp_path / "run.json").read_text())


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_record_without_an_end_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)

    prepare_run(output_dir=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_finished_record_that_cannot_be_kept_stops_the_run(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    finish_manifest(tmp_path)
    (tmp_path / "run.previous.json" / "x").mkdir(parents=True)

    with pytest.raises(StorageError, match=r"cannot keep .*run\.previous\.json"):
        prepare_run(output_dir=tmp_path)

    assert "finished" in json.loads((tmp_path / "run.json").read_text())


def test_prepare_run_seeds_torch_and_writes_the_manifest(tmp_path: Path) -> None:
    try:
        prepare_run(seed=5, output_dir=tmp_path, bundle_root=tmp_path, tune_memory=True)
        first = torch.rand(3)
        prepare_run(seed=5)
        second = torch.rand(3)
        assert torch.backends.cudnn.deterministic
    finally:
        set_determinism(None)

    assert torch.equal(first, second)
    assert json.loads((tmp_path / "run.json").read_text())["argv"] is None


def test_prepare_run_checks_and_records_the_command_line_inside_the_bundle_program(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("msrf_monai.bundle.run")
    installed = []
    monkeypatch.setattr(module, "is_bundle_program", lambda: True)
    monkeypatch.setattr(module, "install_error_line", lambda: installed.append(True))
    config = str(toy / "configs" / "train.json")
    monkeypatch.setattr("sys.argv", ["prog", "run", "--config_file", config, "--val_interval", "2"])

    prepare_run(output_dir=toy)
    manifest = json.loads((toy / "run.json").read_text())
    monkeypatch.setattr("sys.argv", ["prog", "run", "--config_file", config, "--val_intervall", "2"])
    with pytest.raises(ConfigError, match="--val_interval"):
        prepare_run()

    assert installed == [True, True]
    assert manifest["overrides"] == {"val_interval": 2}
    assert manifest["config"]["val_interval"] == 2


def test_only_rank_zero_of_a_process_group_is_the_main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # what the group says counts, not the environment
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert is_main_process()
    finally:
        torch.distributed.destroy_process_group()
    assert not is_main_process()


def test_prepare_run_without_arguments_changes_nothing() -> None:
    before = torch.get_rng_state()

    prepare_run()

    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", True])
def test_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        prepare_run(seed=seed)  # type: ignore[arg-type]
