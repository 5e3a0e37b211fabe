"""A small HTTP server on loopback that answers as a test says, well or badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.loopback import Served

__all__ = ["Request", "WebServer", "matches", "multipart"]


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class WebServer(Served):
    """Answers every request by a function.

    Args:
        answer: gets the request and the handler of ``http.server``, and writes what it likes; or returns a status, a
            content type and a body.
        context: to speak TLS by.
    """

    def __init__(
        self,
        answer: Callable[[Request, BaseHTTPRequestHandler], tuple[int, str, bytes] | None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, dict(self.headers), body)
                outer.requests.append(request)
                try:
                    said = answer(request, self)
                    if said is not None:
                        status, kind, content = said
                        self.send_response(status)
                        self.send_header("Content-Type", kind)
                        self.send_header("Content-Length", str(len(content)))
                        self.end_headers()
                        self.wfile.write(content)
                    else:
                        self.close_connection = True
                except OSError:  # the client has gone
                    self.close_connection = True

            do_GET = do_POST = _serve  # noqa: N815 - as http.server wants it

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if context is None else "https"
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        super().__init__(self._server)

    @property
    def url(self) -> str:
        """Of its DICOMweb service."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/dicom-web"


def multipart(content: bytes, *, end: bytes = b"\r\n--edge--\r\n") -> tuple[int, str, bytes]:
    """An answer with one object, as WADO-RS gives it."""
    head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"
    return 200, 'multipart/related; type="application/dicom"; boundary=edge', head + content + end


def matches(*items: dict[str, str]) -> tuple[int, str, bytes]:
    """An answer of QIDO-RS: UIDs by their tag."""
    found = [{tag: {"vr": "UI", "Value": [uid]} for tag, uid in item.items()} for item in items]
    return 200, "application/dicom+json", json.dumps(found).encode()
