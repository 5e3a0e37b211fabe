"""What becomes of an input when it is finished: its line, the list of paths, the journal, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from msrf_monai.clinical.crashes import CrashJournal
from msrf_monai.clinical.desks import TakenAwayError
from msrf_monai.clinical.execution.opening import Opened
from msrf_monai.clinical.execution.roles import Observer
from msrf_monai.clinical.failures import is_fatal
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Ledger
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.errors import StorageError

__all__ = ["Recorder", "stop_if_fatal"]


class Recorder:
    """Records finished inputs; the one place where a run changes the manifest. Called by one thread at a time.

    Args:
        results: the result folder.
        ledger: its manifest, open.
        note_sources: called with each input before its line is added; for the list of paths.
        observer: is told of every input that is finished.
        journal: is told that an input is no longer in work.
    """

    def __init__(
        self,
        results: ResultFolder,
        ledger: Ledger,
        note_sources: Callable[[PlannedInput], None],
        *,
        observer: Observer | None = None,
        journal: CrashJournal | None = None,
    ) -> None:
        self._results = results
        self._ledger = ledger
        self._note_sources = note_sources
        self._observer = observer
        self._journal = journal
        self.kept: set[str] = set()
        """Folders of the inputs that an earlier run had finished."""

    def begin(self, plan: Sequence[PlannedInput]) -> None:
        """Tell the observer what there is to do."""
        if self._observer is not None:
            self._observer.begin(len(plan), sum(each.frames for each in plan))

    def record(self, ended: Opened) -> None:
        """Add the line of an input that is finished, and tell the observer.

        Args:
            ended: the input with its entry; a new one gets its attempt's number here.

        Raises:
            StorageError: when the disk takes nothing more.
        """
        entry = ended.entry
        if entry is None:
            raise RuntimeError("an input ended without a line")  # pragma: no cover
        if ended.is_new:
            before = self._ledger.entries.get(entry.folder)
            entry = replace(entry, attempt=before.attempt + 1 if before else 1)
            try:
                if entry.state != "done":
                    # results of an earlier content must not stand beside a line that says there are none
                    self._results.discard(entry.folder)
                self._note_sources(ended.planned)
                self._ledger.append(entry)
            except StorageError as error:
                stop_if_fatal(error, self._results.root)
                raise
            except OSError as error:
                stop_if_fatal(error, self._results.root)
                raise StorageError(
                    f"{self._results.root} cannot be changed ({error.strerror}); give this user the right to write "
                    "there, then run the same command with --resume"
                ) from error
        else:
            self.kept.add(entry.folder)
        if self._journal is not None:
            self._journal.end(entry.folder)
        if self._observer is not None:
            # a terminal that was closed must not end the run
            with suppress(OSError):
                self._observer.ended(entry, ended.planned.frames, ended.is_new)


def stop_if_fatal(error: BaseException, root: Path) -> None:
    """Raise ``StorageError`` when an error of writing concerns the whole folder and not one input only.

    Args:
        error: what was raised.
        root: the result folder, for the message.
    """
    if isinstance(error, TakenAwayError):
        raise StorageError(str(error)) from error
    reason = is_fatal(error)
    if reason:
        raise StorageError(
            f"{reason} at {root}: the run has stopped. All results before are whole and in the "
            "manifest; mend that, then run the same command with --resume"
        ) from error
