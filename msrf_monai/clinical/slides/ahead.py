"""Do the next piece of reading while the network is busy with the last one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")


@contextmanager
def read_ahead(items: Iterator[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread, a few items ahead.

    Args:
        items: what to run; only that thread uses it.
        depth: items that may wait.

    Yields:
        An iterator over the same items. An error of ``items`` is raised there, in its turn. When the block ends, for
        whatever reason, the thread has ended too.
    """
    reader = _Reader(items, depth)
    thread = threading.Thread(target=reader.work, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield reader.taken()
    finally:
        reader.stop.set()
        thread.join()


class _End:
    """Behind the last item; with the error that ended them, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Reader(Generic[T]):
    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._waiting: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self.stop = threading.Event()

    def work(self) -> None:
        end = _End()
        try:
            for item in self._items:
                self._give(item)
                if self.stop.is_set():
                    return
        except BaseException as error:  # whatever it is, it belongs to who waits for the items
            end = _End(error)
        self._give(end)

    def taken(self) -> Iterator[T]:
        while True:
            entry = self._waiting.get()
            if not isinstance(entry, _End):
                yield entry
            elif entry.error is not None:
                raise entry.error
            else:
                return

    def _give(self, entry: T | _End) -> None:
        while not self.stop.is_set():
            try:
                self._waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return
