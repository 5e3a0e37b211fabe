"""Send DICOM objects to a DICOMweb archive (STOW-RS), and read what it says about each."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

from msrf_monai.clinical.pacs.delivery import Sent
from msrf_monai.clinical.pacs.multipart import MultipartFiles
from msrf_monai.clinical.pacs.web_connection import WebConnection
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.errors import ConfigError, PacsError
from msrf_monai.files import Closing

__all__ = ["StowDestination"]

_JSON = "application/dicom+json"
_STORED, _FAILED, _UID, _REASON = "00081199", "00081198", "00081155", "00081197"
_ANSWER_BYTES = 1 << 26
_BY_OBJECT = (400, 406, 409, 413, 415, 422, 500)
"""Status codes that one object may bring about for all that came with it."""
_DUPLICATE = 0x0111
_PASSING = (0x0000, 0x0110)
"""The server does not say why, or failed to process the object: it may succeed later."""
_REASONS = {
    0x0117: "the server finds it invalid",
    0x0122: "the server does not store objects of its kind",
    0x0124: "the server does not allow it",
    0xC122: "the server does not store its transfer syntax",
}


@dataclass(frozen=True)
class _File:
    path: Path
    uid: str
    size: int


@dataclass(frozen=True)
class _Reply:
    """What a server says about the objects of one request."""

    stored: frozenset[str] = frozenset()
    failed: Mapping[str, int] = field(default_factory=dict)
    """DICOM's reason for each."""
    trouble: PacsError | None = None
    """What a status of failure means for those that are named in neither."""


class StowDestination(Closing):
    """A DICOMweb archive that takes results; a ``Destination``.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        token: a bearer token; else credentials are as ``WebConnection`` finds them.
        timeout: seconds for connecting, and for each silence of the server; it answers when all is stored.
        verify: a file with the certificates of authorities that are trusted.
        batch_bytes: objects are sent together up to this size, a larger one alone.

    Raises:
        ConfigError: when an argument is none of these.
        MissingExtraError: when requests is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        verify: Path | None = None,
        batch_bytes: int = 1 << 25,
    ) -> None:
        if batch_bytes < 1:
            raise ConfigError(f"batch_bytes must be at least 1, got {batch_bytes}")
        self._connection = WebConnection(url, token=token, timeout=timeout, verify=verify)
        self._batch_bytes = batch_bytes

    @property
    def name(self) -> str:
        """What it is called, without credentials."""
        return f"STOW-RS {self._connection.url}"

    def close(self) -> None:
        """Close what is open to the server."""
        self._connection.close()

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        """Send files; those that a failed request says nothing about are sent once more, each alone.

        Args:
            paths: DICOM files.

        Yields:
            What the server says about each: refused is only what it names as failed for good.

        Raises:
            PacsError: when the server cannot be reached or refuses as a whole. When it is about single objects, it
                comes after the others have had their turn.
        """
        files = []
        for path in paths:
            file = _describe(path)
            if file is None:
                yield Sent(path, is_accepted=False, reason="unreadable: the file is no DICOM object with a UID")
            else:
                files.append(file)
        troubles: list[PacsError] = []
        batches = deque(_batches(files, self._batch_bytes))
        while batches:
            batch = batches.popleft()
            reply = self._post(batch)
            silent = []
            for file in batch:
                sent = self._said(file, reply)
                if isinstance(sent, Sent):
                    yield sent
                elif reply.trouble is not None and len(batch) > 1:
                    silent.append([file])
                else:
                    troubles.append(sent)
            batches.extendleft(reversed(silent))
        if troubles:
            raise min(troubles, key=lambda trouble: trouble.is_lasting)

    def _said(self, file: _File, reply: _Reply) -> Sent | PacsError:
        """Return what a reply says about one object, or why that is no answer."""
        reason = reply.failed.get(file.uid)
        if file.uid in reply.stored or reason == _DUPLICATE:
            return Sent(file.path, is_accepted=True)
        if reason is None:
            return reply.trouble or PacsError(f"{self.name} took an object and said nothing about it; look at its log")
        if reason & 0xFF00 == 0xA700 or reason in _PASSING:
            return PacsError(f"{self.name} could not store an object (failure 0x{reason:04X}); look at its log")
        sentence = _REASONS.get(reason, "the server does not accept it")
        return Sent(file.path, is_accepted=False, reason=f"failure_0x{reason:04X}: {sentence}")

    def _post(self, batch: Sequence[_File]) -> _Reply:
        body = MultipartFiles([file.path for file in batch], [file.size for file in batch])
        try:
            return self._ask(body)
        except FileNotFoundError:
            raise PacsError(f"a file went while it was sent to {self.name}") from None

    def _ask(self, body: MultipartFiles) -> _Reply:
        with self._connection.post("/studies", _JSON, body.content_type, body) as answer:
            trouble = None
            try:
                answer.check()
            except PacsError as error:
                if answer.status not in _BY_OBJECT:
                    raise
                trouble = error
            content = answer.read(_ANSWER_BYTES)
        try:
            values = json.loads(content)
            failed = {uid: _reason(item) for uid, item in _items(values, _FAILED)}
            return _Reply(frozenset(uid for uid, _ in _items(values, _STORED)), failed, trouble)
        except (ValueError, TypeError, AttributeError, RecursionError):
            if trouble is not None:
                return _Reply(trouble=trouble)
        raise PacsError(f"{self.name} answered with what is no DICOM JSON; check the address", is_lasting=True)


def _describe(path: Path) -> _File | None:
    """Return what is needed to send a file, or None when it is no DICOM object."""
    with quiet_pydicom():
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            uid = str(dataset.SOPInstanceUID)
            return _File(path, uid, path.stat().st_size) if uid else None
        except Exception:  # pydicom raises whatever a broken file leads it to
            return None


def _batches(files: Iterable[_File], size: int) -> Iterator[list[_File]]:
    """Put files together up to a number of bytes."""
    batch: list[_File] = []
    for file in files:
        if batch and sum(each.size for each in batch) + file.size > size:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _items(values: Any, tag: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield UID and attributes of each item; the sequence may be missing or empty, which means the same."""
    for item in values.get(tag, {}).get("Value") or ():
        for uid in item.get(_UID, {}).get("Value") or ():
            yield str(uid), item


def _reason(item: Mapping[str, Any]) -> int:
    """Return why an object failed; 0 when the server does not say."""
    reasons = item.get(_REASON, {}).get("Value") or (0,)
    return int(reasons[0]) & 0xFFFF
