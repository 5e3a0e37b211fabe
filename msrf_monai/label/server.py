"""MONAI Label's server behind a check of who asks: what ``monailabel.main`` is given as ``--uvicorn_app``."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from msrf_monai.optional import require

__all__ = ["ORIGINS", "OwnPagesOnly"]

ORIGINS = "MSRF_LABEL_ORIGINS"
"""Environment variable with further addresses of pages that may send requests, with commas between them."""

_REFUSAL = (
    b'{"detail": "a page of another address sent this request, or it came for another name than this computer\'s; '
    b"expected this server's own address, or one of MSRF_LABEL_ORIGINS\"}"
)


class OwnPagesOnly:
    """Refuse what a browser sends for a page of another address; programs send no such header and pass.

    MONAI Label lets the pages of every address read and write, and its setting MONAI_LABEL_CORS_ORIGINS ends it. A page
    whose own name was made to mean this computer afterwards (DNS rebinding) is of the same address as what it asks for:
    so requests must be for a numeric address, ``localhost``, this computer's name, or a name that is listed.

    Args:
        inner: the server, an ASGI application.
        others: addresses of pages that may send requests too, such as ``https://label.example``.
    """

    def __init__(self, inner: Any, others: frozenset[str] = frozenset()) -> None:
        self.inner, self.others = inner, others
        self._names = {"localhost", socket.gethostname().lower(), *(urlsplit(each).hostname for each in others)}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request, with status 403 where it is refused."""
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin", b"").decode("latin-1")
        own = headers.get(b"host", b"").decode("latin-1")
        is_own_page = not origin or urlsplit(origin).netloc == own or origin in self.others
        if scope["type"] != "http" or (is_own_page and self._is_known(own)):
            if scope.get("method") == "POST" and not origin and b"content-type" not in headers:
                # QuPath's plugin does not say that it sends JSON; of a page FastAPI has to refuse that
                scope = {**scope, "headers": [*scope["headers"], (b"content-type", b"application/json")]}
            await self.inner(scope, receive, send)
            return
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 403, "headers": kind})
        await send({"type": "http.response.body", "body": _REFUSAL})

    def _is_known(self, host: str) -> bool:
        """Tell whether a request was sent to a name that can only be meant for this computer."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def __getattr__(name: str) -> Any:
    """Make the server when it is asked for: MONAI Label reads its settings as it is imported."""
    if name != "app":
        raise AttributeError(name)
    others = (each.strip() for each in os.environ.get(ORIGINS, "").split(","))
    return OwnPagesOnly(require("monailabel.app", "label").app, frozenset(filter(None, others)))
