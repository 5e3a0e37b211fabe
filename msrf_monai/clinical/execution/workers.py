"""A run by several workers: this process hands out inputs and writes the manifest, they do the rest.

Each worker loads the predictor once and reads, predicts and writes as a run in one process does. It has only a few
inputs in work at a time. When one dies, by a decoder that breaks down, by ``kill -9`` or for want of memory, another
one takes its place and nothing is lost; see ``Dispatch`` for what is done about the inputs that it had in work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence
from typing import Any

from msrf_monai.clinical.crashes import CRASHED, CrashJournal
from msrf_monai.clinical.execution.dispatch import Dispatch
from msrf_monai.clinical.execution.messages import Message, entry_from
from msrf_monai.clinical.execution.opening import Opened, has_crashed, without_result
from msrf_monai.clinical.execution.recording import Recorder
from msrf_monai.clinical.execution.roles import Observer
from msrf_monai.clinical.execution.stages import most_in_work
from msrf_monai.clinical.execution.worker_pool import WorkerPool
from msrf_monai.clinical.execution.workplace import Worker
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Ledger
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.errors import EngineError

__all__ = ["WorkersRun"]

_DEATHS_IN_A_ROW = 50
"""Workers that may die before one of them finishes an input."""
_SLACK = 3
"""Inputs that wait in a worker, so that it never waits for the next one."""


class WorkersRun:
    """Does plans with the workers of a pool, as ``LocalRun`` does in this process; results are the same files.

    Only the order of the manifest's lines is another one: that in which inputs are finished.

    Args:
        pool: the workers.
        results: the result folder.
        ledger: its manifest, open.
        settings: of the run.
        note_sources: called with each input before its line is added; for the list of paths.
        observer: is told of every input that is finished.
        journal: says which inputs may bring a process down, as an earlier run has found out.
    """

    def __init__(
        self,
        pool: WorkerPool,
        results: ResultFolder,
        ledger: Ledger,
        settings: RunOptions,
        *,
        note_sources: Callable[[PlannedInput], None],
        observer: Observer | None = None,
        journal: CrashJournal | None = None,
    ) -> None:
        self._pool = pool
        self._before: Mapping[str, Any] = ledger.entries
        self._limits = settings.limits
        self._suspects = set(journal.suspects) if journal else set()
        self._culprits = set(journal.culprits) if journal else set()
        self._recorder = Recorder(results, ledger, note_sources, observer=observer, journal=journal)
        self._deaths_in_a_row = 0

    def run(self, plan: MutableSequence[PlannedInput]) -> set[str]:
        """Do everything in the plan that is not done yet.

        Args:
            plan: of ``plan_inputs``; it is emptied, since what is finished must not stay in memory.

        Returns:
            The folders of the inputs that an earlier run had finished.

        Raises:
            StorageError: when the disk takes nothing more; what was finished before is whole and in the manifest.
            EngineError: when workers cannot begin, or die again and again.
        """
        self._recorder.begin(plan)
        pool = self._pool
        window = most_in_work(pool.readers) + _SLACK
        work = Dispatch(plan, suspects=self._suspects, window=window, workers=pool.count)
        try:
            while work.unfinished:
                pool.fill(min(pool.count, work.unfinished))
                self._hand_out(work)
                if work.unfinished:
                    for worker, message in pool.heard():
                        self._hear(work, worker, message)
        except BaseException:
            pool.kill()
            raise
        return self._recorder.kept

    def _hand_out(self, work: Dispatch) -> None:
        """Give every worker what it has room for, in turn, so that the first one does not take everything."""
        ready = [worker for worker in self._pool.workers if worker.is_ready]
        while ready:
            for worker in list(ready):
                planned = work.take(worker.in_work)
                if planned is None:
                    ready.remove(worker)
                elif self._is_dangerous(planned):
                    self._refuse(work, planned)
                else:
                    worker.give(planned, self._before.get(planned.folder))

    def _hear(self, work: Dispatch, worker: Worker, message: Message | None) -> None:
        if message is None:
            self._bury(work, worker)
        elif message["kind"] == "ended":
            entry = entry_from(message["entry"])
            if entry is not None and entry.folder in worker.in_work:
                self._deaths_in_a_row = 0
                self._recorder.record(Opened(worker.in_work.pop(entry.folder), entry=entry, is_new=message["is_new"]))
                work.finished(entry.folder)

    def _bury(self, work: Dispatch, worker: Worker) -> None:
        self._deaths_in_a_row += 1
        for planned in work.died(worker.in_work):
            self._refuse(work, planned)
        if self._deaths_in_a_row >= _DEATHS_IN_A_ROW:
            raise EngineError(
                f"{_DEATHS_IN_A_ROW} worker processes died without one input finished in between (the last one with "
                f"{worker.status}); this is not the fault of single inputs: check the installation with "
                "msrf-monai doctor, then run the same command with --resume"
            )

    def _is_dangerous(self, planned: PlannedInput) -> bool:
        before = self._before.get(planned.folder)
        return planned.folder in self._culprits or has_crashed(planned, before, self._limits)

    def _refuse(self, work: Dispatch, planned: PlannedInput) -> None:
        before = self._before.get(planned.folder)
        self._recorder.record(without_result(planned, before, self._limits, "failed", CRASHED))
        work.finished(planned.folder)
