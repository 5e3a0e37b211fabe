"""A worker that counts as dead may only be out of reach: it shares no file with its replacement and changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.desks import open_desk, take_away, take_away_all
from msrf_monai.clinical.execution import worker_handle
from msrf_monai.clinical.execution.messages import Message
from msrf_monai.clinical.execution.worker_handle import WorkerHandle
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.errors import StorageError
from support.clinical_runs import result_bytes
from support.clinical_workers import PROGRAM, light_inputs, load, stub_bundle

OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}


def write(folder: Path, content: bytes) -> None:
    (folder / "mask.png").write_bytes(content)


def test_two_workers_with_the_same_input_share_no_temporary_name(tmp_path: Path) -> None:
    one, other = (ResultFolder(tmp_path, open_desk(tmp_path)) for _ in range(2))

    with one.publish("image-1") as first:
        write(first, b"one")
        with other.publish("image-1") as second:
            assert first != second
            assert list(second.iterdir()) == []
            write(second, b"other")
        assert (first / "mask.png").read_bytes() == b"one"


@pytest.mark.parametrize("was_there", [False, True], ids=["new", "replaced"])
def test_who_lost_its_desk_while_it_wrote_publishes_nothing(tmp_path: Path, was_there: bool) -> None:
    desk = open_desk(tmp_path)
    lost, other = ResultFolder(tmp_path, desk), ResultFolder(tmp_path, open_desk(tmp_path))
    if was_there:
        with other.publish("image-1") as folder:
            write(folder, b"before")

    def publish_too_late() -> None:
        with lost.publish("image-1") as folder:
            write(folder, b"lost")
            take_away(tmp_path, desk)
            with other.publish("image-1") as replacement:
                write(replacement, b"other")

    with pytest.raises(StorageError, match="was removed while it was at work"):
        publish_too_late()

    assert (tmp_path / "image-1" / "mask.png").read_bytes() == b"other"
    with pytest.raises(StorageError, match="was removed"), lost.publish("image-2"):
        raise AssertionError("there is nothing to write into")
    take_away_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image-1"]


@pytest.mark.parametrize("step", [0, 1], ids=["before-setting-aside", "before-publishing"])
def test_who_lost_its_desk_at_the_last_moment_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The other one's result is made between two calls of the system: setting the old result aside, and publishing."""
    desk, second = open_desk(tmp_path), open_desk(tmp_path)
    with ResultFolder(tmp_path, second).publish("image-1") as folder:
        write(folder, b"before")
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == step + 1:
            monkeypatch.setattr(Path, "rename", rename)
            take_away(tmp_path, desk)
            with ResultFolder(tmp_path, second).publish("image-1") as replacement:
                write(replacement, b"other")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with (
        pytest.raises(StorageError, match="was removed"),
        ResultFolder(tmp_path, desk).publish("image-1") as folder,
    ):
        write(folder, b"lost")

    assert len(calls) == step + 1
    assert (tmp_path / "image-1" / "mask.png").read_bytes() == b"other"


class OutOfReach(WorkerHandle):
    """A process that is stopped after its first result and thought dead, and is not."""

    lost: list[OutOfReach]

    def receive(self) -> Message | None:
        message = super().receive()
        if not self.lost and message and message["kind"] == "ended":
            os.kill(self.number, signal.SIGSTOP)
            self.lost.append(self)
            return None
        return message

    @property
    def status(self) -> str:
        return "out of reach" if self in self.lost else super().status

    def go_on(self) -> None:
        """Let it work again: it ends at the first result that it publishes, if it had not published all it had."""
        os.kill(self.number, signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*")}


def test_a_worker_that_comes_back_after_the_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "PROGRAM", PROGRAM)
    monkeypatch.setattr(worker_handle, "WorkerHandle", OutOfReach)
    monkeypatch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
    monkeypatch.setattr(OutOfReach, "lost", [], raising=False)
    inputs, bundle = light_inputs(tmp_path / "in", 10), stub_bundle(tmp_path / "bundle", seconds=0.2)
    predict(bundle, inputs, tmp_path / "undisturbed", **OPTIONS)

    found = predict(bundle, inputs, tmp_path / "out", num_workers=1, **OPTIONS)

    (lost,) = OutOfReach.lost
    before = inodes(tmp_path / "out")
    assert lost.in_work
    lost.go_on()
    lost.kill()
    assert inodes(tmp_path / "out") == before
    assert (found.done, found.failed) == (10, 0)
    assert len(read_manifest(tmp_path / "out").entries) == 10
    assert result_bytes(tmp_path / "out") == result_bytes(tmp_path / "undisturbed")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "undisturbed").iterdir()
    }
