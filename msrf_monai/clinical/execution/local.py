"""A run in this process: every input of a plan through the stages, and its line into the manifest.

An input that fails ends as a line of the manifest; only a disk that takes nothing more ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence

from msrf_monai.clinical.crashes import CrashJournal
from msrf_monai.clinical.execution.opening import InputOpener
from msrf_monai.clinical.execution.recording import Recorder
from msrf_monai.clinical.execution.roles import Observer, SupportsPrediction, WriteResult, WriteSlide
from msrf_monai.clinical.execution.stages import Stages
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Ledger
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.reading import Limits
from msrf_monai.clinical.result_folder import ResultFolder

__all__ = ["LocalRun"]


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
        thumbnails: small pictures are written, so that what is decoded is kept small for them.
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
        thumbnails: bool = True,
        observer: Observer | None = None,
        privacy: PrivateLogs | None = None,
        journal: CrashJournal | None = None,
    ) -> None:
        self._predictor = predictor
        self._write = write
        self._write_slide = write_slide
        self._results = results
        self._readers = readers
        self._privacy = privacy or PrivateLogs()
        self._journal = journal
        self._recorder = Recorder(results, ledger, note_sources, observer=observer, journal=journal)
        self._opener = InputOpener(
            predictor,
            results,
            ledger.entries,
            limits=limits,
            convert_unusual=convert_unusual,
            thumbnails=thumbnails,
            journal=journal,
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
        self._recorder.begin(plan)
        suspects = self._journal.suspects if self._journal else set()
        alone = [each for each in plan if each.folder in suspects]
        plan[:] = [each for each in plan if each.folder not in suspects]
        with Stages(
            self._predictor,
            self._write,
            self._write_slide,
            self._results,
            self._opener,
            self._recorder.record,
            readers=self._readers,
            privacy=self._privacy,
        ) as stages:
            while alone:
                stages.work([alone.pop(0)])
            stages.work(_taken(plan))
        return self._recorder.kept


def _taken(plan: MutableSequence[PlannedInput]) -> Iterator[PlannedInput]:
    plan.reverse()
    while plan:
        yield plan.pop()
