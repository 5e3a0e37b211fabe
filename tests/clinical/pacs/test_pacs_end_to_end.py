"""A real PACS sends fifty images of mixed kinds, and gets fifty segmentations back, whatever stops in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pydicom
import pytest
from typer.testing import CliRunner, Result

import support.pacs_objects
from msrf_monai.cli.listen import app as listen
from msrf_monai.cli.predict import app
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.clinical.pacs import fetching
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pacs.web import FoundStudy, WebArchive
from msrf_monai.errors import PacsError
from support.clinical_runs import ThresholdPredictor
from support.orthanc import Orthanc, free_port
from support.pacs_objects import STAND_IN, accepted_lines, mixed_objects, segmentations, without_meta

pytestmark = [pytest.mark.slow, pytest.mark.realdata]

COUNT = 50
BUNDLE = "bundles/msrf_net_polyp_segmentation"
AET = "SEGMENTER"
ENDLESS = """
import itertools, threading
finish, calls = ThresholdPredictor.finish, itertools.count()
ThresholdPredictor.finish = lambda *given: finish(*given) if next(calls) < 10 else threading.Event().wait()
"""
"""Code with which the stand-in is never done with its eleventh image."""


@pytest.fixture
def images(dicom_samples: Path, tmp_path: Path) -> list[Path]:
    return mixed_objects(dicom_samples, tmp_path / "images", COUNT)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pacs(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc", {"segmenter": (AET, port)}) as server:
        yield server


@pytest.fixture
def service(repository: Path, tmp_path: Path, port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``msrf-monai listen`` in a process of its own, and waits until it listens."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, before: str = "") -> subprocess.Popen[str]:
        words = ["listen", str(repository / BUNDLE), "--output", str(tmp_path / "out"), "--aet", AET]
        words += ["--port", str(port), "--settle", "0.5", *arguments]
        code = f"{STAND_IN}{before}\nimport sys\nfrom msrf_monai.cli.main import main\n"
        code += f"sys.argv[1:] = {words!r}\nmain()\n"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(support.pacs_objects.__file__).parents[1]),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        running.append(process)
        assert process.stderr is not None
        assert "listens on 127.0.0.1" in process.stderr.readline()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def post(server: Orthanc, path: str, content: Any) -> Any:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with urlopen(Request(server.url + path, data=data, method="POST"), timeout=120) as answer:
        return json.loads(answer.read())


def fill(server: Orthanc, images: list[Path]) -> list[str]:
    """Put images into the PACS; returns its own names of them."""
    return [post(server, "/instances", path.read_bytes())["ID"] for path in images]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.2)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    said = "".join(process.communicate(timeout=60))
    return process.returncode, said


def test_a_service_that_is_ended_while_it_loads_ends_as_asked(repository: Path, tmp_path: Path, port: int) -> None:
    words = ["listen", str(repository / BUNDLE), "--output", str(tmp_path / "out"), "--any-caller", "--port", str(port)]
    code = f"""
import os, signal, sys
import msrf_monai.clinical.predictor as predictor
predictor.Predictor.from_bundle = classmethod(lambda cls, *given: os.kill(os.getpid(), signal.SIGTERM))
from msrf_monai.cli.main import main
sys.argv[1:] = {words!r}
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_service_that_nobody_may_send_to_is_refused(repository: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(listen, [str(repository / BUNDLE), "--output", str(tmp_path / "out")])

    assert done.exit_code == 2
    assert "nobody may send: name the peers with --allow AET" in done.stderr


def results_at(server: Orthanc) -> dict[str, bytes]:
    return {uid: without_meta(content) for uid, content in server.instances("SEG").items()}


def test_fifty_images_go_out_and_fifty_segmentations_come_back(
    images: list[Path], pacs: Orthanc, tmp_path: Path, service: Callable[..., subprocess.Popen[str]]
) -> None:
    names = fill(pacs, images)
    running = service("--allow", pacs.aet, "--send-to", f"{pacs.aet}@127.0.0.1:{pacs.port}")

    post(pacs, "/modalities/segmenter/store", names[:20])
    wait_for(lambda: len(accepted_lines(tmp_path / "out")) >= 5)
    post(pacs, "/modalities/segmenter/store", names[20:])
    pacs.stop()
    time.sleep(1.5)
    pacs.start()
    wait_for(lambda: len(accepted_lines(tmp_path / "out")) >= COUNT)
    status, said = end(running)

    entries = read_manifest(tmp_path / "out").entries
    assert status == 0, said
    assert [entry.state for entry in entries] == ["done"] * COUNT
    assert results_at(pacs) == segmentations(tmp_path / "out")
    assert len(accepted_lines(tmp_path / "out")) == len(set(accepted_lines(tmp_path / "out"))) == COUNT
    assert len(pacs.get("/instances")) == 2 * COUNT
    assert not list((tmp_path / "out-received").rglob("*.dcm"))
    assert "lanted" not in said


def test_a_service_killed_in_the_middle_goes_on_with_what_it_has_acknowledged(
    images: list[Path], pacs: Orthanc, tmp_path: Path, service: Callable[..., subprocess.Popen[str]]
) -> None:
    arguments = ("--allow", pacs.aet, "--send-to", f"{pacs.aet}@127.0.0.1:{pacs.port}")
    names = fill(pacs, images[:20])
    running = service(*arguments, before=ENDLESS)
    post(pacs, "/modalities/segmenter/store", names)
    wait_for(lambda: (tmp_path / "out" / "manifest.jsonl").read_bytes().count(b"\n") > 4)
    running.kill()
    running.wait()
    done_before = len(read_manifest(tmp_path / "out").entries)

    again = service(*arguments)
    wait_for(lambda: len(set(accepted_lines(tmp_path / "out"))) == 20)
    status, said = end(again)

    assert status == 0, said
    assert done_before < 20
    assert [entry.state for entry in read_manifest(tmp_path / "out").entries] == ["done"] * 20
    assert results_at(pacs) == segmentations(tmp_path / "out")
    assert len(pacs.get("/instances")) == 40


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.predictor.Predictor.from_bundle", lambda *_: ThresholdPredictor())


def predict(repository: Path, output: Path, *arguments: str) -> Result:
    words = [str(repository / BUNDLE), "--output", str(output), "--outputs", "seg,stats", *arguments]
    return CliRunner().invoke(app, words)


@pytest.mark.usefixtures("stand_in")
def test_studies_are_fetched_and_results_sent_by_dicomweb(
    images: list[Path], pacs: Orthanc, tmp_path: Path, repository: Path
) -> None:
    fill(pacs, images)
    web = ("--from-dicomweb", pacs.dicomweb, "--query", "PatientID=PLANTED*", "--to-dicomweb", pacs.dicomweb)

    done = predict(repository, tmp_path / "out", *web, "--json")
    again = predict(repository, tmp_path / "out", *web, "--json", "--resume")

    said, said_again = json.loads(done.stdout), json.loads(again.stdout)
    assert (said["done"], said["failed"], said["kept"]) == (COUNT, 0, 0), done.output
    assert [(each["accepted"], each["waiting"]) for each in said["deliveries"]] == [(COUNT, 0)]
    assert results_at(pacs) == segmentations(tmp_path / "out")
    assert len(segmentations(tmp_path / "out")) == COUNT
    assert not list((tmp_path / "out-received").rglob("*.dcm"))
    # the studies hold our results by now, and these are not taken for images
    assert (said_again["done"], said_again["failed"]) == (COUNT, 0)
    assert [each["accepted"] for each in said_again["deliveries"]] == [0]
    assert len(pacs.get("/instances")) == 2 * COUNT


@pytest.mark.usefixtures("stand_in")
def test_an_object_that_failed_is_fetched_again_when_it_is_mended_in_the_archive(
    images: list[Path], pacs: Orthanc, tmp_path: Path, repository: Path
) -> None:
    good = pydicom.dcmread(images[2])
    broken = pydicom.dcmread(images[2])
    broken.Rows = 65_535
    broken.save_as(tmp_path / "broken.dcm")
    fill(pacs, [tmp_path / "broken.dcm"])
    web = ("--from-dicomweb", pacs.dicomweb, "--query", "PatientID=PLANTED*")

    first = predict(repository, tmp_path / "out", *web)
    good.save_as(tmp_path / "good.dcm")
    fill(pacs, [tmp_path / "good.dcm"])
    second = predict(repository, tmp_path / "out", *web, "--resume")

    assert first.exit_code == 3
    assert "0 done, 1 failed" in first.stdout
    assert second.exit_code == 0, second.output
    assert "1 done, 0 failed" in second.stdout


@pytest.mark.usefixtures("stand_in")
def test_files_are_predicted_and_results_wait_for_a_server_that_is_away(
    images: list[Path], pacs: Orthanc, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msrf_monai.cli.pacs.PATIENCE", Backoff(give_up_after=0))
    files = [str(path) for path in images[:3]]
    target = ("--send-to", f"{pacs.aet}@127.0.0.1:{pacs.port}")
    pacs.stop()

    away = predict(repository, tmp_path / "out", *files, *target)
    pacs.start()
    back = predict(repository, tmp_path / "out", *files, *target, "--resume")

    assert away.exit_code == 3
    assert "3 waiting" in away.stdout
    assert "--resume sends them" in away.stdout
    assert back.exit_code == 0, back.output
    assert f"C-STORE {pacs.aet}@127.0.0.1:{pacs.port}: 3 sent" in back.stdout
    assert results_at(pacs) == segmentations(tmp_path / "out")


@pytest.mark.usefixtures("stand_in")
def test_a_study_that_cannot_be_fetched_is_a_line_until_it_can(
    images: list[Path], pacs: Orthanc, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pacs, images[:3])
    fetch = WebArchive.fetch
    spoilt = str(pydicom.dcmread(images[1]).StudyInstanceUID)

    def fail(self: WebArchive, study: FoundStudy, *given: Any, **named: Any) -> list[Path]:
        if study.study_uid == spoilt:
            raise PacsError("the server broke off")
        return fetch(self, study, *given, **named)

    web = ("--from-dicomweb", pacs.dicomweb, "--query", "PatientID=PLANTED*")
    with monkeypatch.context() as patch:
        patch.setattr(WebArchive, "fetch", fail)
        patch.setattr(fetching, "_WAITS", (0.0, 0.0))
        done = predict(repository, tmp_path / "out", *web)
    states = sorted((entry.state, entry.code) for entry in read_manifest(tmp_path / "out").entries)
    again = predict(repository, tmp_path / "out", *web, "--resume")

    assert states == [("done", ""), ("done", ""), ("failed", "not_fetched")], done.output
    assert done.exit_code == 3
    assert "the server broke off" in done.stderr
    assert again.exit_code == 0, again.output
    assert "3 done, 0 failed, 0 skipped (2 of them before)" in again.stdout
    absent = [entry for entry in read_manifest(tmp_path / "out").entries if entry.folder.startswith("absent-")]
    assert [(entry.state, entry.code) for entry in absent] == [("skipped", "superseded")]


@pytest.mark.usefixtures("stand_in")
def test_an_archive_that_stays_away_ends_the_run(
    images: list[Path], pacs: Orthanc, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pacs, images[:2])
    monkeypatch.setattr("msrf_monai.cli.pacs.PATIENCE", Backoff(give_up_after=0))

    def leave(*_: Any, **__: Any) -> list[Path]:
        pacs.stop()
        raise PacsError("the connection is gone")

    web = ("--from-dicomweb", pacs.dicomweb, "--query", "PatientID=PLANTED*")
    with monkeypatch.context() as patch:
        patch.setattr(WebArchive, "fetch", leave)
        away = predict(repository, tmp_path / "out", *web)
    pacs.start()
    back = predict(repository, tmp_path / "out", *web, "--resume")

    assert away.exit_code == 1
    assert away.stderr.count("\n") == 1
    assert pacs.dicomweb in away.stderr
    assert back.exit_code == 0, back.output
    assert "2 done" in back.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--query", "StudyDate=20240101"], "--from-dicomweb URL is missing"),
        (["in.dcm", "--from-dicomweb", "http://127.0.0.1:1/x", "--query", "StudyDate=1"], "takes the place of INPUT"),
        (["--from-dicomweb", "http://127.0.0.1:1/x", "--query", "ROE^RICHARD"], "--query takes KEYWORD=VALUE"),
        (["--from-dicomweb", "http://127.0.0.1:1/x", "--query", "A=1", "--query", "A=2"], "A=… is given twice"),
        ([".", "--send-to", "nobody"], "AET@"),
        (["in.dcm", "nor.dcm"], "no input was found"),
        ([], "give INPUT"),
    ],
    ids=["query-alone", "both", "no-value", "twice", "no-peer", "mistyped", "nothing"],
)
def test_a_wrong_use_is_one_sentence_and_2(repository: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = predict(repository, tmp_path / "out", *arguments)

    assert done.exit_code == 2
    assert said in done.stderr
    assert "ROE" not in done.output
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
