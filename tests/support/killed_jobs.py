"""Trainings in forked processes that another process kills at any moment; and one save, killed at each of its lines.

As a script: ``killed_jobs.py FOLDER PLAN``, the plan as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from ignite.engine import Events

import msrf_monai.engines.training_state
import msrf_monai.files
from support import gan_job, training_job
from support.processes import exit_code_of

JOBS: dict[str, Any] = {"one optimiser": training_job.build, "gan": gan_job.build}
_WRITING = ("save", "atomic_write", "storing", "_sync_folder")
BATCHES = {"one optimiser": 3, "gan": 2}  # in an epoch
SPARE = {"one optimiser": 2, "gan": 0}  # saves that there is time for in the longest wait
Kill = dict[str, Any]
"""After how many of a try's own ``iterations`` or ``saves`` have begun, and how many seconds later (``wait``)."""


def most_saves(job: str, kill: Kill) -> int:
    """Return how many epochs a try may save before it has to wait for its kill."""
    return SPARE[job] + (kill["saves"] if "saves" in kill else (kill["iterations"] - 1) // BATCHES[job])


def epochs_for(job: str, kills: list[Kill]) -> int:
    """Return a number of epochs that the tries of the plan do not come to the end of before the last one."""
    return 1 + sum(most_saves(job, kill) for kill in kills)


class Tell:
    """Send a byte when an iteration or a save begins, and wait for the kill in place of one save too many."""

    def __init__(self, parent: socket.socket, kill: Kill, most: int) -> None:
        self.parent = parent
        self.event = Events.EPOCH_COMPLETED if "saves" in kill else Events.ITERATION_STARTED
        self.left = most

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(self.event, lambda: self.parent.send(b"."))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.hold)

    def hold(self) -> None:
        if self.left == 0:
            self.parent.recv(1)  # which never comes
        self.left -= 1


def attempt(job: str, folder: Path, epochs: int, kill: Kill | None) -> int:
    """Train in a forked process, resuming what is there, and kill it from here; return its exit status."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        extra = [] if kill is None else [Tell(theirs, kill, most_saves(job, kill))]
        JOBS[job](folder, epochs=epochs, resume="auto", extra=extra)["trainer"].run()
        os._exit(0)
    theirs.close()
    with ours:
        if kill is not None:
            for _ in range(kill.get("saves", kill.get("iterations", 0))):
                ours.recv(1)
            time.sleep(kill["wait"])
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(folder: Path, job: str, kills: list[Kill]) -> dict[str, Any]:
    """Train with kills and without; return the exit statuses, what both left, and unfinished files."""
    epochs = epochs_for(job, kills)
    plans = {"broken": [*kills, None], "whole": [None]}
    codes = {}
    for name, tries in plans.items():
        (folder / name).mkdir()
        codes[name] = [attempt(job, folder / name, epochs, kill) for kill in tries]
    left = [path.name for path in folder.glob("broken/.training_state.pt.*")]
    results = {name: gan_job.result(folder / name) for name in plans}
    best = {
        name: gan_job.comparable(torch.load(folder / name / "models" / "model.pt", weights_only=True)) for name in plans
    }
    return {"codes": codes, "left": left, "results": results, "best": best}


def save_killed_at_each_line(folder: Path) -> dict[str, Any]:
    """Save the third epoch over and over, killed one line later each time; return what is read afterwards."""
    job = training_job.build(folder / "two", epochs=2)
    job["trainer"].run()
    saved = gan_job.comparable(job["state"]._read()[1])
    found: list[dict[str, Any]] = []
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        place = folder / f"line{len(found) + 1}"
        shutil.copytree(folder / "two", place)
        job["state"].path, job["state"].previous = (
            place / name for name in ("training_state.pt", "training_state.previous.pt")
        )
        code = exit_code_of(_save_killed_at(job, len(found) + 1))
        newest = job["state"].path.exists()
        read = gan_job.comparable(job["state"]._read()[1])
        found.append({"epoch": read["epoch"], "newest": newest, "same": read == saved, "code": code})
        shutil.rmtree(place)
    return {"found": found}


def _save_killed_at(job: dict[str, Any], line: int) -> Callable[[], None]:
    files = {module.__file__ for module in (msrf_monai.engines.training_state, msrf_monai.files)}
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files or frame.f_code.co_name not in _WRITING:
            return None
        lines += event == "line"
        if lines == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def work() -> None:
        job["trainer"].state.epoch = 3
        sys.settrace(trace)
        job["state"].save(job["trainer"])
        sys.settrace(None)

    return work


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # the first optimiser would import it, in each forked process anew
    asked = json.loads(sys.argv[2])
    outcome = train(Path(sys.argv[1]), **asked) if asked else save_killed_at_each_line(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(outcome))
