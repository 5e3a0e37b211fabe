"""The listener in trouble: full disks, kills, hostile peers, and what it says about all that."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom.pdu_primitives import P_DATA, UserIdentityNegotiation

from msrf_monai.clinical.naming import short_hash
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.listener import Listener, ListenerOptions
from msrf_monai.clinical.pacs.spool import Spool
from msrf_monai.clinical.reading.limits import Limits
from support.dicom_files import as_bytes, image_dataset, pattern
from support.dimse_peers import Client, data_set, dcmtk, echoes, listener_process, sample

SECONDARY, EXPLICIT, DEFLATED = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
SMALL = Limits(file_bytes=50_000)


@pytest.fixture
def listener(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Listener]:
    options = ListenerOptions(port=0, any_caller=True, **getattr(request, "param", {}))
    with Listener(Inbox(tmp_path / "inbox"), options) as listener:
        listener.start()
        yield listener


def made(number: int, rows: int = 20, columns: int = 30, **attributes: Any) -> tuple[str, bytes]:
    """Return an instance UID and a file of that object."""
    dataset = image_dataset(pattern(rows, columns), **attributes)
    if "SOPInstanceUID" not in attributes:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.900{number}"
    return f"2.25.900{number}", as_bytes(dataset)


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def place(inbox: Path, instance: str, content: bytes) -> Path:
    study = str(dcmread(BytesIO(content)).StudyInstanceUID)
    return inbox / short_hash(study) / f"{short_hash(instance)}.dcm"


def echo(port: int) -> int:
    return dcmtk("echoscu", "-aec", "MSRF_MONAI", "127.0.0.1", port)[0]


@pytest.mark.parametrize("call", [1, 2, 3], ids=["of-the-data", "of-the-study", "of-the-inbox"])
def test_a_disk_that_fails_is_told_and_nothing_stays_half_written(
    call: int, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1, 100))
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        # the second sync is that of atomic_write, which may fail in silence; the listener's own follow
        if next(calls) == (call if call == 1 else call + 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    instance, content = made(1)
    with Client(listener.port, [(SECONDARY, EXPLICIT)]) as client:
        assert client.send(SECONDARY, instance, data_set(content)) == 0xA700
        contents = [data_set(path.read_bytes()) for path in everything(tmp_path)]
        assert contents == ([] if call == 1 else [data_set(content)])
        assert client.send(SECONDARY, instance, data_set(content)) == 0x0000
    assert everything(tmp_path) == [place(tmp_path / "inbox", instance, content)]


@pytest.mark.parametrize("rows", [900, 3000], ids=["kept-in-memory", "spooled"])
def test_a_full_disk_answers_out_of_resources(rows: int, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    (small, small_file), (large, large_file) = made(1), made(2, rows, 1000)
    with listener_process(inbox, file_bytes=rows * 700) as (_, port), Client(port, [(SECONDARY, EXPLICIT)]) as client:
        assert client.send(SECONDARY, large, data_set(large_file)) == 0xA700
        assert client.send(SECONDARY, small, data_set(small_file)) == 0x0000
        assert everything(inbox) == [place(inbox, small, small_file)]


def test_a_sender_whose_listener_has_gone_has_no_answer(tmp_path: Path) -> None:
    instance, content = made(1)
    with listener_process(tmp_path / "inbox") as (process, port):
        process.kill()
        process.wait()
        with Client(port, [(SECONDARY, EXPLICIT)]) as client:
            assert client.send(SECONDARY, instance, data_set(content)) is None


def test_after_kill_9_every_acknowledged_object_is_there_whole(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    objects = dict(made(number, 100, 400 + number % 7) for number in range(300))
    acknowledged: list[str] = []
    enough = threading.Event()

    def send(port: int, chosen: list[str]) -> None:
        with Client(port, [(SECONDARY, EXPLICIT)]) as client:
            for instance in chosen:
                if client.send(SECONDARY, instance, data_set(objects[instance])) != 0x0000:
                    return
                acknowledged.append(instance)
                if len(acknowledged) >= 60:
                    enough.set()

    with listener_process(inbox) as (process, port):
        senders = [threading.Thread(target=send, args=(port, list(objects)[number::3])) for number in range(3)]
        for sender in senders:
            sender.start()
        assert enough.wait(60)
        process.kill()
        process.wait()
        for sender in senders:
            sender.join(60)

    assert 60 <= len(acknowledged) < len(objects)
    for instance in acknowledged:
        assert data_set(place(inbox, instance, objects[instance]).read_bytes()) == data_set(objects[instance])
    # what it had begun goes; all that stays is whole, also what the sender was not told about
    Inbox(inbox).clean()
    for path in everything(inbox):
        content = path.read_bytes()
        assert data_set(content) == data_set(objects[str(dcmread(BytesIO(content)).SOPInstanceUID)])


@pytest.mark.parametrize("listener", [{"limits": SMALL}], indirect=True, ids=["50-kB"])
def test_an_object_over_the_limit_is_refused_and_the_next_is_taken(listener: Listener, tmp_path: Path) -> None:
    small, content = made(1)
    large, too_large = made(2, 250, 200)
    with Client(listener.port, [(SECONDARY, EXPLICIT)]) as client:
        assert client.send(SECONDARY, large, data_set(too_large)) == 0xC0A7
        assert client.send(SECONDARY, small, data_set(content)) == 0x0000
    assert everything(tmp_path) == [place(tmp_path / "inbox", small, content)]


def test_a_huge_object_fills_neither_memory_nor_disk(tmp_path: Path) -> None:
    inbox, file = tmp_path / "inbox", tmp_path / "huge.dcm"
    file.write_bytes(made(1, Rows=10_000, Columns=10_000, PixelData=bytes(100_000_000))[1])

    def peak(process: int) -> int:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    with listener_process(inbox, limits={"file_bytes": 5_000_000}) as (process, port):
        assert echo(port) == 0
        before = peak(process.pid)
        status, said = dcmtk("storescu", "-v", "-aec", "MSRF_MONAI", "127.0.0.1", port, file)
        assert (status, "0xc0a7" in said.lower()) != (0, False), said
        assert peak(process.pid) - before < 40_000  # KiB
        assert everything(inbox) == []
        assert echo(port) == 0


def test_a_spool_holds_nothing_over_its_limit(tmp_path: Path) -> None:
    files = []

    def scratch() -> Any:
        files.append((tmp_path / "scratch").open("w+b"))
        return files[-1]

    spool = Spool(3_000_000, scratch)
    for _ in range(29):
        spool.write(b"x" * 100_000)
    assert (spool.failure, b"".join(spool.pieces()), len(spool.getvalue())) == ("", b"x" * 2_900_000, 0)
    assert spool.head(5) == b"xxxxx"
    spool.write(b"x" * 200_000)
    spool.write(b"y")
    assert (spool.failure, spool.size, spool.getvalue(), files[0].closed) == ("too_large", 3_100_001, b"", True)


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
@pytest.mark.parametrize(
    ("attributes", "sop_class", "instance", "status"),
    [
        ({}, "1.2.840.10008.5.1.4.1.1.4", "2.25.9001", 0xA900),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, SECONDARY, "2.25.9001", 0xA900),
        ({}, SECONDARY, "2.25.9002", 0xC000),
        ({"StudyInstanceUID": ""}, SECONDARY, "2.25.9001", 0xC000),
        ({"StudyInstanceUID": "../../../../escaped"}, SECONDARY, "2.25.9001", 0xC000),
        ({"StudyInstanceUID": ["1.2", "1.3"]}, SECONDARY, "2.25.9001", 0xC000),
        ({"SOPInstanceUID": "../../../escaped"}, SECONDARY, "../../../escaped", 0xC000),
        ({"SOPInstanceUID": "/etc/escaped"}, SECONDARY, "/etc/escaped", 0xC000),
        ({"SOPInstanceUID": "1.2." + "3" * 61}, SECONDARY, "1.2.3", 0xC000),
    ],
    ids=["class", "context", "instance", "no-study", "study-up", "two-studies", "up", "absolute", "long"],
)
def test_what_cannot_be_placed_is_refused(
    attributes: dict[str, Any], sop_class: str, instance: str, status: int, listener: Listener, tmp_path: Path
) -> None:
    dataset = image_dataset(pattern(), **{"SOPInstanceUID": "2.25.9001", **attributes})
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)

    with Client(listener.port, [(SECONDARY, EXPLICIT)]) as client:
        assert client.send(sop_class, instance, data_set(buffer.getvalue())) == status
        good, content = made(3)
        assert client.send(SECONDARY, good, data_set(content)) == 0x0000
    assert everything(tmp_path) == [place(tmp_path / "inbox", good, content)]


@pytest.mark.parametrize(
    ("content", "context"),
    [(b"\x08", EXPLICIT), (b"\xff" * 5000, EXPLICIT), (b"\x00" * 5000, DEFLATED)],
    ids=["a-byte", "noise", "not-deflated"],
)
def test_what_is_no_data_set_is_refused(content: bytes, context: str, listener: Listener, tmp_path: Path) -> None:
    with Client(listener.port, [(SECONDARY, context)]) as client:
        assert client.send(SECONDARY, "2.25.9001", content) in (0xC000, None)
    assert echo(listener.port) == 0
    assert everything(tmp_path) == []


@pytest.mark.parametrize("listener", [{"timeout_s": 1.0}], indirect=True, ids=["1-s"])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x01\0\0\0",
        struct.pack(">BBL", 1, 0, 200) + b"\0" * 50,
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 0x40000000),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["silence", "half-a-header", "half-a-request", "4-GiB-request", "1-GiB-data", "http"],
)
def test_a_peer_that_stalls_or_boasts_is_cut_off(sent: bytes, listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as peer:
        peer.sendall(sent)
        while peer.recv(1000):
            pass
    assert echoes(listener.port)  # at last: it has little patience, also with this peer


@pytest.mark.parametrize(
    "fragments",
    [[b"\x03garbage"], [b"\x03"], [b"\x01" + b"\0" * 10_000] * 3, [b"\x03" + b"\0\0\0\x01\x02\0\0\0\x77\x77"]],
    ids=["noise", "nothing", "endless", "unknown"],
)
def test_a_malformed_command_ends_the_association(fragments: list[bytes], listener: Listener) -> None:
    with Client(listener.port, [(SECONDARY, EXPLICIT)]) as client:
        for fragment in fragments:
            message = P_DATA()
            message.presentation_data_value_list.append([1, fragment])
            client.association.dul.send_pdu(message)
        assert client.is_aborted()
    assert echo(listener.port) == 0


def test_a_peer_that_waits_for_no_answer_is_cut_off(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_sync = threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (may_sync.wait(30), fsync(descriptor)))
    content = data_set(made(1)[1])
    with Client(listener.port, [(SECONDARY, EXPLICIT)]) as client:
        client.association.dimse_timeout = 0.01
        for _ in range(12):
            client.send(SECONDARY, "2.25.9001", content)
        assert client.is_aborted()
        may_sync.set()
    assert echo(listener.port) == 0


@pytest.mark.parametrize("listener", [{"timeout_s": 30.0}], indirect=True, ids=["30-s"])
def test_garbled_conversations_end_only_themselves(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    talk = _recorded_talk(listener.port, sample("CT_small.dcm"))
    generator = random.Random(6)
    for _ in range(80):
        garbled = bytearray(talk)
        for _ in range(generator.choice([1, 2, 5, 30])):
            garbled[generator.randrange(generator.choice([50, 300, 900, len(talk)]))] = generator.randrange(256)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as peer:
            try:
                peer.sendall(garbled)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
            except OSError:  # cut off in the middle
                pass

    assert echo(listener.port) == 0
    assert uncaught == []
    assert all(dcmread(path).SOPInstanceUID for path in everything(tmp_path / "inbox"))


def _recorded_talk(port: int, path: Path) -> bytes:
    """Return what storescu says while it stores a file."""
    said = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay() -> None:
            peer, _ = server.accept()
            with peer, socket.create_connection(("127.0.0.1", port)) as ours:
                back = threading.Thread(target=pump, args=(ours, peer, []))
                back.start()
                pump(peer, ours, said)
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
                back.join()

        def pump(source: socket.socket, target: socket.socket, heard: list[bytes]) -> None:
            # either side may have gone when its last word is passed on
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    heard.append(data)
                    target.sendall(data)

        relaying = threading.Thread(target=relay)
        relaying.start()
        assert dcmtk("storescu", "-aec", "MSRF_MONAI", "127.0.0.1", server.getsockname()[1], path)[0] == 0
        relaying.join()
    return b"".join(said)


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
def test_no_patient_value_is_logged(tmp_path: Path) -> None:
    planted = {"PatientName": "SECRET^NAME", "PatientID": "SECRET-ID", "PatientBirthDate": "31121950"}
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"SECRET-USER", b"SECRET-WORD"
    instance, content = made(1, **planted)
    garbled = made(2, StudyInstanceUID="SECRET-STUDY", **planted)[1]

    with listener_process(tmp_path / "inbox", debug=True) as (process, port):
        with Client(port, [(SECONDARY, EXPLICIT)], ext_neg=[identity]) as client:
            assert client.send(SECONDARY, instance, data_set(content)) == 0x0000
            assert client.send(SECONDARY, "2.25.9002", data_set(garbled)) == 0xC000
            assert client.send(SECONDARY, "SECRET-INSTANCE", data_set(content)) == 0xC000
        with Client(port, [(SECONDARY, EXPLICIT)]) as client:
            # longer than UIDs can be: pynetdicom itself stumbles over it
            assert client.send(SECONDARY, "SECRET-INSTANCE" + "9" * 70, data_set(content)) is None
        assert echo(port) == 0
        process.kill()
        _, told = process.communicate()

    assert "DEBUG:msrf_monai.clinical.pacs.listener:stored " in told
    assert "WARNING:msrf_monai.clinical.pacs.listener:refused an object" in told
    assert "DEBUG:pynetdicom.dimse:line" in told
    for value in ("SECRET", "31121950", "2.25.900", "Traceback"):
        assert value not in told


def test_pynetdicom_says_where_it_warned_and_nothing_else(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("pynetdicom.dimse")
    logger.setLevel(logging.DEBUG)

    logger.info("SECRET %s", "SECRET")
    try:
        raise ValueError("SECRET")
    except ValueError as error:
        logger.exception(error)
    logger.setLevel(logging.INFO)
    logger.error("SECRET")

    (record,) = [each for each in caplog.records if each.name == "pynetdicom.dimse"]
    assert record.levelno == logging.DEBUG
    assert "SECRET" not in logging.Formatter().format(record)
    assert Path(__file__).name in record.getMessage()
