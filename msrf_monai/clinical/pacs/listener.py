"""Receive DICOM objects by C-STORE: each is on the disk before its sender is told that it was taken."""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from msrf_monai.clinical.naming import safe_name
from msrf_monai.clinical.pacs.discreet import silence_pynetdicom
from msrf_monai.clinical.pacs.header import HEADER_BYTES, object_uids
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.spool import Spool
from msrf_monai.clinical.reading.decoders import PINNED_PLUGINS
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusedInput
from msrf_monai.errors import ConfigError, PacsError
from msrf_monai.files import Closing
from msrf_monai.optional import require

__all__ = ["Listener", "ListenerOptions", "check_ae_title"]

_logger = logging.getLogger(__name__)

_STANDARD = "1.2.840.10008."
_STORAGE = f"{_STANDARD}5.1.4.1.1."
_NOT_OF_A_STUDY = (f"{_STORAGE}200.", f"{_STORAGE}201.")
"""Protocols and inventories: they belong to no patient's study, and to no inbox."""
_STORAGE_SERVICE = f"{_STANDARD}4.2"
_VERIFICATION = f"{_STANDARD}1.1"
_READABLE = {f"{_STANDARD}1.2", f"{_STANDARD}1.2.1", f"{_STANDARD}1.2.2", f"{_STANDARD}1.2.1.99", *PINNED_PLUGINS}
_POLL_S = 0.05
_PREAMBLE = b"\0" * 128 + b"DICM"
_AE_TITLE = re.compile(r"[ !-\[\]-~]{1,16}")

_SUCCESS, _NO_SPACE, _WRONG_CLASS, _NOT_UNDERSTOOD, _TOO_LARGE = 0x0000, 0xA700, 0xA900, 0xC000, 0xC0A7


def check_ae_title(name: str, title: str) -> str:
    """Return an AE title without outer spaces.

    Args:
        name: what it is, for the message.
        title: 1 to 16 printable ASCII characters, no backslash.

    Raises:
        ConfigError: when it is none.
    """
    if _AE_TITLE.fullmatch(title) is None or not title.strip():
        raise ConfigError(f"{name} is {title!r}; expected 1 to 16 printable ASCII characters without a backslash")
    return title.strip()


@dataclass(frozen=True)
class ListenerOptions:
    """Where a listener listens, to whom, and what it takes.

    Raises:
        ConfigError: when a title, a port or a number cannot be.
    """

    aet: str = "MSRF_MONAI"
    """Our AE title; a peer that calls another is refused."""
    host: str = "127.0.0.1"
    """The address to listen on; by default only this machine's own programs reach it."""
    port: int = 11112
    """0: any free port."""
    callers: tuple[str, ...] = ()
    """The AE titles that may send; an empty tuple is nobody, so that nobody is let in by forgetting this."""
    any_caller: bool = False
    """Whether every AE title may send, ``callers`` or not."""
    max_pdu: int = 1 << 17
    """Bytes of one message of data: 128 KiB, the largest that common senders use."""
    timeout_s: float = 60.0
    """Seconds of silence after which a peer is cut off."""
    max_associations: int = 10
    """Peers at the same time; the others are told to come back."""
    limits: Limits = field(default_factory=Limits)
    """``file_bytes`` is the largest object that is taken."""

    def __post_init__(self) -> None:
        check_ae_title("aet", self.aet)
        for caller in self.callers:
            check_ae_title("a caller", caller)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {self.port}")
        if not 4096 <= self.max_pdu <= 1 << 24:
            raise ConfigError(f"max_pdu must be from 4096 to {1 << 24} bytes, got {self.max_pdu}")
        if not self.timeout_s > 0 or self.max_associations < 1:
            raise ConfigError(
                f"timeout_s and max_associations must be above 0, got {self.timeout_s} and {self.max_associations}"
            )


class Listener(Closing):
    """A C-ECHO and C-STORE server that puts what it is sent into an inbox.

    Every storage class of the standard is taken, also retired ones and those that are newer than this release, in any
    transfer syntax of the standard; nothing is transcoded. Answers: ``0x0000`` when the object is on the disk,
    ``0xA700`` when the disk is full, ``0xA900`` when the object is of another class than announced, ``0xC000`` when
    its UIDs are missing, malformed or others than announced, ``0xC0A7`` when it is larger than the limit.

    Args:
        inbox: where objects go.
        options: where to listen, and to whom.
    """

    def __init__(self, inbox: Inbox, options: ListenerOptions | None = None) -> None:
        self._inbox = inbox
        self._options = options or ListenerOptions()
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; before ``start`` the one of the options."""
        return self._options.port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            PacsError: when the address cannot be listened on; it is lasting.
            MissingExtraError: when pynetdicom is not installed.
        """
        silence_pynetdicom()
        options = self._options
        entity = self._entity()
        evt = require("pynetdicom", "pacs").evt
        try:
            self._server = entity.make_server(
                (options.host, options.port),
                server_class=require("msrf_monai.clinical.pacs.acceptor", "pacs").Server,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._offer),
                    (evt.EVT_SOP_COMMON, self._classify),
                    (evt.EVT_C_STORE, self._receive),
                    (evt.EVT_REJECTED, self._tell_rejected),
                    (evt.EVT_CONN_CLOSE, _discard),
                ],
                make_spool=lambda: Spool(options.limits.file_bytes, self._inbox.scratch),
                timeout_s=options.timeout_s,
            )
        except OSError as error:
            raise PacsError(
                f"cannot listen on {options.host}:{options.port} ({error.strerror or error}); "
                "choose an address of this machine and a port that is free",
                is_lasting=True,
            ) from None
        if not _is_loopback(options.host):
            _logger.warning(
                "listening on %s:%d, which other machines may reach; DICOM is neither encrypted nor signed, "
                "so keep that network closed",
                options.host,
                self.port,
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more and cut peers off; an object that was not acknowledged is theirs to send again."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        for association in self._server.active_associations:
            association.join(self._options.timeout_s)
        self._thread = None

    def _entity(self) -> Any:
        options = self._options
        entity = require("pynetdicom", "pacs").AE(options.aet)
        entity.add_supported_context(_VERIFICATION)
        entity.require_called_aet = True
        # to pynetdicom an empty list means everybody; a title that nobody can know means nobody
        nobody = secrets.token_hex(8)
        entity.require_calling_aet = [] if options.any_caller else [nobody, *options.callers]
        entity.maximum_associations = options.max_associations
        entity.maximum_pdu_size = options.max_pdu
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = options.timeout_s
        return entity

    def _offer(self, event: Any) -> None:
        """Offer a peer exactly the contexts that it proposes and that an inbox can take."""
        proposed: dict[str, list[Any]] = {}
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            if _is_storage(context.abstract_syntax):
                proposed.setdefault(context.abstract_syntax, []).extend(filter(_is_public, context.transfer_syntax))
        build_context = require("pynetdicom", "pacs").build_context
        event.assoc.acceptor.supported_contexts += [
            # the peer's own order, but what cannot be read only when there is nothing else
            build_context(abstract, sorted(dict.fromkeys(syntaxes), key=lambda syntax: syntax not in _READABLE))
            for abstract, syntaxes in proposed.items()
            if syntaxes
        ]

    def _classify(self, event: Any) -> dict[Any, Any]:
        """Tell pynetdicom that classes it does not know are of the storage service, for this association only."""
        negotiation = require("pynetdicom.pdu_primitives", "pacs").SOPClassCommonExtendedNegotiation
        answer = {}
        for context in event.assoc.acceptor.supported_contexts:
            if context.abstract_syntax != _VERIFICATION and context.abstract_syntax not in _all_storage():
                item = negotiation()
                item.sop_class_uid, item.service_class_uid = context.abstract_syntax, _STORAGE_SERVICE
                answer[context.abstract_syntax] = item
        return answer

    def _receive(self, event: Any) -> Any:
        spool = event.request.DataSet
        try:
            return self._keep(event, spool)
        except RefusedInput as error:
            return _failed(_NOT_UNDERSTOOD, error.sentence)
        except OSError as error:  # of the inbox, or of the spool
            _logger.error("an object was not stored, and its sender is told so: %s", error)
            return _failed(_NO_SPACE, "the disk is full or fails")
        finally:
            spool.close()

    def _keep(self, event: Any, spool: Spool) -> Any:
        if spool.failure == "too_large":
            return _failed(_TOO_LARGE, f"{spool.size} bytes are more than are taken")
        if spool.failure == "disk":
            return _failed(_NO_SPACE, "the disk is full or fails")
        uids = object_uids(spool.head(HEADER_BYTES), event.context.transfer_syntax)
        announced = str(event.request.AffectedSOPClassUID).strip(" \0")
        if not uids.sop_class == announced == str(event.context.abstract_syntax):
            return _failed(_WRONG_CLASS, "the object is of another SOP class than announced")
        if uids.instance != str(event.request.AffectedSOPInstanceUID).strip(" \0"):
            return _failed(_NOT_UNDERSTOOD, "the object has another SOP instance UID than announced")
        path = self._inbox.store(_as_file(event, spool), study=uids.study, instance=uids.instance)
        _logger.debug("stored %s/%s", path.parent.name, path.name)
        return _SUCCESS

    def _tell_rejected(self, event: Any) -> None:
        primitive = event.assoc.requestor.primitive
        caller, called = str(primitive.calling_ae_title).strip(), str(primitive.called_ae_title).strip()
        if called != self._options.aet.strip():
            reason = f"it calls {safe_name(called)}, and we are {self._options.aet}"
        elif not self._options.any_caller and caller not in map(str.strip, self._options.callers):
            reason = "it is not among the callers that may send"
        else:
            reason = f"{self._options.max_associations} peers are connected already"
        _logger.warning("refused %s from %s: %s", safe_name(caller), event.assoc.requestor.address, reason)


def _as_file(event: Any, spool: Spool) -> Iterator[bytes]:
    encode_file_meta = require("pynetdicom.dsutils", "pacs").encode_file_meta
    yield _PREAMBLE + encode_file_meta(event.file_meta)
    yield from spool.pieces()


def _discard(event: Any) -> None:
    event.assoc.dimse.discard()


def _failed(status: int, comment: str) -> Any:
    answer = require("pydicom", "pacs").Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:64]
    _logger.warning("refused an object with status 0x%04X: %s", status, comment)
    return answer


def _is_public(transfer_syntax: Any) -> bool:
    """Return whether a transfer syntax is one of the standard's, since others cannot be parsed."""
    return bool(not transfer_syntax.is_private and transfer_syntax.is_transfer_syntax)


def _is_storage(uid: str) -> bool:
    """Return whether a class is of the standard and stores something of a study."""
    if not uid.startswith(_STANDARD):
        return False
    return uid in _all_storage() or (uid.startswith(_STORAGE) and not uid.startswith(_NOT_OF_A_STUDY))


@cache
def _all_storage() -> frozenset[str]:
    contexts = require("pynetdicom", "pacs").AllStoragePresentationContexts
    return frozenset(str(context.abstract_syntax) for context in contexts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
