"""A pynetdicom server that holds peers to limits: of a message's size, of time, of requests that wait.

pynetdicom reads as many bytes as a peer announces, collects an object of any size in memory, and waits for ever for
the rest of a message. This module replaces those three parts of it, and is imported only when a listener starts.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AssociationServer, RequestHandler

from msrf_monai.clinical.pacs.spool import Spool
from msrf_monai.clinical.reading.quiet import quiet_pydicom

__all__ = ["Server"]

_logger = logging.getLogger(__name__)

_LEAST_PDU = 1 << 20
"""Bytes of a message that are always taken: a request for 128 contexts is far larger than a small PDU of data."""
_POLLS_BETWEEN_COLLECTIONS = 600
"""pynetdicom collects garbage, among which are associations that ended, after so many looks for a new one."""
_LARGEST_COMMAND = 1 << 14
_WAITING = 4
"""Requests that a peer may send ahead of our answers; by the standard it is one."""


class Server(AssociationServer):
    """The server of a listener.

    Args:
        ae: the ``pynetdicom.AE``.
        address: host and port.
        ae_title: the called AE title.
        contexts: presentation contexts of every association.
        ssl_context: none.
        evt_handlers: as of pynetdicom.
        make_spool: makes what an object is collected in.
        timeout_s: seconds of silence within a message after which a peer is cut off.
    """

    def __init__(
        self,
        ae: Any,
        address: Any,
        ae_title: str,
        contexts: Any,
        ssl_context: Any = None,
        *,
        evt_handlers: Any,
        make_spool: Callable[[], Spool],
        timeout_s: float,
    ) -> None:
        self.make_spool = make_spool
        self.timeout_s = timeout_s
        self.sockets: WeakSet[socket.socket] = WeakSet()
        super().__init__(ae, address, ae_title, contexts, ssl_context, evt_handlers, _Handler)
        self._gc = [0, _POLLS_BETWEEN_COLLECTIONS]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take no further connection while many wait to be refused, since each costs two threads."""
        return len(self.active_associations) < 2 * self.ae.maximum_associations + 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection failed, not its traceback."""
        _logger.warning("a connection ended before it became an association")

    def shutdown(self) -> None:
        """Take no further connection, and cut those that there are; what was not acknowledged is sent again."""
        super(AssociationServer, self).shutdown()
        self.server_close()
        for each in list(self.sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Handler(RequestHandler):
    def _create_association(self) -> Any:
        server: Any = self.server
        self.request.settimeout(server.timeout_s)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sockets.add(self.request)
        association: Any = super()._create_association()
        association.dimse = _Provider(association, server.make_spool)
        wrapped = association.dul.socket
        wrapped.recv = _Receiver(wrapped, max(server.ae.maximum_pdu_size, _LEAST_PDU))
        # pynetdicom waits for a first message even when the peer has gone; nothing at all tells it to stop
        wake = partial(association.dul.to_user_queue.put, None)
        association.dul.run = _Guarded(association.dul.run, self.request, wake)
        association.run = _Guarded(association.run, self.request)
        return association


class _Receiver:
    """Reads no more than a limit, and in large pieces."""

    def __init__(self, wrapped: Any, largest: int) -> None:
        self._wrapped = wrapped
        self._largest = largest

    def __call__(self, size: int) -> bytearray:
        if size > self._largest:
            raise OSError("the peer announces a message larger than what was agreed")
        content = bytearray(size)
        received = 0
        with memoryview(content) as view:
            while received < size:
                count = self._wrapped.socket.recv_into(view[received:])
                if count == 0:
                    break
                received += count
        del content[received:]
        return content


class _Guarded:
    """Runs a thread of pynetdicom, whose unexpected errors would be printed with what they quote."""

    def __init__(
        self, run: Callable[[], None], connection: socket.socket, at_end: Callable[[], None] | None = None
    ) -> None:
        self._run = run
        self._connection = connection
        self._at_end = at_end

    def __call__(self) -> None:
        try:
            # of what a peer says about itself and its objects, nothing is to be quoted
            with quiet_pydicom():
                self._run()
        except Exception as error:  # whatever a malformed message leads to ends this association only
            _logger.warning("an association was cut off: pynetdicom raised %s", type(error).__name__)
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        finally:
            if self._at_end is not None:
                self._at_end()


class _Provider(DIMSEServiceProvider):
    """Collects objects in spools, and ends an association whose messages make no sense."""

    def __init__(self, association: Any, make_spool: Callable[[], Spool]) -> None:
        super().__init__(association)
        self._make_spool = make_spool

    def receive_primitive(self, primitive: Any) -> None:
        try:
            if self.message is None:
                if self.msg_queue.qsize() >= _WAITING:
                    raise OverflowError
                self.message = DIMSEMessage()
                self.message.data_set = self._make_spool()
            super().receive_primitive(primitive)
            if self.message is not None and self.message.encoded_command_set.tell() > _LARGEST_COMMAND:
                raise OverflowError
        except Exception as error:  # pynetdicom raises whatever a malformed command leads it to
            _logger.warning("an association is aborted: its message is malformed (%s)", type(error).__name__)
            self.discard()
            self.dul.event_queue.put("Evt19")

    def discard(self) -> None:
        """Drop what has arrived of an object that will not be completed."""
        message, self.message = self.message, None
        if message is not None and message.data_set is not None:
            message.data_set.close()
