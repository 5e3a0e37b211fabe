"""Who is let through to MONAI Label: by the names that a browser sends, without the server itself."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from msrf_monai.label.server import OwnPagesOnly

LISTED = "https://label.example"


def status_of(host: str, origin: str = "") -> int:
    """Send a request through the check, and return the status of the answer; what is let through gets 200."""
    answers: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    check = OwnPagesOnly(inner, frozenset({LISTED}))
    asyncio.run(check({"type": "http", "headers": headers}, None, send))
    return int(answers[0]["status"])


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", ""),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("192.0.2.7:8000", ""),
        ("label.example", LISTED),
        (f"{socket.gethostname()}:8000", ""),
    ],
    ids=["program", "own-page", "ipv6", "localhost", "number", "listed", "own-name"],
)
def test_programs_own_pages_and_listed_ones_pass(host: str, origin: str) -> None:
    assert status_of(host, origin) == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "https://evil.example"),
        ("127.0.0.1:8000", "null"),
        ("127.0.0.1:8000", "http://127.0.0.1:9000"),
        ("evil.example:8000", ""),
        ("evil.example:8000", "http://evil.example:8000"),
        ("", ""),
        ("[", ""),
    ],
    ids=["other-page", "no-page", "other-port", "rebound", "rebound-page", "nameless", "broken"],
)
def test_other_pages_and_names_that_were_made_to_mean_this_computer_are_refused(host: str, origin: str) -> None:
    assert status_of(host, origin) == 403
