"""Fetch studies from a DICOMweb archive while those before are being predicted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
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
"""Objects that are fetched before they are predicted together, while the next ones are being fetched."""


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
    studies = persistent(lambda: list(archive.find(query)), backoff, stop=stop)
    if not studies:
        raise InputError(f"no study was found at {archive.name}; check the query, or ask with fewer conditions")
    run.begin()
    with FetchedStudies(run.folder) as fetched:
        job = _Job(run, service, fetched, _Fetch(archive, inbox, backoff, stop))
        return job.do(studies)


@dataclass(frozen=True)
class _Fetched:
    study: FoundStudy
    folder: Path | None
    why: str = ""
    """Why it could not be fetched."""


class _Job:
    """Predicts studies that are not done yet, a group at a time, while the next group is being fetched."""

    def __init__(self, run: PredictionRun, service: Service, fetched: FetchedStudies, fetch: _Fetch) -> None:
        self._run = run
        self._service = service
        self._fetched = fetched
        self._fetch = fetch
        self._folders: list[str] = []
        self._kept = 0

    def do(self, studies: Sequence[FoundStudy]) -> RunResult:
        new = [study for study in studies if not self._is_done(study)]
        with (
            ThreadPoolExecutor(1, "fetcher") as fetcher,
            closing(ahead_of(fetcher, self._fetch, _grouped(new), 2)) as groups,
        ):
            for group in groups:
                self._work(group)
        return RunResult.of((self._run.entries[folder] for folder in dict.fromkeys(self._folders)), self._kept)

    def _is_done(self, study: FoundStudy) -> bool:
        folders = self._fetched.folders(_uids(study))
        if folders is None or not all(self._run.holds(folder) for folder in folders):
            return False
        self._folders += folders
        self._kept += len(folders)
        return True

    def _work(self, group: Sequence[_Fetched]) -> None:
        for each in group:
            if each.folder is None:
                self._folders.append(self._run.note_absent(each.study.study_uid, "not_fetched", each.why).folder)
        at_hand = {each.folder: each.study for each in group if each.folder is not None}
        if not at_hand:
            return
        batch = self._service.work(list(at_hand))
        results: dict[Path, list[str]] = {}
        for entry, paths in zip(batch.entries, batch.sources, strict=True):
            results.setdefault(Path(paths[0]).parent, []).append(entry.folder)
        for folder, study in at_hand.items():
            self._run.note_present(study.study_uid)
            self._fetched.add(_uids(study), results.get(folder, []))
        self._folders += [entry.folder for entry in batch.entries]
        self._kept += batch.kept


class _Fetch:
    """Fetches a group of studies; in a thread of its own."""

    def __init__(self, archive: WebArchive, inbox: Inbox, backoff: Backoff, stop: threading.Event) -> None:
        self._archive = archive
        self._inbox = inbox
        self._backoff = backoff
        self._stop = stop

    def __call__(self, studies: Iterable[FoundStudy]) -> list[_Fetched]:
        return [self._one(study) for study in studies]

    def _one(self, study: FoundStudy) -> _Fetched:
        try:
            files = self._archive.fetch(study, self._inbox, backoff=self._backoff, stop=self._stop)
        except PacsError as error:
            if not error.is_lasting:
                # is it this study, or is the archive away? The latter is raised here
                next(self._archive.find({"StudyInstanceUID": study.study_uid}), None)
            return _Fetched(study, None, str(error))
        if not files:
            return _Fetched(study, None, "the archive gave no object of this study")
        return _Fetched(study, files[0].parent)


def _uids(study: FoundStudy) -> list[str]:
    return [study.study_uid, *(instance for _, instance in study.instances)]


def _grouped(studies: Iterable[FoundStudy]) -> Iterator[list[FoundStudy]]:
    group: list[FoundStudy] = []
    for study in studies:
        group.append(study)
        if sum(len(each.instances) for each in group) >= _OBJECTS:
            yield group
            group = []
    if group:
        yield group
