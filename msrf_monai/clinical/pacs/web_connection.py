"""Speak HTTP with a DICOMweb server: every trouble becomes one sentence, and no answer may be without end.

Requests and answers name patients: in the address (``?PatientID=``), in the body, in what libraries log and raise.
So nothing of an answer or of a library's error is ever quoted here, and urllib3 is silent while it works for us.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msrf_monai.errors import ConfigError, PacsError
from msrf_monai.files import Closing
from msrf_monai.optional import require

__all__ = ["BEARER_VARIABLE", "Answer", "WebConnection"]

BEARER_VARIABLE = "MSRF_DICOMWEB_TOKEN"
"""Environment variable that holds a bearer token."""
_PIECE = 1 << 16
_SLOWEST = 1024
"""Bytes a second, on average after the first time-out: a server that drips must not hold a run for days."""
_HELPERS = ("connection", "connectionpool", "poolmanager", "response", "util.retry")
_PASSING = (408, 425, 429, 500, 502, 503, 504, 507)
"""Status codes that another attempt may not meet again."""
_SENTENCES = {
    401: f"does not accept the credentials; set {BEARER_VARIABLE}, or put name and password into ~/.netrc",
    403: "does not allow these credentials to do this; ask its administrator",
    404: "has nothing at the address asked for; check the address, which often ends in /dicom-web",
    407: "is behind a proxy that wants credentials; put them into HTTPS_PROXY",
    413: "does not take so much at once; ask its administrator",
    507: "has no space left",
}

_LITERAL = "!$'()*,/:?@"
"""What may stand in a query as it is. Orthanc 1.10 does not decode what is encoded without need, such as ``%2A``."""

_speaking = threading.local()


def _is_foreign(record: logging.LogRecord) -> bool:
    return not getattr(_speaking, "is_ours", False)


class Answer:
    """What a server answers; its body is read piece by piece.

    Args:
        response: of requests, with ``stream=True``.
        connection: that it came by.
    """

    def __init__(self, response: Any, connection: WebConnection) -> None:
        self._response = response
        self._connection = connection
        self.status = int(response.status_code)
        self.content_type = str(response.headers.get("Content-Type", ""))

    def check(self) -> None:
        """Raise ``PacsError`` unless the status is one of success."""
        if 200 <= self.status < 300:
            return
        if 300 <= self.status < 400:
            sentence = "leads to another address; give that one"
        elif self.status in _PASSING:
            sentence = _SENTENCES.get(self.status, "is in trouble; look at its log if this goes on")
        else:
            sentence = _SENTENCES.get(self.status, "does not accept what it was asked; look at its log")
        is_lasting = self.status not in _PASSING
        raise PacsError(f"{self._connection.url} {sentence} (status {self.status})", is_lasting=is_lasting)

    def pieces(self, limit: int) -> Iterator[bytes]:
        """Yield the body.

        Args:
            limit: bytes; a longer body is refused.

        Raises:
            PacsError: lasting when the body is longer, temporary when it breaks off or comes too slowly.
        """
        raw = self._response.raw
        # read1 gives what is there; read would wait for a whole piece, from a server that drips for ever
        read: Callable[..., bytes] = getattr(raw, "read1", raw.read)
        total, begun = 0, time.monotonic()
        while True:
            with self._connection.speaking():
                piece = read(_PIECE, decode_content=True)
            if not piece:
                return
            total += len(piece)
            if total > limit:
                raise PacsError(
                    f"{self._connection.url} sent more than the limit of {limit} bytes for one answer", is_lasting=True
                )
            if time.monotonic() - begun > self._connection.timeout + total / _SLOWEST:
                raise PacsError(f"{self._connection.url} sends its answer too slowly: {total} bytes so far")
            yield piece

    def read(self, limit: int) -> bytes:
        """Return the body; raises as ``pieces`` does."""
        return b"".join(self.pieces(limit))


class WebConnection(Closing):
    """A DICOMweb server and what it takes to speak with it; for one thread at a time.

    Credentials are, in this order: ``token``, those in the address, the environment's ``MSRF_DICOMWEB_TOKEN``, and
    what ``~/.netrc`` holds for the host.

    Args:
        url: of the service, such as ``https://pacs.example/dicom-web``.
        token: a bearer token.
        timeout: seconds for connecting, and for each silence of the server.
        verify: a file with the certificates of authorities that are trusted; by default those of certifi.

    Raises:
        ConfigError: when an argument is none of these.
        MissingExtraError: when requests is not installed.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 30.0, verify: Path | None = None
    ) -> None:
        parts = _split(url)
        if not timeout > 0:
            raise ConfigError(f"the time-out must be above 0 seconds, got {timeout!r}")
        if verify is not None and not verify.is_file():
            raise ConfigError(f"{verify} is no file; give one with the certificates that are trusted (PEM)")
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        """The address, without credentials."""
        self.timeout = timeout
        self._verify = True if verify is None else str(verify)
        self._requests = require("requests", "pacs")
        self._urllib3 = require("urllib3", "pacs")
        for name in _HELPERS:
            logging.getLogger(f"urllib3.{name}").addFilter(_is_foreign)
        self._session = self._requests.Session()
        self._session.auth = _credentials(token, parts)

    def close(self) -> None:
        """Close what is open to the server."""
        self._session.close()

    @contextmanager
    def get(self, path: str, accept: str, params: Sequence[tuple[str, str]] = ()) -> Iterator[Answer]:
        """Ask for a resource.

        Args:
            path: below the service's address, beginning with ``/``.
            accept: the media type wanted.
            params: of the address.

        Yields:
            The answer, whatever its status.

        Raises:
            PacsError: when the server cannot be reached.
        """
        query = "&".join(f"{quote(name)}={quote(value, safe=_LITERAL)}" for name, value in params)
        with self._request("GET", f"{path}?{query}" if query else path, {"Accept": accept}) as answer:
            yield answer

    @contextmanager
    def post(self, path: str, accept: str, content_type: str, body: object) -> Iterator[Answer]:
        """Send a body, which has a length and can be iterated over; else as ``get``."""
        with self._request("POST", path, {"Accept": accept, "Content-Type": content_type}, data=body) as answer:
            yield answer

    @contextmanager
    def _request(self, method: str, path: str, headers: Mapping[str, str], **what: Any) -> Iterator[Answer]:
        with self.speaking():
            response = self._session.request(
                method,
                self.url + path,
                # a redirect might carry patient data to another host; an encoding might be a bomb
                headers={**headers, "Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=self.timeout,
                verify=self._verify,
                stream=True,
                **what,
            )
        try:
            yield Answer(response, self)
        finally:
            # a body that was read to its end has given its connection back already
            response.close()

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Keep libraries silent, and turn what they raise into a ``PacsError`` that quotes nothing of it."""
        errors = self._requests.exceptions
        _speaking.is_ours = True
        try:
            yield
        except errors.SSLError:
            raise PacsError(
                f"{self.url}: no secure connection is possible; check the address, or name a file with the "
                "certificates that are to be trusted",
                is_lasting=True,
            ) from None
        except errors.Timeout:
            raise PacsError(f"{self.url} did not answer within {self.timeout:g} s") from None
        except (errors.InvalidURL, errors.InvalidSchema, errors.InvalidHeader, UnicodeError):
            raise PacsError(f"{self.url} cannot be asked; check the address and credentials", is_lasting=True) from None
        except self._urllib3.exceptions.ReadTimeoutError:
            raise PacsError(f"{self.url} stopped in the middle of an answer") from None
        except (errors.RequestException, self._urllib3.exceptions.HTTPError, OSError) as error:
            raise PacsError(f"{self.url} cannot be reached, or broke off ({type(error).__name__})") from None
        finally:
            _speaking.is_ours = False


def _split(url: str) -> SplitResult:
    """Take an address apart; no message shows it, for it may hold a password."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or re.search(r"[\s\x00-\x1f\x7f?#]", url):
        raise ConfigError(
            "the address of a DICOMweb service is http:// or https://, a host and a path, such as "
            "https://pacs.example/dicom-web, without a query"
        )
    return parts


def _credentials(token: str | None, parts: SplitResult) -> Any:
    """Return what a session of requests takes as ``auth``; None lets it look into ~/.netrc."""
    if token is None and parts.username is not None:
        return unquote(parts.username).encode(), unquote(parts.password or "").encode()
    bearer = (os.environ.get(BEARER_VARIABLE, "") if token is None else token).strip()
    if not bearer:
        return None
    if re.search(r"[^\x21-\x7e]", bearer):
        raise ConfigError(f"the token ({BEARER_VARIABLE}) holds a space or another character that no token has")

    def authorise(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {bearer}"
        return request

    return authorise
