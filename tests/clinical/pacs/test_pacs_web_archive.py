"""Studies found in a real Orthanc, and fetched from it as they are stored, beside what another client gets."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pacs.web import FoundStudy, WebArchive
from msrf_monai.errors import ConfigError, PacsError
from support.orthanc import Orthanc
from support.web_server import WebServer

ONCE = Backoff(give_up_after=0)
EVERYTHING = {"PatientID": "*"}


@dataclass(frozen=True)
class Stocked:
    """A server and what was put into it."""

    server: Orthanc
    files: dict[str, Path]
    """By SOP instance UID; of several with the same, the one that came last."""
    headers: dict[str, Any]

    def studies(self, matches: Callable[[Any], bool]) -> set[str]:
        return {str(header.StudyInstanceUID) for header in self.headers.values() if matches(header)}


@pytest.fixture(scope="module")
def stocked(data_root: Path, dicom_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stocked]:
    """All samples but the broken ones, and others that are compressed, put in by Orthanc's own interface."""
    samples = [dicom_samples, data_root / "dicom" / "highdicom"]
    found = [path for place in samples for path in sorted(place.rglob("*")) if path.is_file()]
    paths = [path for path in found if "bad" not in path.parts and path.read_bytes()[128:132] == b"DICM"]
    more = [path for path in sorted((data_root / "dicom").rglob("*.dcm")) if path not in paths]
    paths += [path for path in more if _header(path).file_meta.TransferSyntaxUID.is_compressed]
    with Orthanc(tmp_path_factory.mktemp("stocked")) as server:
        for path in paths:
            with urlopen(Request(f"{server.url}/instances", data=path.read_bytes()), timeout=30) as answer:
                assert answer.status == 200
        headers = {str(header.SOPInstanceUID): (path, header) for path in paths for header in [_header(path)]}
        files = {uid: path for uid, (path, _) in headers.items()}
        yield Stocked(server, files, {uid: header for uid, (_, header) in headers.items()})


def _header(path: Path) -> Any:
    return dcmread(path, stop_before_pixels=True)


@pytest.mark.parametrize("page", [3, 1000])
def test_every_study_is_found_once_whatever_the_page(stocked: Stocked, page: int) -> None:
    with WebArchive(stocked.server.dicomweb, page=page) as archive:
        studies = [archive.objects_of(study) for study in archive.studies(EVERYTHING)]
    assert len({study.study_uid for study in studies}) == len(studies) > 7
    by_study = defaultdict(set)
    for uid, header in stocked.headers.items():
        by_study[str(header.StudyInstanceUID)].add((str(header.SeriesInstanceUID), uid))
    assert {study.study_uid: set(study.instances) for study in studies} == by_study
    assert sum(len(study.instances) for study in studies) == stocked.server.get("/statistics")["CountInstances"]


STUDY_QUERIES: dict[str, tuple[dict[str, str], Callable[[Any], bool]]] = {
    "modality": ({"ModalitiesInStudy": "MR"}, lambda header: header.Modality == "MR"),
    "patient": ({"PatientID": "SYN-0001"}, lambda header: header.PatientID == "SYN-0001"),
    "name_wildcard": ({"PatientName": "SYNTH*"}, lambda header: str(header.PatientName).startswith("SYNTH")),
    "one_character": ({"PatientID": "SYN-000?"}, lambda header: str(header.PatientID).startswith("SYN-000")),
    "date": ({"StudyDate": "20200101"}, lambda header: header.StudyDate == "20200101"),
    "date_range": ({"StudyDate": "20100101-20201231"}, lambda header: "2010" < header.StudyDate < "2021"),
    # Orthanc counts studies without a date among the old ones
    "date_open": ({"StudyDate": "-20191231"}, lambda header: str(header.StudyDate) < "2020"),
    # this Orthanc does not decode what had to be encoded; a wildcard stands in
    "encoded_character": ({"StudyDescription": "e?1"}, lambda header: header.get("StudyDescription") == "e+1"),
    "no_such_patient": ({"PatientID": "NOBODY"}, lambda header: False),
    "two_at_once": (
        {"ModalitiesInStudy": "CT", "StudyDate": "20200101"},
        lambda header: header.Modality == "CT" and header.StudyDate == "20200101",
    ),
}


@pytest.mark.parametrize("name", list(STUDY_QUERIES))
def test_a_query_finds_the_studies_that_match(stocked: Stocked, name: str) -> None:
    query, matches = STUDY_QUERIES[name]
    client = DICOMwebClient(stocked.server.dicomweb)
    with WebArchive(stocked.server.dicomweb, page=4) as archive:
        found = archive.studies(query)
    assert sorted(found) == sorted(stocked.studies(matches))
    if not {"*", "?"} & set(str(query)):  # which the other client encodes
        others = client.search_for_studies(search_filters=query)
        assert {each["0020000D"]["Value"][0] for each in others} == set(found)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "StudyID", "StudyTime", "AccessionNumber", "PatientSex"])
def test_each_keyword_of_a_study_finds_its_own_values(stocked: Stocked, keyword: str) -> None:
    values = sorted({str(header.get(keyword) or "") for header in stocked.headers.values()} - {""})
    assert values
    with WebArchive(stocked.server.dicomweb) as archive:
        found = set(archive.studies({keyword: values[0]}))
    assert found == stocked.studies(lambda header: str(header.get(keyword) or "") == values[0])


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({}, "an empty query means the whole archive"),
        ({"ModalityInStudy": "CT"}, "did you mean ModalitiesInStudy"),
        ({"limit": "5"}, "'limit' is no DICOM keyword"),
        ({"PixelData": "1"}, "PixelData cannot be asked for"),
        ({"TransferSyntaxUID": "1.2"}, "TransferSyntaxUID cannot be asked for"),
        ({"StudyDate": " "}, "has no value for StudyDate"),
    ],
    ids=["empty", "misspelt", "no_keyword", "pixels", "file_meta", "no_value"],
)
def test_a_wrong_query_is_refused_before_anything_is_asked(query: dict[str, str], sentence: str) -> None:
    with WebArchive("http://127.0.0.1:9/dicom-web") as archive, pytest.raises(ConfigError, match=sentence):
        archive.studies(query)


def test_every_sample_comes_back_as_it_is_stored(stocked: Stocked, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    with WebArchive(stocked.server.dicomweb) as archive:
        studies = [archive.objects_of(study) for study in archive.studies(EVERYTHING)]
        paths = [path for study in studies for path in archive.fetch(study, inbox, backoff=ONCE)]
    assert len(paths) == len(set(paths)) == len(stocked.files)
    for path in paths:
        fetched = dcmread(path)
        original = dcmread(stocked.files[str(fetched.SOPInstanceUID)])
        assert fetched.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert fetched.get("PixelData") == original.get("PixelData")
        assert fetched == original


def test_compressed_pixels_are_not_touched(stocked: Stocked, tmp_path: Path) -> None:
    compressed = {
        uid: header for uid, header in stocked.headers.items() if header.file_meta.TransferSyntaxUID.is_compressed
    }
    assert compressed
    inbox, syntaxes = Inbox(tmp_path / "inbox"), set()
    with WebArchive(stocked.server.dicomweb) as archive:
        for uid, header in compressed.items():
            study = FoundStudy(str(header.StudyInstanceUID), ((str(header.SeriesInstanceUID), uid),))
            (path,) = archive.fetch(study, inbox, backoff=ONCE)
            fetched = dcmread(path)
            assert fetched.file_meta.TransferSyntaxUID == header.file_meta.TransferSyntaxUID
            assert fetched.PixelData == dcmread(stocked.files[uid]).PixelData
            syntaxes.add(fetched.file_meta.TransferSyntaxUID.name)
    assert len(syntaxes) > 3


def test_another_client_gets_the_same_object(stocked: Stocked, tmp_path: Path) -> None:
    client = DICOMwebClient(stocked.server.dicomweb)
    with WebArchive(stocked.server.dicomweb) as archive:
        study = archive.objects_of(archive.studies({"ModalitiesInStudy": "OP"})[0])
        (path,) = archive.fetch(study, Inbox(tmp_path / "inbox"), backoff=ONCE)
    ((series, instance),) = study.instances
    other = client.retrieve_instance(study.study_uid, series, instance, media_types=(("application/dicom", "*"),))
    assert dcmread(path) == other


def test_what_the_inbox_has_is_not_fetched_again(
    stocked: Stocked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, header = next(iter(stocked.headers.items()))
    inbox = Inbox(tmp_path / "inbox")
    study = FoundStudy(str(header.StudyInstanceUID), ((str(header.SeriesInstanceUID), uid),))
    with WebArchive(stocked.server.dicomweb) as archive:
        first = archive.fetch(study, inbox, backoff=ONCE)
    # this server has nothing, so that asking it fails
    with WebServer(lambda request, handler: (404, "text/plain", b"")) as server, WebArchive(server.url) as empty:
        with monkeypatch.context() as patch:
            # an inbox may hold very many studies, and only this one is asked about
            patch.setattr(Inbox, "studies", None)
            assert empty.fetch(study, inbox, backoff=ONCE) == first
        inbox.remove(inbox.studies()[0], first)
        with pytest.raises(PacsError, match=r"nothing at the address.*404") as caught:
            empty.fetch(study, inbox, backoff=ONCE)
    assert caught.value.is_lasting
    assert len(server.requests) == 1


class Interrupted(Inbox):
    """Stops the server after some objects, and starts it again a while later."""

    def __init__(self, root: Path, server: Orthanc, after: int) -> None:
        super().__init__(root)
        self.stored = 0
        self._server, self._after = server, after
        self.restart = threading.Timer(0.3, server.start)

    def store(self, content: Any, *, study: str, instance: str) -> Path:
        path = super().store(content, study=study, instance=instance)
        self.stored += 1
        if self.stored == self._after:
            self._server.stop()
            self.restart.start()
        return path


def test_fetching_goes_on_after_the_server_was_away(stocked: Stocked, orthanc: Orthanc, tmp_path: Path) -> None:
    files = dict(list(stocked.files.items())[::4])
    for path in files.values():
        with urlopen(Request(f"{orthanc.url}/instances", data=path.read_bytes()), timeout=30):
            pass
    inbox = Interrupted(tmp_path / "inbox", orthanc, after=15)
    backoff = Backoff(first=0.1, longest=0.3, give_up_after=60)
    with WebArchive(orthanc.dicomweb) as archive:
        studies = [archive.objects_of(study) for study in archive.studies(EVERYTHING)]
        paths = [path for study in studies for path in archive.fetch(study, inbox, backoff=backoff)]
    inbox.restart.join()
    assert inbox.stored == len(paths) == len(files)
    assert {str(_header(path).SOPInstanceUID) for path in paths} == set(files)
    assert all(dcmread(path) == dcmread(files[str(_header(path).SOPInstanceUID)]) for path in paths)


def test_fetching_stops_when_it_is_told_to(stocked: Stocked, tmp_path: Path) -> None:
    stop, inbox = threading.Event(), Inbox(tmp_path / "inbox")
    stop.set()
    with WebArchive(stocked.server.dicomweb) as archive:
        study = archive.objects_of(archive.studies(EVERYTHING)[0])
        with pytest.raises(PacsError, match="was stopped"):
            archive.fetch(study, inbox, backoff=ONCE, stop=stop)
    assert inbox.studies() == []
