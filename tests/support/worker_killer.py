"""Workers that are killed while a run watches its inputs end, and processes by a mark that they inherit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["MARK", "WorkerKiller", "marked", "ray_actors"]

MARK = "MSRF_TEST_OF_KILLS"
"""A variable that all processes which a test starts inherit, however far down."""


class WorkerKiller:
    """An observer of a run that kills one of its workers each time when so many inputs are finished.

    Args:
        moments: after how many inputs.
        alive: returns the process numbers of the workers.
        choose: returns the one that is to go.
        generator: of the pause before each kill; the last argument of ``choose`` too.
    """

    def __init__(
        self,
        moments: set[int],
        alive: Callable[[], list[int]],
        choose: Callable[[list[int], random.Random], int],
        generator: random.Random,
    ) -> None:
        self._moments, self._alive, self._choose, self._generator = moments, alive, choose, generator
        self._ended = self._due = 0
        self.killed: list[int] = []

    def begin(self, inputs: int, frames: int) -> None:
        """Nothing is finished yet."""

    def ended(self, entry: Any, frames: int, is_new: bool) -> None:
        """Count an input, and kill when it is time; with the next input where nobody is alive."""
        self._ended += 1
        self._due += self._ended in self._moments
        if not self._due:
            return
        time.sleep(self._generator.random() / 30)
        alive = sorted(set(self._alive()) - set(self.killed))
        if alive:
            self._due -= 1
            self.killed.append(self._choose(alive, self._generator))
            os.kill(self.killed[-1], signal.SIGKILL)


def marked(mark: str) -> dict[int, str]:
    """Return the command lines, by process number, of what is alive and has inherited a mark that begins like this."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0{MARK}={mark}" in "\0" + (path / "environ").read_text(errors="replace"):
                found[int(path.name)] = (path / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
    return found


def ray_actors(mark: str) -> list[int]:
    """Return the process numbers of the actors that are alive and have inherited a mark."""
    return [number for number, command in marked(mark).items() if "ray::StubActor" in command]
