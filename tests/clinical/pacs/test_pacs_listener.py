"""The listener against senders that we did not write: DCMTK, pynetdicom, Orthanc."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pydicom import dcmread

from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.listener import Listener, ListenerOptions
from msrf_monai.errors import ConfigError, PacsError
from support.dimse_peers import Client, data_set, dcmtk, echoes, sample, samples
from support.orthanc import Orthanc, free_port

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
Start = Callable[..., Listener]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start listeners on an inbox in the test's folder."""
    with ExitStack() as stack:

        def start(**options: Any) -> Listener:
            chosen = ListenerOptions(**{"port": 0, "any_caller": True, **options})
            listener = stack.enter_context(Listener(Inbox(tmp_path / "inbox"), chosen))
            listener.start()
            return listener

        yield start


def received(folder: Path) -> dict[str, bytes]:
    """Return the files in the inbox by their SOP instance UID."""
    files = [path for path in (folder / "inbox").rglob("*") if path.is_file()]
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path.read_bytes() for path in files}


def elements(content: bytes) -> Any:
    """Return a file's elements; DCMTK sends them encoded anew, and drops what only fills the end."""
    dataset = dcmread(BytesIO(content))
    return {element.tag: element.value for element in dataset if element.tag != 0xFFFCFFFC}


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.mark.parametrize(
    ("options", "aet", "is_let_in"),
    [
        ({"callers": ("SCANNER", "OTHER"), "any_caller": False}, "SCANNER", True),
        ({"callers": ("SCANNER", "OTHER"), "any_caller": False}, "STRANGER", False),
        ({"callers": (), "any_caller": False}, "SCANNER", False),
        ({}, "STRANGER", True),
    ],
    ids=["listed", "not-listed", "nobody-is", "anybody-may"],
)
def test_only_listed_callers_are_let_in(options: dict[str, Any], aet: str, is_let_in: bool, start: Start) -> None:
    listener = start(**options)

    status, said = dcmtk("echoscu", "-v", "-aet", aet, "-aec", "MSRF_MONAI", "127.0.0.1", listener.port)

    assert (status == 0) is is_let_in
    assert ("Received Echo Response (Success)" if is_let_in else "Calling AE Title Not Recognized") in said


def test_a_refused_caller_stores_nothing(start: Start, tmp_path: Path) -> None:
    listener = start(callers=("SCANNER",), any_caller=False)

    file = sample("CT_small.dcm")
    status, _ = dcmtk("storescu", "-aet", "STRANGER", "-aec", "MSRF_MONAI", "127.0.0.1", listener.port, file)

    assert status != 0
    assert received(tmp_path) == {}


def test_a_caller_of_another_ae_title_is_refused(start: Start) -> None:
    status, said = dcmtk("echoscu", "-aec", "ANOTHER", "127.0.0.1", start().port)

    assert status != 0
    assert "Called AE Title Not Recognized" in said


def test_it_listens_on_loopback_unless_told_otherwise(start: Start) -> None:
    listener = start()

    assert ListenerOptions().host == "127.0.0.1"
    # all of 127.0.0.0/8 is this machine, and a server bound to every address would answer there
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", listener.port), timeout=5)
    everywhere = start(host="0.0.0.0")
    socket.create_connection(("127.0.0.2", everywhere.port), timeout=5).close()


def test_dcmtk_stores_objects_of_every_kind(start: Start, tmp_path: Path) -> None:
    listener = start()
    files = samples(tmp_path / "samples")

    status, said = dcmtk("dcmsend", "-v", "-dn", "-aec", "MSRF_MONAI", "127.0.0.1", listener.port, *files)

    assert status == 0, said
    found = received(tmp_path)
    assert sorted(found) == sorted(map(uid_of, files))
    assert {uid: elements(content) for uid, content in found.items()} == {
        uid_of(path): elements(path.read_bytes()) for path in files
    }
    for path in files:
        syntax = dcmread(path).file_meta.TransferSyntaxUID
        if syntax.is_compressed:  # dcmsend itself makes one of the others
            assert dcmread(BytesIO(found[uid_of(path)])).file_meta.TransferSyntaxUID == syntax


def test_nothing_is_transcoded(start: Start, tmp_path: Path) -> None:
    listener = start()
    files = samples(tmp_path / "samples")

    with Client.of_files(listener.port, files) as client:
        assert [client.send_file(path) for path in files] == [0x0000] * len(files)

    found = received(tmp_path)
    assert {uid: data_set(content) for uid, content in found.items()} == {
        uid_of(path): data_set(path.read_bytes()) for path in files
    }
    for path in files:
        meta = dcmread(BytesIO(found[uid_of(path)])).file_meta
        theirs = dcmread(path)
        assert meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
        assert meta.MediaStorageSOPClassUID == theirs.SOPClassUID
        assert meta.MediaStorageSOPInstanceUID == theirs.SOPInstanceUID


def test_several_peers_send_at_once(start: Start, tmp_path: Path) -> None:
    listener = start()
    files = samples(tmp_path / "samples")
    said: dict[int, tuple[int, str]] = {}

    def send(number: int) -> None:
        chosen = files[number::4]
        said[number] = dcmtk("dcmsend", "-dn", "-aec", "MSRF_MONAI", "127.0.0.1", listener.port, *chosen)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert {status for status, _ in said.values()} == {0}, said
    assert sorted(received(tmp_path)) == sorted(map(uid_of, files))


def test_more_peers_than_allowed_are_told_to_come_back(start: Start) -> None:
    listener = start(max_associations=2)

    with Client(listener.port, [(CT, EXPLICIT)]), Client(listener.port, [(CT, EXPLICIT)]):
        status, said = dcmtk("echoscu", "-aec", "MSRF_MONAI", "127.0.0.1", listener.port)
        assert status != 0
        assert "Transient" in said
    assert echoes(listener.port)


def test_orthanc_sends_what_it_holds(start: Start, tmp_path: Path) -> None:
    listener = start(callers=("ORTHANC",), any_caller=False)
    files = samples(tmp_path / "samples")

    with Orthanc(tmp_path / "orthanc", {"ours": ("MSRF_MONAI", listener.port)}) as orthanc:
        for path in files:
            urlopen(Request(f"{orthanc.url}/instances", path.read_bytes(), method="POST"), timeout=30).close()
        order = json.dumps({"Resources": orthanc.get("/instances"), "Synchronous": True, "Timeout": 30}).encode()
        with urlopen(Request(f"{orthanc.url}/modalities/ours/store", order, method="POST"), timeout=60) as answer:
            assert json.loads(answer.read())["FailedInstancesCount"] == 0
        held = orthanc.instances()

    found = received(tmp_path)
    assert len(found) == len(files)
    assert {uid: elements(content) for uid, content in found.items()} == {
        uid: elements(content) for uid, content in held.items()
    }


@pytest.mark.parametrize(
    ("sop_class", "is_taken"),
    [
        ("1.2.840.10008.5.1.4.1.1.6", True),
        ("1.2.840.10008.5.1.4.1.1.9999.1", True),
        ("1.2.840.10008.5.1.4.34.7", True),
        ("1.3.12.2.1107.5.9.1", False),
        ("1.2.840.10008.5.1.4.38.1", False),
        ("1.2.840.10008.5.1.4.1.1.200.1", False),
        ("1.2.840.10008.5.1.4.1.2.2.1", False),
    ],
    ids=["retired", "newer", "elsewhere", "private", "hanging-protocol", "protocol", "find"],
)
def test_which_classes_are_taken(sop_class: str, is_taken: bool, start: Start, tmp_path: Path) -> None:
    listener = start()
    dataset = dcmread(sample("CT_small.dcm"))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.save_as(tmp_path / "changed.dcm")

    with Client(listener.port, [(sop_class, EXPLICIT), (CT, EXPLICIT)]) as client:
        assert client.accepted() == {(CT, EXPLICIT)} | ({(sop_class, EXPLICIT)} if is_taken else set())
        if is_taken:
            assert client.send_file(tmp_path / "changed.dcm") == 0x0000
    assert len(received(tmp_path)) == is_taken


def test_of_several_transfer_syntaxes_a_readable_one_is_chosen_in_the_peers_order(start: Start) -> None:
    from pynetdicom import AE

    mpeg, private, rle = "1.2.840.10008.1.2.4.102", "1.2.840.113619.5.2", "1.2.840.10008.1.2.5"
    entity = AE("CLIENT")
    entity.add_requested_context(CT, [private, mpeg, rle, EXPLICIT])
    entity.add_requested_context(MR, [mpeg])
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.7", [private])

    association = entity.associate("127.0.0.1", start().port, ae_title="MSRF_MONAI")
    chosen = {str(each.abstract_syntax): str(each.transfer_syntax[0]) for each in association.accepted_contexts}
    association.release()

    assert chosen == {CT: rle, MR: mpeg}


def test_nothing_is_acknowledged_before_it_is_on_the_disk(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, may_sync = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        syncing.set()
        assert may_sync.wait(30)
        fsync(descriptor)

    listener = start()
    monkeypatch.setattr(os, "fsync", slow_fsync)
    answers: list[Any] = []
    with Client.of_files(listener.port, [sample("CT_small.dcm")]) as client:
        sender = threading.Thread(target=lambda: answers.append(client.send_file(sample("CT_small.dcm"))))
        sender.start()
        assert syncing.wait(30)
        sender.join(0.3)
        assert answers == []
        may_sync.set()
        sender.join()
    assert answers == [0x0000]
    assert len(received(tmp_path)) == 1


def test_a_port_in_use_and_a_foreign_address_are_lasting_errors(start: Start, tmp_path: Path) -> None:
    taken = start().port

    for host, port in (("127.0.0.1", taken), ("192.0.2.1", 0), ("nowhere.invalid", 0)):
        with pytest.raises(PacsError, match="cannot listen on") as caught:
            start(host=host, port=port)
        assert caught.value.is_lasting


def test_closing_cuts_peers_off_and_frees_the_port(start: Start, tmp_path: Path) -> None:
    port = free_port()
    listener = start(port=port)
    with Client.of_files(port, [sample("CT_small.dcm")]) as client:
        assert client.send_file(sample("CT_small.dcm")) == 0x0000
        listener.close()
        listener.close()
        assert client.is_aborted()
    assert start(port=port).port == port


@pytest.mark.parametrize(
    "options",
    [
        {"aet": ""},
        {"aet": "SEVENTEEN_LETTERS"},
        {"aet": "BACK\\SLASH"},
        {"callers": ("OK", "Ä")},
        {"port": 70_000},
        {"max_pdu": 100},
        {"timeout_s": 0},
        {"max_associations": 0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="caller" if "callers" in options else next(iter(options))):
        ListenerOptions(**options)
