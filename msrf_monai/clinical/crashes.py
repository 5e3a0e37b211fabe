"""Find the input that brings the whole program down, so that a resumed run does not fall over it again and again.

Decoders are compiled code: a damaged file may make one of them abort the process, which no ``except`` catches. While a
run is on, ``.journal`` says which inputs are in work, and Python's fault handler writes to ``.crash`` when the process
ends that way (and not when it is killed from outside). After a crash the inputs that were in work are suspects: the
next run does them first and one at a time. One that is alone in work when the process crashes is not tried again.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["CRASH", "CRASHED", "JOURNAL", "CrashJournal"]

CRASHED = (
    "crashed",
    "the program broke down while this input alone was in work; keep it away from the others and report it",
)
"""Code and sentence of an input that is not tried again."""

JOURNAL, CRASH = ".journal", ".crash"
"""Names of the files in the result folder; both go when a run ends."""


class CrashJournal:
    """The journal of a result folder.

    Args:
        folder: the result folder, which exists.

    Attributes:
        suspects: folders of the inputs of which one may have brought an earlier run down.
        culprits: folders of those that did.
    """

    def __init__(self, folder: Path) -> None:
        self._journal, self._crash = folder / JOURNAL, folder / CRASH
        self.suspects: set[str] = set()
        self.culprits: set[str] = set()
        self._learn()

    def begin(self, folder: str) -> None:
        """Note that an input is in work, before anything touches it."""
        self._note(f"+{folder}")

    def end(self, folder: str) -> None:
        """Note that it is finished."""
        self._note(f"-{folder}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note a crash of the process while the block runs; the journal goes when the block ends in any other way."""
        was_enabled = faulthandler.is_enabled()
        with self._crash.open("wb") as record:
            faulthandler.enable(record)
            try:
                yield
            finally:
                faulthandler.disable()
                if was_enabled:
                    with suppress(OSError, ValueError, RuntimeError, AttributeError):
                        faulthandler.enable()
        self._crash.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _learn(self) -> None:
        """Read what the last run left, and begin a journal of this one."""
        lines = self._journal.read_text("ascii", "replace").splitlines() if self._journal.exists() else []
        culprits, suspects, in_work = set[str](), set[str](), set[str]()
        marked = {"!": culprits, "?": suspects, "+": in_work}
        for line in lines:  # in their order: an input may be begun again
            if line[:1] in marked:
                marked[line[:1]].add(line[1:])
            else:
                for each in marked.values():
                    each.discard(line[1:])
        if self._crash.exists() and self._crash.stat().st_size:
            culprits |= in_work if len(in_work) == 1 else set()
            suspects |= in_work
        self.culprits = culprits
        self.suspects = suspects - culprits
        known = [*(f"!{name}" for name in sorted(self.culprits)), *(f"?{name}" for name in sorted(self.suspects))]
        self._journal.write_text("".join(f"{line}\n" for line in known), "ascii")

    def _note(self, line: str) -> None:
        # not synced: it is for a process that breaks down, after which the system still writes what it was given
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)
