"""Work done ahead of the one who needs it, by no more than a few steps, so that memory does not grow with the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

__all__ = ["Backlog", "ahead_of"]

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead_of(
    executor: Executor, function: Callable[[Given], Made], items: Iterable[Given], steps: int
) -> Generator[Made, None, None]:
    """Yield ``function(item)`` for each item, in order, while the executor already works on the next ones.

    Args:
        executor: does the work.
        function: what to do; what it raises is raised here in its turn.
        items: taken from only when there is room.
        steps: results that may be waiting or in the making at a time, at least 1.

    Yields:
        The results. When the caller stops early, what has not begun is called off.
    """
    waiting: deque[Future[Made]] = deque()
    source = iter(items)
    try:
        for item in source:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= steps:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class Backlog:
    """Work that someone else finishes later, in order; who hands it over waits when too much of it is unfinished.

    Args:
        executor: does the work.
        steps: pieces that may be unfinished at a time, at least 1.
    """

    def __init__(self, executor: Executor, steps: int) -> None:
        self._executor = executor
        self._steps = steps
        self._waiting: deque[Future[None]] = deque()

    def add(self, function: Callable[[], None]) -> None:
        """Hand over a piece of work; raises what an earlier piece has raised."""
        while self._waiting and (len(self._waiting) >= self._steps or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._executor.submit(function))

    def finish(self) -> None:
        """Wait for everything; raises what the first piece that failed has raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def call_off(self) -> None:
        """Drop what has not begun, and wait for what has."""
        for future in self._waiting:
            future.cancel()
        for future in self._waiting:
            if not future.cancelled():
                future.exception()
        self._waiting.clear()
