"""Who does what next: which inputs wait, which are under suspicion, and which bring a worker down. No process is here.

A worker has several inputs in work at a time, so that reading, predicting and writing overlap in it. When it dies,
nobody knows which of them it was: all are suspects and are done alone, each in a worker that has nothing else. An input
that is alone in two workers when they die is the culprit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, MutableSequence

from msrf_monai.clinical.inputs import PlannedInput

__all__ = ["Dispatch"]

_DEATHS = 2


class Dispatch:
    """The inputs of a run that are not finished.

    Args:
        plan: taken from at its beginning and emptied, since what is finished must not stay in memory.
        suspects: folders of inputs that are to be done alone.
        window: inputs that a worker may have in work at a time.
        workers: how many there are; towards the end they share what is left.
    """

    def __init__(
        self, plan: MutableSequence[PlannedInput], *, suspects: Iterable[str], window: int, workers: int
    ) -> None:
        known = set(suspects)
        self._suspects = deque(each for each in plan if each.folder in known)
        self._plan = plan
        plan[:] = [each for each in reversed(plan) if each.folder not in known]
        self._window = window
        self._workers = workers
        self._in_work = 0
        self._alone: set[str] = set()
        self._deaths: Counter[str] = Counter()

    @property
    def unfinished(self) -> int:
        """Inputs that wait or are in work."""
        return len(self._plan) + len(self._suspects) + self._in_work

    def take(self, held: Mapping[str, PlannedInput]) -> PlannedInput | None:
        """Return the next input for a worker, which is in work from now on.

        Args:
            held: what the worker has in work, by folder.

        Returns:
            None when the worker has enough, or nothing waits.
        """
        planned = self._next(held)
        if planned is not None:
            self._in_work += 1
        return planned

    def finished(self, folder: str) -> None:
        """Note that an input in work is finished."""
        self._in_work -= 1
        self._alone.discard(folder)
        self._deaths.pop(folder, None)

    def died(self, held: Mapping[str, PlannedInput]) -> list[PlannedInput]:
        """Put back what a worker that died had in work.

        Args:
            held: those inputs.

        Returns:
            Those that are not put back, and are still in work: they have brought down one worker too many.
        """
        self._deaths.update(list(held) if len(held) == 1 else ())
        culprits = [each for folder, each in held.items() if self._deaths[folder] >= _DEATHS]
        back = [each for folder, each in held.items() if self._deaths[folder] < _DEATHS]
        self._suspects.extend(back)
        self._in_work -= len(back)
        return culprits

    def _next(self, held: Mapping[str, PlannedInput]) -> PlannedInput | None:
        if not held and self._suspects:
            planned = self._suspects.popleft()
            self._alone.add(planned.folder)
            return planned
        if not self._plan or not self._alone.isdisjoint(held):
            return None
        share = -(-(len(self._plan) + self._in_work) // self._workers)
        weight = sum(map(self._weight, held.values()))
        return self._plan.pop() if weight < min(self._window, share) or not held else None

    def _weight(self, planned: PlannedInput) -> int:
        """Return how many pictures an input is like: a slide or a clip keeps a worker busy by itself."""
        return self._window if planned.is_slide else min(self._window, max(1, planned.frames))
