"""Send DICOM files by C-STORE, as they are."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrf_monai.clinical.pacs.delivery import Sent
from msrf_monai.clinical.pacs.discreet import silence_pynetdicom
from msrf_monai.clinical.pacs.header import FileHeader, file_header
from msrf_monai.clinical.pacs.listener import check_ae_title
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.reading.refusal import RefusedInput
from msrf_monai.errors import ConfigError, PacsError
from msrf_monai.optional import require

__all__ = ["StoreDestination"]

_logger = logging.getLogger(__name__)

_MOST_CONTEXTS = 128
_BYTES_PER_SECOND = 1e6
"""What the slowest line is expected to carry; an object's answer is waited for accordingly longer."""
_ADDRESS = re.compile(r"(?P<aet>[^@]+)@(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^@:\[\]\s]+)):(?P<port>[0-9]{1,5})")

_ACCEPTED = {0x0000, 0x0001, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007}
"""Success; warnings, upon which the peer keeps the object; and 0x0111: it has an object of this UID already."""
_GONE = "changed: the file is no longer there"
_REFUSED = {
    0x0105: "bad_value: the peer finds a value in the object that it does not allow",
    0x0117: "bad_instance: the peer finds the object's UID invalid",
    0x0118: "sop_class: the peer knows no objects of this class",
    0x0120: "missing_value: the peer misses a value in the object",
    0x0121: "missing_value: the peer misses a value in the object",
    0x0122: "sop_class: the peer takes no objects of this class",
    0x0124: "not_authorised: the peer does not let us store",
}
_CALLING_UNKNOWN, _CALLED_UNKNOWN = (1, 3), (1, 7)


@dataclass(frozen=True)
class _Item:
    path: Path
    header: FileHeader
    size: int

    @property
    def context(self) -> tuple[str, str]:
        return self.header.sop_class, self.header.transfer_syntax


class StoreDestination:
    """A peer that takes objects by C-STORE.

    Files are sent byte for byte, in the transfer syntax that they have: of each association exactly the pairs of class
    and transfer syntax at hand are asked for.

    Args:
        aet: the peer's AE title.
        host: its name or address.
        port: its port.
        calling_aet: our AE title, which many peers must know.
        timeout: seconds to wait for the peer, and a second more for each megabyte of an object.

    Raises:
        ConfigError: when a title, the port or the time cannot be.
    """

    def __init__(
        self, aet: str, host: str, port: int, *, calling_aet: str = "MSRF_MONAI", timeout: float = 30.0
    ) -> None:
        self._aet = check_ae_title("the peer's AE title", aet)
        self._calling_aet = check_ae_title("calling_aet", calling_aet)
        if not 1 <= port <= 65535 or not timeout > 0:
            raise ConfigError(f"expected a port from 1 to 65535 and a timeout above 0, got {port} and {timeout}")
        self._host, self._port, self._timeout = host, port, timeout

    @classmethod
    def parse(cls, text: str, *, calling_aet: str = "MSRF_MONAI", timeout: float = 30.0) -> StoreDestination:
        """Make one of ``AET@host:port``.

        Args:
            text: such as ``"ORTHANC@127.0.0.1:4242"``; an IPv6 address stands in brackets.
            calling_aet: our AE title.
            timeout: as above.

        Raises:
            ConfigError: when the text is none.

        Example:
            >>> StoreDestination.parse("ORTHANC@[::1]:4242").name
            'C-STORE ORTHANC@[::1]:4242'
        """
        match = _ADDRESS.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is no DICOM peer; expected AET@host:port, such as ORTHANC@127.0.0.1:4242")
        return cls(
            match["aet"], match["v6"] or match["host"], int(match["port"]), calling_aet=calling_aet, timeout=timeout
        )

    @property
    def name(self) -> str:
        """How people and ``deliveries.jsonl`` call it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"C-STORE {self._aet}@{host}:{self._port}"

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        """Send DICOM files.

        Args:
            paths: the files.

        Yields:
            What the peer says about each. A file that is no DICOM, or whose class and transfer syntax the peer does
            not take, is refused without being sent. An object that the peer had no room for is not among them; the
            others behind it are.

        Raises:
            PacsError: when the peer cannot be reached, lets nobody in or breaks off, or, when all others are through,
                had no room for some; lasting when it does not know one of the AE titles, or its name has no address.
            MissingExtraError: when pynetdicom is not installed.
        """
        silence_pynetdicom()
        items: list[_Item] = []
        for path in paths:
            try:
                items.append(_Item(path, file_header(path), path.stat().st_size))
            except RefusedInput as error:
                yield Sent(path, False, f"{error.code}: {error.sentence}")
            except FileNotFoundError:
                yield Sent(path, False, _GONE)
        postponed = 0
        for batch in _batches(items):
            postponed += yield from self._send_batch(batch)
        if postponed:
            raise PacsError(
                f"{self.name} has no room, or fails, for {postponed} of {len(paths)} objects; look at its log"
            )

    def _send_batch(self, batch: Sequence[_Item]) -> Generator[Sent, None, int]:
        """Send what fits one association; return how many objects the peer had no room for."""
        association = self._associate(sorted({item.context for item in batch}))
        accepted = {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in association.accepted_contexts}
        postponed = 0
        try:
            for item in batch:
                if item.context not in accepted:
                    reason = "no_context: the peer takes no objects of this class in this transfer syntax"
                    yield Sent(item.path, False, reason)
                    continue
                try:
                    answer = self._answer(item.path, self._store(association, item))
                except FileNotFoundError:
                    answer = Sent(item.path, False, _GONE)
                if answer is None:
                    postponed += 1
                else:
                    yield answer
        finally:
            if association.is_established:
                association.release()
        return postponed

    def _associate(self, contexts: Sequence[tuple[str, str]]) -> Any:
        pynetdicom = require("pynetdicom", "pacs")
        entity = pynetdicom.AE(self._calling_aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.connection_timeout = self._timeout
        connected = threading.Event()

        def at_connection(event: Any) -> None:
            # an object goes in two writes, and the second must not wait for the first one's acknowledgement (40 ms)
            event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.set()

        try:
            association = entity.associate(
                self._host,
                self._port,
                [pynetdicom.build_context(sop_class, syntax) for sop_class, syntax in contexts],
                ae_title=self._aet,
                evt_handlers=[(pynetdicom.evt.EVT_CONN_OPEN, at_connection)],
            )
        except socket.gaierror as error:
            raise PacsError(
                f"{self.name}: the host's name has no address ({error.strerror})",
                is_lasting=error.errno == socket.EAI_NONAME,
            ) from None
        if association.is_established or association.rejected_contexts:
            # where every context was refused there is no association, and nothing is wrong with the peer
            return association
        raise self._no_association(association, connected.is_set())

    def _no_association(self, association: Any, was_connected: bool) -> PacsError:
        if not was_connected:
            return PacsError(f"{self.name} cannot be reached; is it running, and are host and port right?")
        if not association.is_rejected:
            return PacsError(
                f"{self.name} took the connection and did not answer as DICOM does within {self._timeout} s"
            )
        primitive = association.acceptor.primitive
        reason = primitive.result_source, primitive.diagnostic
        if reason == _CALLING_UNKNOWN:
            return PacsError(
                f"{self.name} does not know our AE title {self._calling_aet}; add it there", is_lasting=True
            )
        if reason == _CALLED_UNKNOWN:
            return PacsError(f"{self.name} is called by another AE title than {self._aet}", is_lasting=True)
        return PacsError(f"{self.name} refuses the association ({primitive.reason_str.lower()})")

    def _store(self, association: Any, item: _Item) -> int:
        """Return the peer's answer about one object."""
        association.dimse_timeout = self._timeout + item.size / _BYTES_PER_SECOND
        try:
            with _as_they_are(), quiet_pydicom():
                answer = association.send_c_store(item.path)
        except (RuntimeError, ValueError, AttributeError):  # what pynetdicom raises when the peer has gone meanwhile
            answer = {}
        if "Status" not in answer:
            raise PacsError(f"{self.name} broke off, or gave no answer within {association.dimse_timeout:.0f} s")
        return int(answer.Status)

    def _answer(self, path: Path, status: int) -> Sent | None:
        """Return what a status means; None when the object may well be taken later."""
        if status in _ACCEPTED:
            if status:
                _logger.info("%s accepted an object with the remark 0x%04X", self.name, status)
            return Sent(path, True)
        if status in _REFUSED:
            return Sent(path, False, f"{_REFUSED[status]} (0x{status:04X})")
        if 0xA900 <= status <= 0xA9FF:
            return Sent(path, False, f"mismatch: the peer finds that the object is not of its class (0x{status:04X})")
        if 0xC000 <= status <= 0xCFFF:
            return Sent(path, False, f"not_understood: the peer does not understand the object (0x{status:04X})")
        _logger.warning("%s did not take an object just now (0x%04X)", self.name, status)
        return None


def _batches(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Yield runs of items that one association has contexts for."""
    batch: list[_Item] = []
    contexts: set[tuple[str, str]] = set()
    for item in items:
        if item.context not in contexts and len(contexts) == _MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(item)
        contexts.add(item.context)
    if batch:
        yield batch


_lock = threading.Lock()
_depth = 0
_before = False


@contextmanager
def _as_they_are() -> Iterator[None]:
    """Have pynetdicom send files without decoding and encoding them, by a setting that is the whole process's."""
    global _depth, _before
    config = require("pynetdicom._config", "pacs")
    with _lock:
        if _depth == 0:
            _before, config.STORE_SEND_CHUNKED_DATASET = config.STORE_SEND_CHUNKED_DATASET, True
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                config.STORE_SEND_CHUNKED_DATASET = _before
