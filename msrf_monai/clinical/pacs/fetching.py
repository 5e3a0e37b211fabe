"""Fetch studies from a DICOMweb archive while those before are being predicted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from msrf_monai.clinical.execution.overlap import ahead_of
from msrf_monai.clinical.pacs.fetched import FetchedStudies
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.retry import Backoff, persistent
from msrf_monai.clinical.pacs.service import Service
from msrf_monai.clinical.pacs.web import FoundStudy, WebArchive
from msrf_monai.clinical.pipeline import PredictionRun
from msrf_monai.clinical.run_options import RunResult
from msrf_monai.errors import InputError, PacsError

__all__ = ["predict_archive"]

_OBJECTS = 64
"""Objects that are predicted together."""
_AHEAD = 8
"""Studies that are fetched meanwhile."""
_AT_FIRST = 20.0
"""Seconds to wait for an archive that does not answer the query."""
_WAITS = (1.0, 5.0, 20.0, 0.0)
"""Seconds after each attempt at one study, while the archive answers otherwise."""


def predict_archive(
    archive: WebArchive,
    query: Mapping[str, str],
    *,
    run: PredictionRun,
    service: Service,
    inbox: Inbox,
    backoff: Backoff,
    stop: threading.Event,
) -> RunResult:
    """Predict all studies that a query finds and that are not done yet.

    A study that cannot be fetched stops nothing: it is a line of the manifest, with the code ``not_fetched``.

    Args:
        archive: where they are.
        query: DICOM keywords and their values.
        run: open.
        service: predicts, and sends results on.
        inbox: takes what is fetched until it is predicted.
        backoff: how long to try when the archive is away.
        stop: ends the fetching.

    Returns:
        How many inputs are done, failed, flagged and skipped.

    Raises:
        InputError: when no study is found.
        PacsError: when the archive cannot be asked, or has been away for too long.
        StorageError: when the disk takes nothing more.
    """
    # somebody may be watching who has mistyped the address
    first = replace(backoff, give_up_after=min(backoff.give_up_after, _AT_FIRST))
    studies = persistent(lambda: archive.studies(query), first, stop=stop)
    if not studies:
        raise InputError(f"no study was found at {archive.name}; check the query, or ask with fewer conditions")
    run.begin()
    with FetchedStudies(run.folder) as fetched:
        fetch = _Fetch(archive, inbox, _is_done(run, fetched), backoff, stop)
        return _Job(run, service, fetched).do(studies, fetch)


@dataclass(frozen=True)
class _Fetched:
    uid: str
    study: FoundStudy | None = None
    """None when it cannot be fetched."""
    folder: Path | None = None
    """Of the inbox; None when there is nothing to do."""
    why: str = ""
    """Why it could not be fetched."""


class _Job:
    """Predicts studies, several at a time, while the next ones are being fetched."""

    def __init__(self, run: PredictionRun, service: Service, fetched: FetchedStudies) -> None:
        self._run = run
        self._service = service
        self._fetched = fetched
        self._folders: list[str] = []
        self._kept = 0

    def do(self, studies: Sequence[str], fetch: Callable[[str], _Fetched]) -> RunResult:
        at_hand: list[_Fetched] = []
        with (
            ThreadPoolExecutor(1, "fetcher") as fetcher,
            closing(ahead_of(fetcher, fetch, studies, _AHEAD)) as incoming,
        ):
            for each in incoming:
                if each.study is None:
                    self._folders.append(self._run.note_absent(each.uid, "not_fetched", each.why).folder)
                elif each.folder is None:
                    self._keep(each.study)
                else:
                    at_hand.append(each)
                if sum(len(one.study.instances) for one in at_hand if one.study) >= _OBJECTS:
                    self._work(at_hand)
                    at_hand = []
            self._work(at_hand)
        return RunResult.of((self._run.entries[folder] for folder in dict.fromkeys(self._folders)), self._kept)

    def _keep(self, study: FoundStudy) -> None:
        folders = self._fetched.folders(_uids(study)) or []
        self._folders += folders
        self._kept += len(folders)

    def _work(self, at_hand: Sequence[_Fetched]) -> None:
        studies = {each.folder: each.study for each in at_hand if each.folder is not None and each.study is not None}
        if not studies:
            return
        batch = self._service.work(list(studies))
        results: dict[Path, list[str]] = {}
        for entry, paths in zip(batch.entries, batch.sources, strict=True):
            results.setdefault(Path(paths[0]).parent, []).append(entry.folder)
        for folder, study in studies.items():
            self._run.note_present(study.study_uid)
            self._fetched.add(_uids(study), results.get(folder, []))
        self._folders += [entry.folder for entry in batch.entries]
        self._kept += batch.kept


class _Fetch:
    """Fetches a study that is not done yet; in a thread of its own."""

    def __init__(
        self,
        archive: WebArchive,
        inbox: Inbox,
        is_done: Callable[[FoundStudy], bool],
        backoff: Backoff,
        stop: threading.Event,
    ) -> None:
        self._archive = archive
        self._inbox = inbox
        self._is_done = is_done
        self._backoff = backoff
        self._stop = stop

    def __call__(self, uid: str) -> _Fetched:
        """Return what has become of it; raises ``PacsError`` when the archive is away for too long."""
        why = ""
        for seconds in _WAITS:
            try:
                return self._once(uid)
            except PacsError as error:
                why = str(error)
                if error.is_lasting:
                    break
            # is it this study, or the whole archive? The latter is waited for
            persistent(self._archive.check_alive, self._backoff, stop=self._stop)
            if self._stop.wait(seconds):
                break
        return _Fetched(uid, why=why)

    def _once(self, uid: str) -> _Fetched:
        study = self._archive.objects_of(uid)
        if not study.instances:
            return _Fetched(uid, why="the archive lists no object of this study")
        if self._is_done(study):
            return _Fetched(uid, study)
        files = self._archive.fetch(study, self._inbox, backoff=Backoff(give_up_after=0), stop=self._stop)
        return _Fetched(uid, study, files[0].parent)


def _is_done(run: PredictionRun, fetched: FetchedStudies) -> Callable[[FoundStudy], bool]:
    def is_done(study: FoundStudy) -> bool:
        folders = fetched.folders(_uids(study))
        return folders is not None and all(run.holds(folder) for folder in folders)

    return is_done


def _uids(study: FoundStudy) -> list[str]:
    return [study.study_uid, *(instance for _, instance in study.instances)]
