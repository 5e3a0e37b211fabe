"""Settings of the whole process that blocks of several threads ask for at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["SharedSetting", "ignoring_validation"]


class SharedSetting:
    """A setting that holds while at least one block wants it: the first sets it, the last one puts it back.

    Blocks that saved and restored it each for themselves would undo each other's where they overlap in two threads.

    Args:
        change: sets it, and says on the stack how to put it back.

    Example:
        >>> state = {"is_loud": True}
        >>> def hush(undo):
        ...     undo.callback(state.update, is_loud=state["is_loud"])
        ...     state["is_loud"] = False
        >>> quiet = SharedSetting(hush)
        >>> with quiet.held(), quiet.held():
        ...     state["is_loud"]
        False
        >>> state["is_loud"]
        True
    """

    def __init__(self, change: Callable[[ExitStack], None]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._count = 0
        self._undo = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the setting while the block runs."""
        with self._lock:
            if self._count == 0:
                self._change(self._undo)
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    self._undo.close()


def _ignore(undo: ExitStack) -> None:
    from pydicom import config

    undo.callback(setattr, config.settings, "reading_validation_mode", config.settings.reading_validation_mode)
    config.settings.reading_validation_mode = config.IGNORE


ignoring_validation = SharedSetting(_ignore).held
"""A block in which pydicom reads values that break the standard, without quoting them in a warning or an error."""
