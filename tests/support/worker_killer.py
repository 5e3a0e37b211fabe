"""Workers that are killed while a run watches its inputs end, and Ray's actors as the system shows them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["WorkerKiller", "ray_actors"]


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
        self._ended = 0
        self.killed: list[int] = []

    def begin(self, inputs: int, frames: int) -> None:
        """Nothing is finished yet."""

    def ended(self, entry: Any, frames: int, is_new: bool) -> None:
        """Count an input, and kill when it is time."""
        self._ended += 1
        if self._ended in self._moments:
            time.sleep(self._generator.random() / 30)
            self.killed.append(self._choose(sorted(set(self._alive()) - set(self.killed)), self._generator))
            os.kill(self.killed[-1], signal.SIGKILL)


def ray_actors() -> list[int]:
    """Return the process numbers of the tests' actors that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::StubActor" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
