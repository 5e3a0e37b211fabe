"""What servers that answer badly lead to: one sentence, rightly lasting or not, and nothing of a patient in it."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

from msrf_monai.clinical.pacs import web
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pacs.stow import StowDestination
from msrf_monai.clinical.pacs.web import FoundStudy, WebArchive
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.errors import PacsError
from support.dicom_files import ROOT, as_bytes, image_dataset, pattern
from support.orthanc import free_port
from support.web_server import Request, WebServer, matches, multipart

ONCE = Backoff(give_up_after=0)
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
OBJECT = as_bytes(image_dataset(pattern(), PatientName="SECRET^NAME"))
OTHER = as_bytes(image_dataset(pattern(), SOPInstanceUID=f"{ROOT}7"))
FOUND = FoundStudy(f"{ROOT}3", ((f"{ROOT}2", f"{ROOT}1"),))
SECRET = {"PatientID": "SECRET"}
JSON = "application/dicom+json"
MIB = 1 << 20
TIMEOUT = 60.0

Answer = Callable[[Request, BaseHTTPRequestHandler], Any]
Talk = Callable[..., object]


def ask(url: str, folder: Path, timeout: float = TIMEOUT) -> object:
    with WebArchive(url, timeout=timeout) as archive:
        return [archive.objects_of(study) for study in archive.studies(SECRET)]


def fetch(url: str, folder: Path, timeout: float = TIMEOUT) -> object:
    with WebArchive(url, timeout=timeout, limits=Limits(file_bytes=MIB)) as archive:
        return archive.fetch(FOUND, Inbox(folder / "inbox"), backoff=ONCE)


def store(url: str, folder: Path, timeout: float = TIMEOUT) -> object:
    (folder / "object.dcm").write_bytes(OBJECT)
    with StowDestination(url, timeout=timeout) as destination:
        return list(destination.send([folder / "object.dcm"]))


@pytest.fixture
def trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., PacsError]:
    """Returns the error of a talk, once no log line and nothing that a traceback shows names the patient."""

    def talk_with(talk: Talk, url: str, timeout: float = TIMEOUT) -> PacsError:
        with caplog.at_level(logging.DEBUG), pytest.raises(PacsError) as caught:
            talk(url, tmp_path, timeout)
        sentence = str(caught.value)
        assert "SECRET" not in sentence + caplog.text
        assert url in sentence
        assert "\n" not in sentence
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert [path for path in tmp_path.rglob("inbox/*/*") if path.is_file()] == []
        return caught.value

    return talk_with


@pytest.mark.parametrize("talk", [ask, fetch, store])
@pytest.mark.parametrize(
    ("status", "word", "is_lasting"),
    [
        (302, "another address", True),
        (401, "MSRF_DICOMWEB_TOKEN", True),
        (403, "does not allow", True),
        (404, "check the address", True),
        (409, "does not accept", True),
        (429, "in trouble", False),
        (500, "in trouble", False),
        (501, "does not accept", True),
        (503, "in trouble", False),
        (507, "no space left", False),
    ],
)
def test_a_status_of_failure(
    talk: Talk, status: int, word: str, is_lasting: bool, trouble: Callable[..., PacsError]
) -> None:
    with WebServer(lambda request, handler: (status, "text/plain", b"SECRET^NAME")) as server:
        error = trouble(talk, server.url)
    assert error.is_lasting is is_lasting
    assert word in str(error)
    assert f"(status {status})" in str(error)


@pytest.mark.parametrize("talk", [ask, fetch, store])
def test_a_server_that_is_not_there(talk: Talk, trouble: Callable[..., PacsError]) -> None:
    error = trouble(talk, f"http://127.0.0.1:{free_port()}/dicom-web")
    assert not error.is_lasting
    assert "cannot be reached" in str(error)


@pytest.mark.parametrize("talk", [ask, fetch, store])
def test_a_server_that_says_nothing(talk: Talk, trouble: Callable[..., PacsError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = trouble(talk, f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web", timeout=0.2)
    assert not error.is_lasting
    assert "did not answer within 0.2 s" in str(error)


@pytest.mark.parametrize("talk", [ask, fetch, store])
def test_a_server_that_speaks_no_http(talk: Talk, trouble: Callable[..., PacsError]) -> None:
    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-SECRET\r\n\r\n")

    with WebServer(answer) as server:
        assert not trouble(talk, server.url).is_lasting


@pytest.mark.parametrize(
    "content",
    [b"<html>SECRET</html>", b'{"SECRET": 1}', b"[1]", b'[{"0020000D"', b"[" * 100_000, b"\xff\xfe\x00", b"null"],
    ids=["html", "object", "numbers", "cut_short", "deep", "no_text", "null"],
)
def test_a_query_that_is_answered_with_no_dicom_json(content: bytes, trouble: Callable[..., PacsError]) -> None:
    with WebServer(lambda request, handler: (200, JSON, content)) as server:
        error = trouble(ask, server.url)
    assert error.is_lasting
    assert "no DICOM JSON" in str(error)


@pytest.mark.parametrize(
    "uid",
    [
        "../../x",
        "1.2/../../3",
        "1.2.3\n",
        "1.2?x=SECRET",
        "",
        "1..2",
        ".1",
        "1.2.",
        "1" * 65,
        "SECRET",
        "١.٢",
        "%2e%2e",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("place", ["study", "series", "instance"])
def test_a_uid_that_is_none_is_never_asked_for(uid: str, place: str, trouble: Callable[..., PacsError]) -> None:
    def answer(request: Request, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        if "/instances" not in request.path:
            return matches({STUDY: uid if place == "study" else "1.2"})
        return matches({SERIES: uid if place == "series" else "1.3", INSTANCE: uid if place == "instance" else "1.4"})

    with WebServer(answer) as server:
        error = trouble(ask, server.url)
        paths = [urlsplit(request.path).path for request in server.requests]
    assert error.is_lasting
    assert "without a UID, or with one that is none" in str(error)
    assert set(paths) <= {"/dicom-web/studies", "/dicom-web/studies/1.2/instances"}


@pytest.mark.parametrize(
    "item", ["{}", '{"0020000D": {"vr": "UI"}}', '{"0020000D": {"Value": [5]}}', '{"0020000D": 5}']
)
def test_a_match_without_a_uid(item: str, trouble: Callable[..., PacsError]) -> None:
    with WebServer(lambda request, handler: (200, JSON, f"[{item}]".encode())) as server:
        assert trouble(ask, server.url).is_lasting


@pytest.mark.parametrize(
    ("answer", "word", "is_lasting"),
    [
        ((200, JSON, b"[]"), "no DICOM object", True),
        ((200, "multipart/related", OBJECT), "no DICOM object", True),
        ((200, "multipart/related; boundary=" + "e" * 300, OBJECT), "no DICOM object", True),
        ((200, "multipart/related; boundary=edge", b"--edge--\r\n"), "without its envelope", True),
        ((200, "multipart/related; boundary=edge", b"x" * 100_000), "without its envelope", True),
        ((200, "multipart/related; boundary=edge", b"--edge\r\n" + b"x" * 100_000), "without its envelope", True),
        ((200, "multipart/related; boundary=edge", b""), "only a part", False),
        ((200, "multipart/related; boundary=edge", b"--edge\r\nContent-Type: app"), "only a part", False),
        (multipart(OBJECT, end=b""), "only a part", False),
        (multipart(OBJECT, end=b"\r\n--edg"), "only a part", False),
        (multipart(OBJECT[:200], end=b""), "only a part", False),
        (multipart(b"SECRET"), "another object", True),
        (multipart(b""), "another object", True),
        (multipart(OTHER), "another object", True),
        (multipart(OBJECT + bytes(2 * MIB)), "more than the limit", True),
    ],
    ids=[
        *("json", "no_boundary", "long_boundary", "no_part", "no_beginning", "no_header_end", "empty", "cut_in_header"),
        *("no_end", "cut_in_the_end", "cut_in_the_object", "no_dicom", "nothing", "another_object", "too_large"),
    ],
)
def test_an_object_that_is_answered_with_something_else(
    answer: tuple[int, str, bytes], word: str, is_lasting: bool, trouble: Callable[..., PacsError]
) -> None:
    with WebServer(lambda request, handler: answer) as server:
        error = trouble(fetch, server.url)
    assert error.is_lasting is is_lasting
    assert word in str(error)


def begin(handler: BaseHTTPRequestHandler, kind: str, *headers: tuple[str, str]) -> None:
    handler.send_response(200)
    for name, value in (("Content-Type", kind), *headers):
        handler.send_header(name, value)
    handler.end_headers()


@pytest.mark.parametrize("talk", [ask, fetch, store])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
def test_a_body_that_breaks_off(talk: Talk, is_chunked: bool, trouble: Callable[..., PacsError]) -> None:
    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        kind = multipart(b"")[1] if talk is fetch else JSON
        begin(handler, kind, ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", "99999"))
        body = multipart(OBJECT, end=b"")[2] if talk is fetch else b'[{"SECRET"'
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if is_chunked else body)

    with WebServer(answer) as server:
        error = trouble(talk, server.url)
    assert not error.is_lasting
    assert "broke off" in str(error)


@pytest.mark.parametrize("talk", [ask, fetch, store])
def test_a_body_without_end(talk: Talk, trouble: Callable[..., PacsError], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PAGE_BYTES", MIB)
    monkeypatch.setattr("msrf_monai.clinical.pacs.stow._ANSWER_BYTES", MIB)

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        begin(handler, multipart(b"")[1] if talk is fetch else JSON)
        handler.wfile.write(multipart(OBJECT, end=b"")[2] if talk is fetch else b"[")
        while True:
            handler.wfile.write(b" " * 65536)

    with WebServer(answer) as server:
        error = trouble(talk, server.url)
    assert error.is_lasting
    assert "more than the limit" in str(error)


@pytest.mark.parametrize(("size", "is_bomb"), [(1000, False), (64 * MIB, True)])
def test_a_body_that_comes_gzipped_unasked(
    size: int, is_bomb: bool, trouble: Callable[..., PacsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_PAGE_BYTES", MIB)
    content = gzip.compress(b"[" + b" " * size + b"]")

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        begin(handler, JSON, ("Content-Encoding", "gzip"), ("Content-Length", str(len(content))))
        handler.wfile.write(content)

    with WebServer(answer) as server:
        if is_bomb:
            assert "more than the limit" in str(trouble(ask, server.url))
        else:
            assert ask(server.url, Path()) == []


@pytest.mark.parametrize("talk", [ask, fetch])
def test_a_body_that_drips(talk: Talk, trouble: Callable[..., PacsError], monkeypatch: pytest.MonkeyPatch) -> None:
    looks, seconds = threading.Semaphore(0), count(step=20)

    def clock() -> int:
        looks.release()
        return next(seconds)

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        begin(handler, multipart(b"")[1] if talk is fetch else JSON)
        for byte in multipart(OBJECT)[2] if talk is fetch else b"[" * 1000:
            if not looks.acquire(timeout=60):
                return
            handler.wfile.write(bytes([byte]))

    # a byte comes with each look at the clock, 20 s after the one before
    monkeypatch.setattr("msrf_monai.clinical.pacs.web_connection.time", SimpleNamespace(monotonic=clock))
    with WebServer(answer) as server:
        error = trouble(talk, server.url)
    assert not error.is_lasting
    assert f"too slowly: {TIMEOUT // 20 + 1:.0f} bytes so far" in str(error)


@pytest.mark.parametrize("talk", [ask, fetch])
def test_a_body_that_stops(talk: Talk, trouble: Callable[..., PacsError], monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, is_over = threading.Event(), threading.Event()
    receive = HTTPConnection.getresponse

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
        begin(handler, multipart(b"")[1] if talk is fetch else JSON)
        handler.wfile.write(b"[")
        has_begun.set()
        is_over.wait(60)

    def receive_what_is_there(connection: HTTPConnection) -> HTTPResponse:
        assert has_begun.wait(60)
        return receive(connection)

    monkeypatch.setattr(HTTPConnection, "getresponse", receive_what_is_there)
    with WebServer(answer) as server:
        error = trouble(talk, server.url, timeout=0.2)
        is_over.set()
    assert not error.is_lasting
    assert "stopped in the middle" in str(error)


def test_an_answer_with_several_objects_gives_the_first(tmp_path: Path) -> None:
    status, kind, body = multipart(OBJECT, end=b"\r\n--edge\r\n\r\n" + OTHER + b"\r\n--edge--")
    with WebServer(lambda request, handler: (status, kind, b"a preamble" + b"\r\n" + body)) as server:
        with WebArchive(server.url) as archive:
            (path,) = archive.fetch(FOUND, Inbox(tmp_path / "inbox"), backoff=ONCE)
        (request,) = server.requests
    assert path.read_bytes() == OBJECT
    assert request.headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'


def listing(count: int, *, most: int, knows_offset: bool = True) -> Answer:
    """A server with so many studies of one object that gives at most so many at once."""

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        query = parse_qs(urlsplit(request.path).query)
        offset = int(query["offset"][0]) if knows_offset else 0
        if "/instances" in request.path:
            return (204, JSON, b"") if offset else matches({SERIES: "1.5", INSTANCE: "1.6"})
        return matches(*({STUDY: f"1.2.{number}"} for number in range(count)[offset : offset + most]))

    return answer


@pytest.mark.parametrize(
    ("most", "knows_offset"), [(3, True), (100, False)], ids=["gives_less_than_asked", "gives_all_whatever_is_asked"]
)
def test_every_match_is_found_once_whatever_the_server_makes_of_pages(most: int, knows_offset: bool) -> None:
    answer = listing(10, most=most, knows_offset=knows_offset)
    with WebServer(answer) as server, WebArchive(server.url, page=5) as archive:
        found = [archive.objects_of(study) for study in archive.studies({"StudyDate": "2020"})]
    assert found == [FoundStudy(f"1.2.{number}", (("1.5", "1.6"),)) for number in range(10)]


def test_a_list_without_end_is_not_followed(trouble: Callable[..., PacsError], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST", 50)
    with WebServer(listing(10**9, most=20)) as server:
        error = trouble(ask, server.url)
    assert error.is_lasting
    assert "more than 50 matches" in str(error)
