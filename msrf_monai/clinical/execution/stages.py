"""The stages of an input in one process: threads read, the calling thread runs the network, one thread writes.

Inputs go through in the order in which they come. Only a few are in memory at a time, whatever their number: each stage
waits for the next one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.execution.frames import CaseFrames
from msrf_monai.clinical.execution.opening import InputOpener, Opened, explain
from msrf_monai.clinical.execution.overlap import Backlog, ahead_of
from msrf_monai.clinical.execution.recording import stop_if_fatal
from msrf_monai.clinical.execution.roles import SupportsPrediction, WriteResult, WriteSlide, Written
from msrf_monai.clinical.failures import Stage
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.slides import Slide
from msrf_monai.files import Closing

__all__ = ["Stages", "most_in_work"]

_AHEAD = 2
"""Inputs read ahead of the network for each reader, and inputs that wait to be written."""


def most_in_work(readers: int) -> int:
    """Return how many inputs the stages hold at most before they ask for one more."""
    return _AHEAD * readers + _AHEAD


class Stages(Closing):
    """Reads, predicts and writes inputs, all at the same time.

    Args:
        predictor: gives predictions.
        write: makes files of them.
        write_slide: predicts whole slides and makes files of them.
        results: the result folder.
        opener: opens inputs.
        record: is called with every input that is finished, in the writer's thread.
        readers: threads that read and preprocess.
        privacy: that the threads join.
    """

    def __init__(
        self,
        predictor: SupportsPrediction,
        write: WriteResult,
        write_slide: WriteSlide,
        results: ResultFolder,
        opener: InputOpener,
        record: Callable[[Opened], None],
        *,
        readers: int,
        privacy: PrivateLogs,
    ) -> None:
        self._predictor = predictor
        self._write = write
        self._write_slide = write_slide
        self._results = results
        self._opener = opener
        self._record = record
        self._ahead = _AHEAD * readers
        self._join = _Joining(privacy)
        self._readers = ThreadPoolExecutor(readers, "reader", initializer=self._join)
        self._writer = ThreadPoolExecutor(1, "writer", initializer=self._join)

    def work(self, inputs: Iterable[PlannedInput]) -> None:
        """Take inputs through all stages.

        Args:
            inputs: taken from only when there is room. When they end, everything is finished before this returns.

        Raises:
            StorageError: when the disk takes nothing more; what was finished before is recorded.
        """
        backlog = Backlog(self._writer, _AHEAD)
        opened = ahead_of(self._readers, self._opener.open, inputs, self._ahead)
        try:
            for each in opened:
                backlog.add(self._after_reading(each, self._readers))
            backlog.finish()
        except BaseException:
            backlog.call_off()
            opened.close()
            raise

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown()
        self._writer.shutdown()
        self._join.end()

    def _after_reading(self, each: Opened, readers: Executor) -> Callable[[], None]:
        """Predict what can be predicted, and return what is left for the writer to do."""
        if each.entry is not None:
            return _Later(self._record, each)
        if each.slide is not None:
            return self._after_slide(each, each.slide)
        case, first = each.case, each.first
        if case is None or first is None:
            raise RuntimeError("an input was read without a result")  # pragma: no cover
        frames = CaseFrames(self._predictor, case, first, readers, self._ahead)
        started = time.perf_counter()
        try:
            prediction = self._predictor.finish(frames.inferred())
        except Exception as error:
            stage: Stage = "read" if frames.reading_failed else "predict"
            why = explain(error, stage, each.planned)
            return _Later(self._record, self._opener.without_result(each.planned, "failed", why, case))
        seconds = time.perf_counter() - started
        timings = {"read": each.seconds + frames.waited, "predict": seconds - frames.waited}
        return _Later(self._keep, each, case, prediction, timings)

    def _after_slide(self, each: Opened, slide: Slide) -> Callable[[], None]:
        started = time.perf_counter()
        try:
            with slide, self._results.publish(each.planned.folder) as folder:
                written = self._write_slide(slide, each.digest, folder)
        except Exception as error:
            stop_if_fatal(error, self._results.root)
            why = explain(error, "predict", each.planned)
            return _Later(self._record, self._opener.without_result(each.planned, "failed", why))
        timings = {"read": each.seconds, "predict": time.perf_counter() - started}
        return _Later(self._record, _done(each.planned, each.digest, written, timings, 1))

    def _keep(self, each: Opened, case: Case, prediction: Prediction, timings: dict[str, float]) -> None:
        """Write a result and record it, in the writer's thread."""
        started = time.perf_counter()
        planned = each.planned
        try:
            with self._results.publish(planned.folder) as folder:
                written = self._write(case, prediction, folder)
        except Exception as error:
            stop_if_fatal(error, self._results.root)
            why = explain(error, "write", planned)
            self._record(self._opener.without_result(planned, "failed", why, case))
            return
        timings["write"] = time.perf_counter() - started
        written = replace(written, flags=(*case.info.notes, *written.flags))
        self._record(_done(planned, case.digest, written, timings, case.info.frames))


def _done(planned: PlannedInput, digest: str, written: Written, timings: dict[str, float], frames: int) -> Opened:
    entry = Entry(
        input=planned.label,
        folder=planned.folder,
        digest=digest,
        state="done",
        flags=(*planned.flags, *written.flags),
        outputs=tuple(replace(each, path=f"{planned.folder}/{each.path}") for each in written.outputs),
        timings={name: round(value, 4) for name, value in timings.items()},
        frames=frames,
    )
    return Opened(planned, entry=entry)


class _Joining:
    """Prepares a thread that reads or writes beside the network.

    Such a thread computes alone: with helpers of its own there would be more threads than processors, which slows those
    of the network down.
    """

    def __init__(self, privacy: PrivateLogs) -> None:
        self._privacy = privacy
        self._torch: Any = sys.modules.get("torch")
        # what a thread sets holds for itself and for those that have not computed yet: this one has, from here on
        self._threads = self._torch.get_num_threads() if self._torch else 0

    def __call__(self) -> None:
        self._privacy.join()
        if self._torch:
            self._torch.set_num_threads(1)

    def end(self) -> None:
        """Let threads that begin later compute as before."""
        if self._torch:
            self._torch.set_num_threads(self._threads)


class _Later:
    """A call with its arguments, made later by another thread."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._function = function
        self._arguments = arguments

    def __call__(self) -> None:
        self._function(*self._arguments)
