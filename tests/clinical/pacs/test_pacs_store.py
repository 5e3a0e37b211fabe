"""Results sent by C-STORE to peers that we did not write: Orthanc, DCMTK, pynetdicom."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt

from msrf_monai.clinical.outputs import OutputOptions, write_outputs
from msrf_monai.clinical.pacs.delivery import DICOM_KINDS, Sent
from msrf_monai.clinical.pacs.dimse import StoreDestination
from msrf_monai.clinical.reading import open_case
from msrf_monai.errors import ConfigError, PacsError
from support.clinical_cases import prediction_of
from support.dicom_files import as_bytes, image_dataset, pattern
from support.dicom_writing import POLYP, PRODUCER, blobs, find_tool
from support.dimse_peers import data_set, echoes, samples
from support.orthanc import Orthanc, free_port

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
SOURCES = ("fundus_op8.dcm", "us_multiframe_rgb.dcm", "cxr_dx_mono1.dcm")
Start = Callable[..., "Peer"]


class Peer:
    """A pynetdicom server that answers each object as it is told, and keeps what it is sent."""

    def __init__(self, answers: dict[str, int | str], classes: list[str] | None, callers: list[str]) -> None:
        self.received: dict[str, bytes] = {}
        self.associations: list[int] = []
        self.released = threading.Event()
        self.has_waited = threading.Event()
        self._answers = answers
        entity = AE("PEER")
        entity.require_called_aet, entity.require_calling_aet = True, callers
        for context in AllStoragePresentationContexts:
            if classes is None or context.abstract_syntax in classes:
                entity.add_supported_context(context.abstract_syntax, "1.2.840.10008.1.2.1")
        handlers = [
            (evt.EVT_C_STORE, self._answer),
            (evt.EVT_ACCEPTED, lambda event: self.associations.append(len(event.assoc.accepted_contexts))),
            (evt.EVT_RELEASED, lambda event: self.released.set()),
        ]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        self.close = entity.shutdown

    def _answer(self, event: Any) -> int:
        instance = str(event.request.AffectedSOPInstanceUID)
        answer = self._answers.get(instance, 0x0000)
        if answer == "abort":
            event.assoc.abort()
            return 0xC000
        if answer == "silence":
            self.has_waited.wait(120)
        self.received[instance] = event.encoded_dataset(include_meta=False)
        return answer if isinstance(answer, int) else 0x0000


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(
            answers: dict[str, int | str] | None = None, classes: list[str] | None = None, callers: tuple[str, ...] = ()
        ) -> Peer:
            peer = Peer(answers or {}, classes, list(callers))
            stack.callback(peer.close)
            return peer

        yield start


def made(folder: Path, count: int, sop_classes: tuple[str, ...] = (SECONDARY,)) -> list[Path]:
    """Write small objects with the UIDs 2.25.1, 2.25.2, … and classes in turn."""
    paths = []
    for number in range(1, count + 1):
        dataset = image_dataset(pattern(), PatientName="SECRET^NAME", SOPInstanceUID=f"2.25.{number}")
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_classes[number % len(sop_classes)]
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(as_bytes(dataset))
    return paths


def sent_before_error(destination: StoreDestination, paths: list[Path]) -> tuple[list[tuple[str, bool]], PacsError]:
    found = []
    with pytest.raises(PacsError) as caught:
        found.extend((each.path.name, each.is_accepted) for each in destination.send(paths))
    return found, caught.value


def to(peer: Peer, **options: Any) -> StoreDestination:
    return StoreDestination("PEER", "127.0.0.1", peer.port, **{"timeout": 60, **options})


@pytest.fixture
def results(dicom_samples: Path, tmp_path: Path) -> list[Path]:
    """Every kind of DICOM object that predictions are written as, and what they were predicted from."""
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")
    paths = sorted(dicom_samples.glob("*.dcm"))
    for name in SOURCES:
        case = open_case(dicom_samples / name)
        mask = blobs(case.info.frames, case.info.rows, case.info.columns)
        target = tmp_path / name
        written = write_outputs(
            case,
            prediction_of(mask, classes=1),
            folder=target,
            predictor_identity=PRODUCER,
            segments=[POLYP],
            options=OutputOptions(outputs=DICOM_KINDS),
        )
        paths += [target / each.path for each in written if each.kind in DICOM_KINDS]
    return paths


def test_orthanc_takes_every_kind_of_result_and_gives_the_bytes_back(orthanc: Orthanc, results: list[Path]) -> None:
    destination = StoreDestination(orthanc.aet, "127.0.0.1", orthanc.port)

    sent = list(destination.send(results))

    assert {each.reason for each in sent if not each.is_accepted} == set()
    assert sorted(each.path for each in sent) == sorted(results)
    modalities = {str(dcmread(path, stop_before_pixels=True).Modality) for path in results}
    assert {"SEG", "SR", "PR", "OP", "US", "DX"} <= modalities
    held = orthanc.instances()
    for path in results:
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        assert data_set(held[uid]) == data_set(path.read_bytes()), path.name


def test_storescp_gets_files_byte_for_byte(tmp_path: Path) -> None:
    received, port = tmp_path / "received", free_port()
    received.mkdir()
    files = samples(tmp_path / "samples")
    program = [find_tool("storescp", "apt-get install dcmtk"), "+B", "+xa", "-aet", "PEER", "-od", str(received)]
    process = subprocess.Popen([*program, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert echoes(port, "PEER")
        sent = list(StoreDestination("PEER", "127.0.0.1", port).send(files))
    finally:
        process.kill()
        process.wait()

    assert all(each.is_accepted for each in sent), sent
    found = {data_set(path.read_bytes()) for path in received.iterdir()}
    assert found == {data_set(path.read_bytes()) for path in files}


def test_files_reach_a_peer_as_they_are_and_the_setting_for_that_is_put_back(start: Start, tmp_path: Path) -> None:
    peer, paths = start(), made(tmp_path, 3)

    sent = list(to(peer).send(paths))

    assert [(each.path, each.is_accepted, each.reason) for each in sent] == [(path, True, "") for path in paths]
    assert peer.received == {f"2.25.{path.stem}": data_set(path.read_bytes()) for path in paths}
    assert _config.STORE_SEND_CHUNKED_DATASET is False


def test_only_the_pairs_at_hand_are_asked_for_and_never_more_than_128(start: Start, tmp_path: Path) -> None:
    classes = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)[:150]
    peer, paths = start(), made(tmp_path, 160, classes)

    sent = list(to(peer, timeout=60).send(paths))

    assert all(each.is_accepted for each in sent)
    # the last ten have classes that were there before, of which the second association has those it needs
    assert peer.associations == [128, 32]
    assert len(peer.received) == 160


@pytest.mark.parametrize(
    ("status", "is_accepted", "reason"),
    [
        (0x0000, True, ""),
        (0xB000, True, ""),
        (0xB007, True, ""),
        (0x0111, True, ""),
        (0x0122, False, "sop_class: "),
        (0x0124, False, "not_authorised: "),
        (0x0117, False, "bad_instance: "),
        (0xA900, False, "mismatch: "),
        (0xC000, False, "not_understood: "),
        (0xCFFF, False, "not_understood: "),
    ],
    ids=lambda value: f"{value:04x}" if type(value) is int else "",
)
def test_what_the_peer_answers(status: int, is_accepted: bool, reason: str, start: Start, tmp_path: Path) -> None:
    peer, paths = start({"2.25.1": status}), made(tmp_path, 2)

    first, second = to(peer).send(paths)

    assert (first.path, first.is_accepted) == (paths[0], is_accepted)
    assert first.reason.startswith(reason)
    assert bool(first.reason) is not is_accepted
    assert second.is_accepted


@pytest.mark.parametrize("status", [0xA700, 0x0110, 0xFE00], ids=["a700", "0110", "fe00"])
def test_an_object_without_room_does_not_hold_up_the_others(status: int, start: Start, tmp_path: Path) -> None:
    peer, paths = start({"2.25.2": status}), made(tmp_path, 4)

    sent, error = sent_before_error(to(peer), paths)

    assert sent == [("1.dcm", True), ("3.dcm", True), ("4.dcm", True)]
    assert "1 of 4" in str(error)
    assert not error.is_lasting


class Impatient(StoreDestination):
    """Has no patience after two answers."""

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        for number, sent in enumerate(super().send(paths), start=1):
            if number == 2:
                self._timeout = 0.2
            yield sent


@pytest.mark.parametrize(
    ("answer", "kind"), [("abort", StoreDestination), ("silence", Impatient)], ids=["abort", "silence"]
)
def test_a_peer_that_breaks_off_is_a_temporary_error_after_what_it_accepted(
    answer: str, kind: type[StoreDestination], start: Start, tmp_path: Path
) -> None:
    peer, paths = start({"2.25.3": answer}), made(tmp_path, 4)

    sent, error = sent_before_error(kind("PEER", "127.0.0.1", peer.port, timeout=60), paths)
    peer.has_waited.set()

    assert sent == [("1.dcm", True), ("2.dcm", True)]
    assert not error.is_lasting
    assert f"C-STORE PEER@127.0.0.1:{peer.port} broke off" in str(error)


def test_classes_that_the_peer_does_not_take_are_refused_without_being_sent(start: Start, tmp_path: Path) -> None:
    magnetic = "1.2.840.10008.5.1.4.1.1.4"
    peer, paths = start(classes=[SECONDARY]), made(tmp_path, 4, (SECONDARY, magnetic))

    sent = list(to(peer).send(paths))

    assert [each.is_accepted for each in sent] == [False, True, False, True]
    assert all(each.reason.startswith("no_context: ") for each in sent[::2])
    # also when it takes none at all, so that there is no association
    (only,) = to(peer).send(paths[:1])
    assert (only.is_accepted, only.reason) == (False, sent[0].reason)


def test_what_is_no_dicom_is_refused_without_being_sent(start: Start, tmp_path: Path) -> None:
    text, cut = tmp_path / "text.dcm", tmp_path / "cut.dcm"
    text.write_text("SECRET")
    good = made(tmp_path, 1)
    cut.write_bytes(good[0].read_bytes()[:150])

    sent = {each.path.name: each for each in to(start()).send([text, cut, tmp_path / "gone.dcm", *good])}

    assert {name: each.reason.partition(":")[0] for name, each in sent.items()} == {
        "text.dcm": "not_dicom",
        "cut.dcm": "bad_header",
        "gone.dcm": "missing",
        "1.dcm": "",
    }


def test_a_file_that_goes_while_others_are_sent_is_refused_and_stops_nothing(start: Start, tmp_path: Path) -> None:
    paths = made(tmp_path, 3)
    answers = to(start()).send(paths)
    first = next(answers)
    paths[1].unlink()
    said = [first, *answers]
    assert [each.is_accepted for each in said] == [True, False, True]
    assert said[1].reason == "changed: the file is no longer there"
    (gone,) = to(start()).send(paths[1:2])
    assert gone.reason == "missing: the file cannot be opened; check the path"


def test_nothing_to_send_asks_for_no_association(start: Start) -> None:
    peer = start()

    assert list(to(peer).send([])) == []
    assert peer.associations == []


def test_who_stops_listening_to_answers_releases_the_association(start: Start, tmp_path: Path) -> None:
    peer, paths = start(), made(tmp_path, 3)

    answers = to(peer).send(paths)
    next(answers)
    answers.close()

    assert peer.released.wait(60)
    assert len(peer.received) == 1


def test_a_peer_that_is_away_is_a_temporary_error(tmp_path: Path) -> None:
    destination = StoreDestination("PEER", "127.0.0.1", free_port(), timeout=2)

    sent, error = sent_before_error(destination, made(tmp_path, 1))

    assert (sent, error.is_lasting) == ([], False)
    assert str(error).startswith(f"{destination.name} cannot be reached")


def test_a_peer_that_speaks_no_dicom_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        destination = StoreDestination("PEER", "127.0.0.1", server.getsockname()[1], timeout=2)
        _, error = sent_before_error(destination, made(tmp_path, 1))
        thread.join()
    assert not error.is_lasting
    assert "did not answer as DICOM" in str(error)


@pytest.mark.parametrize(
    ("aet", "callers", "sentence"),
    [("PEER", ("SOMEBODY",), "does not know our AE title MSRF_MONAI"), ("NOBODY", (), "called by another AE title")],
    ids=["calling", "called"],
)
def test_unknown_ae_titles_are_lasting_errors(
    aet: str, callers: tuple[str, ...], sentence: str, start: Start, tmp_path: Path
) -> None:
    peer = start(callers=callers)

    _, error = sent_before_error(StoreDestination(aet, "127.0.0.1", peer.port), made(tmp_path, 1))

    assert sentence in str(error)
    assert error.is_lasting


def test_our_ae_title_can_be_chosen(start: Start, tmp_path: Path) -> None:
    peer = start(callers=("SOMEBODY",))

    (sent,) = to(peer, calling_aet="SOMEBODY").send(made(tmp_path, 1))

    assert sent.is_accepted


def test_a_name_without_an_address_is_a_lasting_error(tmp_path: Path) -> None:
    _, error = sent_before_error(StoreDestination("PEER", "nowhere.invalid", 104), made(tmp_path, 1))

    assert "no address" in str(error)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ORTHANC@127.0.0.1:4242", "C-STORE ORTHANC@127.0.0.1:4242"),
        (" MY PACS@pacs.hospital.example:104 ", "C-STORE MY PACS@pacs.hospital.example:104"),
        ("A@[fe80::1]:11112", "C-STORE A@[fe80::1]:11112"),
    ],
    ids=["address", "name", "ipv6"],
)
def test_peers_are_named_as_people_write_them(text: str, name: str) -> None:
    assert StoreDestination.parse(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "ORTHANC", "ORTHANC@host", "@host:104", "host:104", "A@host:0", "A@host:70000", "A@ho st:1"),
        *("A@::1:104", "A@host:1x", "SEVENTEEN_LETTERS@host:104", "BACK\\SLASH@host:104"),
    ],
)
def test_what_names_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        StoreDestination.parse(text)


def test_a_timeout_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="timeout above 0"):
        StoreDestination("A", "host", 104, timeout=0)


def test_no_patient_value_is_logged(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer, paths = start({"2.25.1": 0xC000, "2.25.2": 0xB000, "2.25.3": 0xA700, "2.25.4": "abort"}), made(tmp_path, 5)
    list(to(peer).send([]))
    caplog.set_level(logging.DEBUG)
    for name in logging.root.manager.loggerDict:
        if name.startswith(("pynetdicom", "pydicom", "msrf_monai")):
            logging.getLogger(name).setLevel(logging.DEBUG)

    sent_before_error(to(peer), paths)

    told = "\n".join(logging.Formatter("%(name)s %(message)s").format(record) for record in caplog.records)
    assert "msrf_monai.clinical.pacs.dimse" in told
    for value in ("SECRET", "2.25."):
        assert value not in told
