"""The first step of an input: opened and prepared for the network, or known to end here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.crashes import CRASHED, CrashJournal
from msrf_monai.clinical.execution.roles import SupportsPrediction
from msrf_monai.clinical.failures import Stage, describe, is_final
from msrf_monai.clinical.inputs import PlannedInput, content_digest
from msrf_monai.clinical.ledger import Entry, State
from msrf_monai.clinical.privacy import where
from msrf_monai.clinical.reading import Limits, open_case
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.slide_inputs import PART_OF_ANOTHER
from msrf_monai.clinical.slides import Slide, open_slide
from msrf_monai.clinical.thumbnail import remember_small_frames

__all__ = ["InputOpener", "Opened", "explain", "has_crashed", "without_result"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An input as the readers leave it: ready for the network, or finished already."""

    planned: PlannedInput
    case: Case | None = None
    first: dict[Any, Any] | None = None
    slide: Slide | None = None
    digest: str = ""
    entry: Entry | None = None
    is_new: bool = True
    seconds: float = 0.0


class InputOpener:
    """Opens inputs; used by several threads at once.

    Args:
        predictor: prepares the first frame.
        results: the result folder.
        before: what earlier runs have done, by folder.
        limits: for reading.
        convert_unusual: see ``open_raster``.
        thumbnails: keep small copies of what is decoded, for the small picture that is written later.
        journal: is told which inputs are in work, and says which may bring the process down.
    """

    def __init__(
        self,
        predictor: SupportsPrediction,
        results: ResultFolder,
        before: Mapping[str, Entry],
        *,
        limits: Limits,
        convert_unusual: bool,
        thumbnails: bool,
        journal: CrashJournal | None,
    ) -> None:
        self._predictor = predictor
        self._results = results
        self._before = before
        self._limits = limits
        self._convert_unusual = convert_unusual
        self._thumbnails = thumbnails
        self._journal = journal

    def open(self, planned: PlannedInput) -> Opened:
        """Open an input, unless an earlier run has finished it, and prepare its first frame.

        Args:
            planned: the input.

        Returns:
            It, ready for the network, or with its line when it ends here. Nothing is raised but what ends a process.
        """
        started = time.perf_counter()
        case: Case | None = None
        try:
            if planned.skipped is not None:
                return self.without_result(planned, "skipped", planned.skipped)
            if planned.refusal is not None:
                raise planned.refusal
            if self._is_dangerous(planned):
                return self.without_result(planned, "failed", CRASHED)
            if planned.is_slide:
                return self._open_slide(planned)
            case = planned.case or open_case(
                planned.paths[0], self._limits, convert_unusual=self._convert_unusual, keep=True
            )
            before = self._before.get(planned.folder)
            if before and self._still_holds(before, case.digest):
                return Opened(planned, entry=before, is_new=False)
            case = remember_small_frames(case) if self._thumbnails else case
            first = self._predictor.prepare(case, 0)
        except Exception as error:
            return self.without_result(planned, "failed", explain(error, "read", planned), case)
        return Opened(planned, case, first, seconds=time.perf_counter() - started)

    def _open_slide(self, planned: PlannedInput) -> Opened:
        started = time.perf_counter()
        slide = open_slide(planned.paths[0])
        try:
            digest = slide.digest()
            before = self._before.get(planned.folder)
            if before and self._still_holds(before, digest):
                slide.close()
                return Opened(planned, entry=before, is_new=False)
        except BaseException:
            slide.close()
            raise
        return Opened(planned, slide=slide, digest=digest, seconds=time.perf_counter() - started)

    def _is_dangerous(self, planned: PlannedInput) -> bool:
        """Note that an input is in work, unless it has brought the process down and has not changed."""
        if self._journal is None:
            return False
        before = self._before.get(planned.folder)
        if planned.folder in self._journal.culprits or has_crashed(planned, before, self._limits):
            return True
        self._journal.begin(planned.folder)
        return False

    def _still_holds(self, before: Entry, digest: str) -> bool:
        if before.digest != digest or not digest:
            return False
        return before.state == "done" and self._results.holds(before.outputs)

    def without_result(
        self, planned: PlannedInput, state: State, why: tuple[str, str], case: Case | None = None
    ) -> Opened:
        """Return an input that ends here, by a new line or, when nothing has changed, by an earlier run's.

        Args:
            planned: the input.
            state: ``"failed"`` or ``"skipped"``.
            why: code and sentence.
            case: the input, when it could be opened.
        """
        return without_result(planned, self._before.get(planned.folder), self._limits, state, why, case)


def without_result(
    planned: PlannedInput,
    before: Entry | None,
    limits: Limits,
    state: State,
    why: tuple[str, str],
    case: Case | None = None,
) -> Opened:
    """Return an input that ends here, by a new line or, when nothing has changed, by an earlier run's.

    Args:
        planned: the input.
        before: what an earlier run said of it.
        limits: for reading.
        state: ``"failed"`` or ``"skipped"``.
        why: code and sentence.
        case: the input, when it could be opened.
    """
    case = case or planned.case
    # the parts of a slide may be gigabytes, and its own digest holds them
    paths = () if why[0] == PART_OF_ANOTHER else planned.paths
    digest = case.digest if case else content_digest(paths, limits) if paths else ""
    is_same = before is not None and (before.state, before.code, before.digest) == (state, why[0], digest)
    if before is not None and is_same and (state == "skipped" or (digest and is_final(why[0]))):
        return Opened(planned, entry=before, is_new=False)
    entry = Entry(
        input=planned.label,
        folder=planned.folder,
        digest=digest,
        state=state,
        code=why[0],
        reason=why[1],
        flags=planned.flags,
    )
    return Opened(planned, entry=entry)


def has_crashed(planned: PlannedInput, before: Entry | None, limits: Limits) -> bool:
    """Return whether an earlier run has found that an input breaks the program down, and it has not changed since."""
    return before is not None and before.code == CRASHED[0] and before.digest == content_digest(planned.paths, limits)


def explain(error: Exception, stage: Stage, planned: PlannedInput) -> tuple[str, str]:
    """Return the code and the sentence for an error, and log where it was."""
    _LOGGER.debug(where(error))
    return describe(error, stage, planned.paths)
