"""A process that fetches or sends large objects, or very many, holds a piece at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.dicom_files import ROOT, as_bytes, image_dataset, pattern
from support.web_server import Request, WebServer, matches, multipart

MIB = 1 << 20
LARGE = 192 * MIB
HEAD = as_bytes(image_dataset(pattern()))
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"

_MEASURED = """
import re, sys
from pathlib import Path
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pacs.web import FoundStudy, StowDestination, WebArchive

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

url, folder, backoff = sys.argv[1], Path(sys.argv[2]), Backoff(give_up_after=0)
before = peak()
{task}
print(peak() - before)
"""
_FETCH = """
with WebArchive(url) as archive:
    for study in archive.studies({"StudyDate": "2020"}):
        paths = archive.fetch(archive.objects_of(study), Inbox(folder / "inbox"), backoff=backoff)
print(len(paths), sum(path.stat().st_size for path in paths))
"""
_SEND = """
with StowDestination(url) as destination:
    sent = list(destination.send(sorted(folder.glob("*.dcm"))))
print(sum(each.is_accepted for each in sent), 0)
"""


def measured(task: str, url: str, folder: Path) -> tuple[int, int, int]:
    """Run a task in a process of its own; returns what it prints: a count, bytes, and KiB that its peak grew by."""
    script = _MEASURED.replace("{task}", task)
    done = subprocess.run(
        [sys.executable, "-c", script, url, str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, size, grown = (int(number) for number in done.stdout.split())
    return count, size, grown


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_large_object_is_fetched_piece_by_piece(tmp_path: Path) -> None:
    def answer(request: Request, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes] | None:
        path = urlsplit(request.path).path
        if path.endswith("/studies"):
            return matches({STUDY: f"{ROOT}3"})
        if path.endswith("/instances"):
            return matches({SERIES: f"{ROOT}2", INSTANCE: f"{ROOT}1"})
        _, kind, start = multipart(HEAD, end=b"")
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        handler.wfile.write(start)
        for _ in range(LARGE // MIB):
            handler.wfile.write(bytes(MIB))
        handler.wfile.write(b"\r\n--edge--\r\n")
        return None

    with WebServer(answer) as server:
        count, size, grown = measured(_FETCH, server.url, tmp_path)
    assert (count, size) == (1, LARGE + len(HEAD))
    assert grown < 16 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_study_of_very_many_objects_needs_no_more_than_its_list(tmp_path: Path) -> None:
    many = 300

    def answer(request: Request, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        path = urlsplit(request.path).path
        if path.endswith("/studies"):
            return matches({STUDY: f"{ROOT}3"})
        if path.endswith("/instances"):
            return matches(*({SERIES: f"{ROOT}2", INSTANCE: f"{ROOT}{number}"} for number in range(10, 10 + many)))
        dataset = image_dataset(pattern(500, 500), SOPInstanceUID=path.rpartition("/")[2])
        return multipart(as_bytes(dataset))

    with WebServer(answer) as server:
        count, size, grown = measured(_FETCH, server.url, tmp_path)
    assert count == many
    assert size > many * 250_000
    assert grown < 16 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_large_object_is_sent_piece_by_piece(tmp_path: Path, discarding: tuple[str, list[int]]) -> None:
    url, received = discarding
    with (tmp_path / "large.dcm").open("wb") as handle:
        # pixel data of undefined content behind the header: nothing looks at it on the way
        handle.write(HEAD)
        handle.truncate(LARGE)
    count, _, grown = measured(_SEND, url, tmp_path)
    assert count == 1
    assert LARGE < sum(received) < LARGE + 1000
    assert grown < 16 * 1024


@pytest.fixture
def discarding() -> Iterator[tuple[str, list[int]]]:
    """A server that counts what it is sent and keeps none of it."""
    received: list[int] = []
    stored = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [f"{ROOT}1"]}}]}}
    content = json.dumps(stored).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read(min(left, MIB))):
                received.append(len(piece))
                left -= len(piece)
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web", received
    server.shutdown()
    server.server_close()
    thread.join()
