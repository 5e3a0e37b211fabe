"""Find studies in a DICOMweb archive (QIDO-RS) and fetch them as they are stored there (WADO-RS)."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.filereader import read_dataset, read_partial

from msrf_monai.clinical.naming import short_hash
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.multipart import boundary_of, first_part
from msrf_monai.clinical.pacs.retry import Backoff, persistent
from msrf_monai.clinical.pacs.stow import StowDestination
from msrf_monai.clinical.pacs.web_connection import Answer, WebConnection
from msrf_monai.clinical.pacs.web_query import conditions_of, items_of, uid_of
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.errors import ConfigError, PacsError
from msrf_monai.files import Closing

__all__ = ["FoundStudy", "StowDestination", "WebArchive"]

_NO_STUDY = "2.25.0"
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_JSON = "application/dicom+json"
_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE_BYTES = 1 << 26
"""64 MiB: a page of matches is some megabytes at most."""
_MOST = 1_000_000
"""Matches of one query; more is a server that repeats itself in ever new words."""
_HEAD = 1 << 16
_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class FoundStudy:
    """A study and its objects."""

    study_uid: str
    instances: tuple[tuple[str, str], ...]
    """Series and SOP instance UID of each."""


class WebArchive(Closing):
    """A DICOMweb archive.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        token: a bearer token; else credentials are as ``WebConnection`` finds them.
        timeout: seconds for connecting, and for each silence of the server.
        verify: a file with the certificates of authorities that are trusted.
        limits: ``file_bytes`` is the largest object that is fetched.
        page: matches that are asked for at once.

    Raises:
        ConfigError: when an argument is none of these.
        MissingExtraError: when requests is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        verify: Path | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        page: int = 200,
    ) -> None:
        if page < 1:
            raise ConfigError(f"a page must have at least 1 match, got {page}")
        self._connection = WebConnection(url, token=token, timeout=timeout, verify=verify)
        self._limits = limits
        self._page = page

    @property
    def url(self) -> str:
        """The address, without credentials."""
        return self._connection.url

    @property
    def name(self) -> str:
        """What it is called, without credentials."""
        return f"DICOMweb {self.url}"

    def close(self) -> None:
        """Close what is open to the server."""
        self._connection.close()

    def studies(self, query: Mapping[str, str]) -> list[str]:
        """Return the study instance UIDs of all studies that match a query, each once.

        Args:
            query: DICOM keywords (``ModalitiesInStudy``, ``StudyDate``, ``AccessionNumber``, …) and what they must
                match, as QIDO-RS writes it: ``*`` and ``?`` stand for any characters, ``20240101-20240131`` is a
                range. All must match. Which keywords a server knows is its own affair.

        Raises:
            ConfigError: when the query is empty or a keyword is none of DICOM's.
            PacsError: when the server cannot be reached, refuses, or answers with what is no list of UIDs.
        """
        return [study for (study,) in self._pages("/studies", conditions_of(query), (_STUDY,))]

    def objects_of(self, study: str) -> FoundStudy:
        """List the objects of a study; raises ``PacsError`` as ``studies`` does."""
        found = self._pages(f"/studies/{study}/instances", (), (_SERIES, _INSTANCE))
        return FoundStudy(study, tuple((series, instance) for series, instance in found))

    def check_alive(self) -> None:
        """Ask for a study that no archive has; raises ``PacsError`` when that gets no sensible answer."""
        self.studies({"StudyInstanceUID": _NO_STUDY})

    def _pages(
        self, path: str, conditions: Sequence[tuple[str, str]], tags: tuple[str, ...]
    ) -> Iterator[tuple[str, ...]]:
        """Yield the UIDs of every match, each once.

        Servers give less at once than they are asked for, or all at once whatever they are asked for. So only a page
        that brings nothing new is the last. Orthanc 1.10 finds nothing behind the first page of a query for
        ``ModalitiesInStudy``; so after a page as long as it could be, a longer one from the beginning must agree.
        """
        seen: set[tuple[str, ...]] = set()
        length = offset = 0
        while fresh := self._fresh(page := self._page_of(path, conditions, tags, self._page, offset), seen):
            yield from fresh
            length, offset = len(page), offset + len(page)
        limit = self._page
        while length >= limit:
            limit = 2 * max(limit, len(seen))
            page = self._page_of(path, conditions, tags, limit, 0)
            length = len(page)
            yield from self._fresh(page, seen)

    def _page_of(
        self, path: str, conditions: Sequence[tuple[str, str]], tags: tuple[str, ...], limit: int, offset: int
    ) -> list[tuple[str, ...]]:
        """Return the UIDs of some matches."""
        page = [("limit", str(limit)), ("offset", str(offset))]
        with self._connection.get(path, _JSON, [*conditions, *page]) as answer:
            answer.check()
            items = [] if answer.status == 204 else items_of(answer.read(_PAGE_BYTES), self.url)
        return [tuple(uid_of(item, tag, self.url) for tag in tags) for item in items]

    def _fresh(self, page: Sequence[tuple[str, ...]], seen: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return what a page brings that was not seen before, and remember it."""
        fresh = [uids for uids in dict.fromkeys(page) if uids not in seen]
        seen.update(fresh)
        if len(seen) > _MOST:
            raise PacsError(f"{self.url} has more than {_MOST} matches; ask for less", is_lasting=True)
        return fresh

    def fetch(
        self, study: FoundStudy, inbox: Inbox, *, backoff: Backoff, stop: threading.Event | None = None
    ) -> list[Path]:
        """Fetch the objects of a study, as they are stored: nothing is transcoded, at most a piece is in memory.

        Args:
            study: of ``objects_of``.
            inbox: where to; what it has already is not fetched again.
            backoff: how long to try, for each object.
            stop: set from outside to end soon.

        Returns:
            The files, one for each object.

        Raises:
            PacsError: when an object cannot be had; those before it stay in the inbox, and calling again goes on.
            StorageError: when the disk is full.
        """
        present = _present(inbox, study.study_uid)
        paths = []
        for series, instance in study.instances:
            if stop is not None and stop.is_set():
                raise PacsError(f"fetching from {self.url} was stopped; the next time goes on from there")
            path = present.get(short_hash(instance))
            if path is None:
                fetch = partial(self._fetch, study.study_uid, series, instance, inbox)
                path = persistent(fetch, backoff, stop=stop)
            paths.append(path)
        return paths

    def _fetch(self, study: str, series: str, instance: str, inbox: Inbox) -> Path:
        path = f"/studies/{study}/series/{series}/instances/{instance}"
        with self._connection.get(path, _STORED) as answer:
            answer.check()
            return inbox.store(self._content(answer, instance), study=study, instance=instance)

    def _content(self, answer: Answer, instance: str) -> Iterator[bytes]:
        """Yield the object that an answer holds, once its head is seen to be of that object."""
        boundary = boundary_of(answer.content_type)
        if boundary is None:
            raise PacsError(f"{self.url} answered with no DICOM object; check the address", is_lasting=True)
        # what is around the part is small
        pieces = first_part(answer.pieces(self._limits.file_bytes + _HEAD), boundary)
        try:
            head = bytearray()
            while len(head) < _HEAD and (piece := next(pieces, b"")):
                head += piece
            if not _is_object(bytes(head), instance):
                raise PacsError(
                    f"{self.url} answered with another object than the one it was asked for, or none", is_lasting=True
                )
            yield bytes(head)
            yield from pieces
        except EOFError:
            raise PacsError(f"{self.url} sent only a part of an object") from None
        except ValueError:
            raise PacsError(f"{self.url} sent an object without its envelope", is_lasting=True) from None


def _present(inbox: Inbox, study: str) -> dict[str, Path]:
    """Return what an inbox holds of a study, by the hash of the SOP instance UID."""
    return {path.stem: path for path in inbox.files(inbox.folder_of(study))}


def _is_object(head: bytes, instance: str) -> bool:
    """Tell whether a file that begins so is DICOM and is the object asked for, as far as it says."""
    if head[128:132] != b"DICM":
        return False
    named = set()
    with quiet_pydicom():
        try:
            handle = io.BytesIO(head)
            handle.seek(132)
            meta = read_dataset(handle, False, True, stop_when=lambda tag, vr, length: int(tag) >> 16 != 2)
            named.add(str(meta.get("MediaStorageSOPInstanceUID", "")))
            if meta.get("TransferSyntaxUID") != _DEFLATED:
                handle.seek(0)
                dataset = read_partial(handle, stop_when=lambda tag, vr, length: int(tag) > int(_INSTANCE, 16))
                named.add(str(dataset.get("SOPInstanceUID", "")))
        except Exception:  # a header that cannot be parsed is for reading to refuse, with the file's name
            return not named - {""} or instance in named
    return not named - {""} or instance in named
