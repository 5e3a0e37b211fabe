"""A run in this process: threads read, the calling thread runs the network, one thread writes.

Inputs go through in the order of the plan. Only a few are in memory at a time, whatever their number: each stage waits
for the next one. An input that fails ends as a line of the manifest; only a disk that takes nothing more ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.crashes import CrashJournal
from msrf_monai.clinical.execution.frames import CaseFrames
from msrf_monai.clinical.execution.opening import InputOpener, Opened, explain
from msrf_monai.clinical.execution.overlap import Backlog, ahead_of
from msrf_monai.clinical.execution.roles import Observer, SupportsPrediction, WriteResult, WriteSlide, Written
from msrf_monai.clinical.failures import Stage, is_fatal
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry, Ledger
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.reading import Limits
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.slides import Slide
from msrf_monai.errors import StorageError

__all__ = ["LocalRun"]

_AHEAD = 2
"""Inputs read ahead of the network for each reader, and inputs that wait to be written."""


class LocalRun:
    """Does a plan.

    Args:
        predictor: gives predictions.
        write: makes files of them.
        write_slide: predicts whole slides and makes files of them.
        results: the result folder.
        ledger: its manifest, open.
        limits: for reading.
        note_sources: called with each input before its line is added; for the list of paths.
        convert_unusual: see ``open_raster``.
        readers: threads that read and preprocess.
        observer: is told of every input that is finished.
        privacy: that the threads of the run join.
        journal: is told which inputs are in work, and says which may bring the process down.
    """

    def __init__(
        self,
        predictor: SupportsPrediction,
        write: WriteResult,
        write_slide: WriteSlide,
        results: ResultFolder,
        ledger: Ledger,
        *,
        limits: Limits,
        note_sources: Callable[[PlannedInput], None],
        convert_unusual: bool = False,
        readers: int = 1,
        observer: Observer | None = None,
        privacy: PrivateLogs | None = None,
        journal: CrashJournal | None = None,
    ) -> None:
        self._predictor = predictor
        self._write = write
        self._write_slide = write_slide
        self._results = results
        self._ledger = ledger
        self._note_sources = note_sources
        self._readers = readers
        self._observer = observer
        self._privacy = privacy or PrivateLogs()
        self._journal = journal
        self._before = dict(ledger.entries)
        self._kept: set[str] = set()
        self._opener = InputOpener(
            predictor, results, self._before, limits=limits, convert_unusual=convert_unusual, journal=journal
        )

    def run(self, plan: MutableSequence[PlannedInput]) -> set[str]:
        """Do everything in the plan that is not done yet.

        Args:
            plan: of ``plan_inputs``; it is emptied, since what is finished must not stay in memory.

        Returns:
            The folders of the inputs that an earlier run had finished.

        Raises:
            StorageError: when the disk takes nothing more; what was finished before is whole and in the manifest.
        """
        if self._observer is not None:
            self._observer.begin(len(plan), sum(each.frames for each in plan))
        suspects = self._journal.suspects if self._journal else set()
        alone = [each for each in plan if each.folder in suspects]
        plan[:] = [each for each in plan if each.folder not in suspects]
        join = self._privacy.join
        with (
            ThreadPoolExecutor(self._readers, "reader", initializer=join) as readers,
            ThreadPoolExecutor(1, "writer", initializer=join) as writer,
        ):
            while alone:
                self._work([alone.pop(0)], readers, writer)
            self._work(plan, readers, writer)
        return self._kept

    def _work(self, plan: MutableSequence[PlannedInput], readers: Executor, writer: Executor) -> None:
        backlog = Backlog(writer, _AHEAD)
        inputs = ahead_of(readers, self._opener.open, _taken(plan), _AHEAD * self._readers)
        try:
            for each in inputs:
                backlog.add(self._after_reading(each, readers))
            backlog.finish()
        except BaseException:
            backlog.call_off()
            inputs.close()
            raise

    def _after_reading(self, each: Opened, readers: Executor) -> Callable[[], None]:
        """Predict what can be predicted, and return what is left for the writer to do."""
        if each.entry is not None:
            return _Later(self._record, each, each.entry)
        if each.slide is not None:
            return self._after_slide(each, each.slide)
        case, first = each.case, each.first
        if case is None or first is None:
            raise RuntimeError("an input was read without a result")  # pragma: no cover
        frames = CaseFrames(self._predictor, case, first, readers, _AHEAD * self._readers)
        started = time.perf_counter()
        try:
            prediction = self._predictor.finish(frames.inferred())
        except Exception as error:
            stage: Stage = "read" if frames.reading_failed else "predict"
            why = explain(error, stage, each.planned)
            ended = self._opener.without_result(each.planned, "failed", why, case)
            return _Later(self._record, ended, ended.entry)
        seconds = time.perf_counter() - started
        timings = {"read": each.seconds + frames.waited, "predict": seconds - frames.waited}
        return _Later(self._keep, each, case, prediction, timings)

    def _after_slide(self, each: Opened, slide: Slide) -> Callable[[], None]:
        started = time.perf_counter()
        try:
            with slide, self._results.publish(each.planned.folder) as folder:
                written = self._write_slide(slide, each.digest, folder)
        except Exception as error:
            self._stop_if_fatal(error)
            why = explain(error, "predict", each.planned)
            ended = self._opener.without_result(each.planned, "failed", why)
            return _Later(self._record, ended, ended.entry)
        timings = {"read": each.seconds, "predict": time.perf_counter() - started}
        return _Later(self._record, each, _done(each.planned, each.digest, written, timings, 1))

    def _keep(self, each: Opened, case: Case, prediction: Prediction, timings: dict[str, float]) -> None:
        """Write a result and its line, in the writer's thread."""
        started = time.perf_counter()
        planned = each.planned
        try:
            with self._results.publish(planned.folder) as folder:
                written = self._write(case, prediction, folder)
        except Exception as error:
            self._stop_if_fatal(error)
            why = explain(error, "write", planned)
            ended = self._opener.without_result(planned, "failed", why, case)
            self._record(ended, ended.entry)
            return
        timings["write"] = time.perf_counter() - started
        written = replace(written, flags=(*case.info.notes, *written.flags))
        entry = _done(planned, case.digest, written, timings, case.info.frames)
        self._record(each, entry)

    def _record(self, each: Opened, entry: Entry | None) -> None:
        """Add the line of an input that is finished, and tell the observer, in the writer's thread."""
        if entry is None:
            raise RuntimeError("an input ended without a line")  # pragma: no cover
        if each.is_new:
            before = self._before.get(entry.folder)
            entry = replace(entry, attempt=before.attempt + 1 if before else 1)
            try:
                if entry.state != "done":
                    # results of an earlier content must not stand beside a line that says there are none
                    self._results.discard(entry.folder)
                self._note_sources(each.planned)
                self._ledger.append(entry)
            except StorageError as error:
                self._stop_if_fatal(error)
                raise
            except OSError as error:
                self._stop_if_fatal(error)
                raise StorageError(
                    f"{self._results.root} cannot be changed ({error.strerror}); give this user the right to write "
                    "there, then run the same command with --resume"
                ) from error
        else:
            self._kept.add(entry.folder)
        if self._journal is not None:
            self._journal.end(entry.folder)
        if self._observer is not None:
            # a terminal that was closed must not end the run
            with suppress(OSError):
                self._observer.ended(entry, each.planned.frames, each.is_new)

    def _stop_if_fatal(self, error: BaseException) -> None:
        reason = is_fatal(error)
        if reason:
            raise StorageError(
                f"{reason} at {self._results.root}: the run has stopped. All results before are whole and in the "
                "manifest; mend that, then run the same command with --resume"
            ) from error


def _done(planned: PlannedInput, digest: str, written: Written, timings: dict[str, float], frames: int) -> Entry:
    return Entry(
        input=planned.label,
        folder=planned.folder,
        digest=digest,
        state="done",
        flags=(*planned.flags, *written.flags),
        outputs=tuple(replace(each, path=f"{planned.folder}/{each.path}") for each in written.outputs),
        timings={name: round(value, 4) for name, value in timings.items()},
        frames=frames,
    )


def _taken(plan: MutableSequence[PlannedInput]) -> Iterator[PlannedInput]:
    plan.reverse()
    while plan:
        yield plan.pop()


class _Later:
    """A call with its arguments, made later by another thread."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._function = function
        self._arguments = arguments

    def __call__(self) -> None:
        self._function(*self._arguments)
