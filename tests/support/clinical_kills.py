"""Runs that are killed at chosen moments, each in a process of its own that is forked before any thread has begun.

Called as a program: ``clinical_kills.py INPUTS WORK JSON``; prints JSON. A moment is a call that changes the disk.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msrf_monai.clinical.pipeline import predict
from support.clinical_runs import ThresholdPredictor

_CHANGING = ("fsync", "rename", "replace", "pwrite", "mkdir", "unlink", "open")


class _Counter:
    """Counts the calls that change the disk below a folder, and ends the process at one of them."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.count = 0
        self._lock = threading.Lock()

    def is_last(self) -> bool:
        """Count a call; True for the one at which the process is to end."""
        with self._lock:
            self.count += 1
            return self.count == self.deadly

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.is_last():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call


def _torn_write(counter: _Counter, write: Callable[..., int]) -> Callable[..., int]:
    """Writes half of a line before the process ends, as a kill in the middle of it would."""

    def call(descriptor: int, data: bytes, offset: int) -> int:
        if counter.is_last():
            write(descriptor, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data, offset)

    return call


def in_fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """Do work in a fork of this process; return its exit status (negative: the signal) and its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(answer) if answer else None


def run(inputs: Path, output: Path, options: dict[str, Any], deadly: int = 0) -> tuple[int, Any]:
    """Run in a fork that ends at the call number ``deadly``; the answer is how many calls there were."""

    def work() -> Any:
        counter = _Counter(deadly)
        for name in _CHANGING:
            function = getattr(os, name)
            setattr(os, name, _torn_write(counter, function) if name == "pwrite" else counter.watch(function))
        found = predict(ThresholdPredictor(), inputs, output, **options)
        return {"calls": counter.count, **vars(found)}

    return in_fork(work)


def main() -> None:
    """Run undisturbed, then once for each moment and once through many kills, and say how each ended."""
    inputs, work, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    options = {"outputs": ("mask", "stats"), **settings["options"]}
    status, undisturbed = run(inputs, work / "undisturbed", options)
    generator = random.Random(settings["seed"])
    moments = sorted(generator.sample(range(1, undisturbed["calls"]), settings["moments"]))
    ends = []
    for moment in moments:
        output = work / f"killed-{moment}"
        ends.append(
            [moment, run(inputs, output, options, moment)[0], *run(inputs, output, {**options, "resume": True})]
        )
    kills = 0
    for _ in range(settings["kills"]):
        moment = generator.randrange(2, undisturbed["calls"] // 3)
        status, _ = run(inputs, work / "often", {**options, "resume": True}, moment)
        kills += status == -signal.SIGKILL
    last = run(inputs, work / "often", {**options, "resume": True})
    print(json.dumps({"undisturbed": undisturbed, "ends": ends, "kills": kills, "last": last}))


if __name__ == "__main__":
    main()
