"""Results sent to a real Orthanc by STOW-RS, and what other answers mean."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.outputs import OutputOptions, write_outputs
from msrf_monai.clinical.pacs.delivery import DELIVERIES, DICOM_KINDS, Deliveries, Destination, Sent
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pacs.stow import StowDestination
from msrf_monai.clinical.reading import open_case
from msrf_monai.errors import ConfigError, PacsError
from support.clinical_cases import prediction_of
from support.dicom_files import ROOT, as_bytes, image_dataset, pattern
from support.dicom_writing import POLYP, PRODUCER, blobs
from support.orthanc import Orthanc
from support.web_server import Request, WebServer

STORED, FAILED, UID, REASON = "00081199", "00081198", "00081155", "00081197"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One server for the tests that do not stop it."""
    with Orthanc(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture(scope="module")
def results(dicom_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[OutputRecord]]:
    """Every kind of DICOM object, of a photograph, a clip and a CT."""
    root = tmp_path_factory.mktemp("results")
    records = []
    for name in ("fundus_op8.dcm", "us_multiframe_rgb.dcm", "cxr_dx_mono1.dcm"):
        case = open_case(dicom_samples / name)
        mask = blobs(case.info.frames, case.info.rows, case.info.columns)
        folder = root / name.partition(".")[0]
        folder.mkdir()
        written = write_outputs(
            case,
            prediction_of(mask, classes=1),
            folder=folder,
            predictor_identity=PRODUCER,
            segments=[POLYP],
            options=OutputOptions(outputs=DICOM_KINDS),
        )
        records += [
            OutputRecord(file.kind, f"{folder.name}/{file.path}", file.sha256, file.size)
            for file in written
            if file.kind in DICOM_KINDS
        ]
    return root, records


def objects_in(folder: Path, count: int) -> list[Path]:
    """Small secondary captures with UIDs of their own."""
    paths = []
    for number in range(count):
        dataset = image_dataset(pattern(), SOPInstanceUID=f"{ROOT}{number + 10}", PatientName="SECRET^NAME")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(as_bytes(dataset))
    return paths


def record_of(path: Path, root: Path) -> OutputRecord:
    content = path.read_bytes()
    return OutputRecord("seg", str(path.relative_to(root)), hashlib.sha256(content).hexdigest(), len(content))


def uids_in(body: bytes) -> list[str]:
    """The SOP instance UIDs of the objects in a request, found by their element: (0008,0018) UI."""
    parts = body.split(b"\x08\x00\x18\x00UI")[1:]
    return [part[2 : 2 + int.from_bytes(part[:2], "little")].rstrip(b"\0").decode() for part in parts]


def said(
    stored: Sequence[str] = (), failed: dict[str, int] | None = None, *, status: int = 200
) -> tuple[int, str, bytes]:
    values: dict[str, Any] = {
        STORED: {"vr": "SQ", "Value": [{UID: {"vr": "UI", "Value": [uid]}} for uid in stored]},
        # Orthanc gives an empty sequence when nothing failed
        FAILED: {"vr": "SQ"},
    }
    if failed:
        values[FAILED]["Value"] = [
            {UID: {"vr": "UI", "Value": [uid]}, REASON: {"vr": "US", "Value": [code]}} for uid, code in failed.items()
        ]
    return status, "application/dicom+json", json.dumps(values).encode()


def test_every_kind_of_object_comes_back_byte_for_byte(
    shared: Orthanc, results: tuple[Path, list[OutputRecord]]
) -> None:
    root, records = results
    paths = [root / record.path for record in records]
    with StowDestination(shared.dicomweb) as destination:
        assert destination.name == f"STOW-RS {shared.dicomweb}"
        answers = list(destination.send(paths))
    assert answers == [Sent(path, is_accepted=True) for path in paths]
    assert Counter(record.kind for record in records) == Counter(DICOM_KINDS * 3)
    stored = shared.instances()
    for path in paths:
        assert stored[str(dcmread(path).SOPInstanceUID)] == path.read_bytes()


def test_an_object_that_is_sent_again_is_accepted_again(shared: Orthanc, tmp_path: Path) -> None:
    paths = objects_in(tmp_path, 2)
    with StowDestination(shared.dicomweb) as destination:
        first, again = list(destination.send(paths)), list(destination.send(paths))
    assert first == again == [Sent(path, is_accepted=True) for path in paths]
    stored = shared.instances()
    assert [stored[f"{ROOT}{number + 10}"] for number in range(2)] == [path.read_bytes() for path in paths]


def test_a_file_that_is_no_dicom_is_not_sent_and_the_others_are(shared: Orthanc, tmp_path: Path) -> None:
    paths = objects_in(tmp_path, 2)
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    with StowDestination(shared.dicomweb) as destination:
        answers = {sent.path.name: sent for sent in destination.send([tmp_path / "bad.dcm", *paths])}
    assert not answers["bad.dcm"].is_accepted
    assert answers["bad.dcm"].reason.startswith("unreadable: ")
    assert answers["0.dcm"].is_accepted
    assert answers["1.dcm"].is_accepted


class Interrupting:
    """Sends on, and stops the server after some answers; it is started again a while later."""

    def __init__(self, inner: Destination, server: Orthanc, after: int) -> None:
        self._inner, self._server, self._after = inner, server, after
        self.answers: list[Path] = []
        self.restart = threading.Timer(0.5, server.start)

    @property
    def name(self) -> str:
        return self._inner.name

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        for sent in self._inner.send(paths):
            self.answers.append(sent.path)
            yield sent
            if len(self.answers) == self._after:
                self._server.stop()
                self.restart.start()


def test_a_server_that_was_away_gets_everything_once(orthanc: Orthanc, tmp_path: Path) -> None:
    sent_from = tmp_path / "results"
    sent_from.mkdir()
    records = [record_of(path, sent_from) for path in objects_in(sent_from, 24)]
    entry = Entry("a", "a", "d" * 64, "done", outputs=tuple(records))
    backoff = Backoff(first=0.1, longest=0.3, give_up_after=60)
    # requests of two objects each, so that the server goes between two of them
    with (
        StowDestination(orthanc.dicomweb, batch_bytes=2 * records[0].size) as stow,
        Deliveries(sent_from) as deliveries,
    ):
        destination = Interrupting(stow, orthanc, after=8)
        result = deliveries.deliver(destination, records, backoff=backoff)
        assert deliveries.outstanding([entry], destination.name) == []
    destination.restart.join()
    assert (result.accepted, result.refused, result.waiting) == (24, 0, 0)
    assert len(destination.answers) == len(set(destination.answers)) == 24
    lines = [json.loads(line) for line in (sent_from / DELIVERIES).read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(record.path for record in records)
    stored = orthanc.instances()
    assert all(stored[f"{ROOT}{number + 10}"] == (sent_from / f"{number}.dcm").read_bytes() for number in range(24))


def test_each_item_of_an_answer_counts_for_its_object(tmp_path: Path) -> None:
    def answer(request: Request, handler: Any) -> tuple[int, str, bytes]:
        first, second, third, fourth = uids_in(request.body)
        return said([first], {second: 0xA900, third: 0x0111, fourth: 0xC122}, status=202)

    with WebServer(answer) as server, StowDestination(server.url) as destination:
        answers = list(destination.send(objects_in(tmp_path, 4)))
    assert [sent.is_accepted for sent in answers] == [True, False, True, False]
    assert [sent.reason for sent in answers] == [
        "",
        "failure_0xA900: the server does not accept it",
        "",  # 0x0111: it has this object already
        "failure_0xC122: the server does not store its transfer syntax",
    ]
    assert len(server.requests) == 1


@pytest.mark.parametrize("reason", [0xA700, 0x0110, 0x0000], ids=["no-space", "failed", "no-reason"])
def test_a_server_that_may_take_it_later_is_asked_again_later(tmp_path: Path, reason: int) -> None:
    def answer(request: Request, handler: Any) -> tuple[int, str, bytes]:
        first, *others = uids_in(request.body)
        return said([first], dict.fromkeys(others, reason), status=202)

    paths, sent = objects_in(tmp_path, 3), []
    with WebServer(answer) as server, StowDestination(server.url) as destination:
        answers = destination.send(paths)
        with pytest.raises(PacsError, match=f"could not store an object .*0x{reason:04X}") as caught:
            sent.extend(iter(lambda: next(answers), None))
    assert not caught.value.is_lasting
    assert sent == [Sent(paths[0], is_accepted=True)]


@pytest.mark.parametrize(("status", "is_lasting"), [(400, True), (409, True), (413, True), (500, False)])
def test_one_object_that_spoils_a_request_is_sent_alone_and_the_others_arrive(
    tmp_path: Path, status: int, is_lasting: bool
) -> None:
    def answer(request: Request, handler: Any) -> tuple[int, str, bytes]:
        uids = uids_in(request.body)
        return (status, "text/html", b"<p>oops SECRET</p>") if f"{ROOT}11" in uids else said(uids)

    paths, sent = objects_in(tmp_path, 4), []
    with WebServer(answer) as server, StowDestination(server.url) as destination:
        answers = destination.send(paths)
        with pytest.raises(PacsError, match=f"status {status}") as caught:
            sent.extend(iter(lambda: next(answers), None))
    assert caught.value.is_lasting is is_lasting
    assert "SECRET" not in str(caught.value)
    assert {each.path for each in sent} == {paths[0], paths[2], paths[3]}
    assert [len(uids_in(request.body)) for request in server.requests] == [4, 1, 1, 1, 1]


def test_what_is_stored_in_spite_of_a_failed_request_counts(tmp_path: Path) -> None:
    def answer(request: Request, handler: Any) -> tuple[int, str, bytes]:
        return said([uid for uid in uids_in(request.body) if not uid.endswith("11")], status=400)

    paths, sent = objects_in(tmp_path, 3), []
    with WebServer(answer) as server, StowDestination(server.url) as destination:
        answers = destination.send(paths)
        with pytest.raises(PacsError, match="status 400"):
            sent.extend(iter(lambda: next(answers), None))
    assert [each.path for each in sent] == [paths[0], paths[2]]
    assert [len(uids_in(request.body)) for request in server.requests] == [3, 1]


@pytest.mark.parametrize(
    ("content", "sentence", "is_lasting"),
    [
        (b"<html>sign in</html>", "no DICOM JSON", True),
        (b"", "no DICOM JSON", True),
        (b"[]", "no DICOM JSON", True),
        (b'{"00081199": 5}', "no DICOM JSON", True),
        (b"{}", "said nothing about it", False),
        (b'{"00081199": {"vr": "SQ"}}', "said nothing about it", False),
    ],
    ids=["html", "empty", "list", "number", "no_sequences", "empty_sequence"],
)
def test_an_answer_that_names_no_object_accepts_none(
    tmp_path: Path, content: bytes, sentence: str, is_lasting: bool
) -> None:
    answer = (200, "application/dicom+json", content)
    with WebServer(lambda request, handler: answer) as server, StowDestination(server.url) as destination:
        paths = objects_in(tmp_path, 1)
        with pytest.raises(PacsError, match=sentence) as caught:
            list(destination.send(paths))
    assert caught.value.is_lasting is is_lasting


def test_requests_are_no_larger_than_asked_for_unless_one_object_is(tmp_path: Path) -> None:
    paths = objects_in(tmp_path, 5)
    big = image_dataset(np.zeros((100, 100), dtype=np.uint8), SOPInstanceUID=f"{ROOT}99")
    paths.insert(1, tmp_path / "big.dcm")
    paths[1].write_bytes(as_bytes(big))
    size = paths[0].stat().st_size
    with (
        WebServer(lambda request, handler: said(uids_in(request.body))) as server,
        StowDestination(server.url, batch_bytes=2 * size) as destination,
    ):
        assert len(list(destination.send(paths))) == 6
    assert [len(uids_in(request.body)) for request in server.requests] == [1, 1, 2, 2]
    for request in server.requests:
        assert int(request.headers["Content-Length"]) == len(request.body)
        assert request.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')


def test_a_batch_must_have_room(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_bytes"):
        StowDestination("http://127.0.0.1/dicom-web", batch_bytes=0)
