"""The services of compose.yaml, started by podman-compose: a photograph goes in, its segmentation comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from support.docker_engine import Engine, wait_until

pytestmark = [pytest.mark.extended, pytest.mark.realdata]

PASSWORD = "of one test"
SEND = ("storescu", "-aet", "CAMERA", "-aec", "ORTHANC", "127.0.0.1", "4242")
Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def compose(built: Engine, repository: Path) -> Iterator[Compose]:
    tool = Path(sys.executable).with_name("podman-compose")
    words = [str(tool), "--podman-path", str(built.program()), "--file", str(repository / "docker" / "compose.yaml")]

    def run(*more: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*words, *more], capture_output=True, text=True, env={**os.environ, **variables}, check=False, timeout=900
        )
        if check and done.returncode:
            pytest.fail(f"podman-compose {' '.join(more)}: {done.stderr[-3000:]}")
        return done

    yield run
    run("down", "--volumes", check=False, ORTHANC_PASSWORD=PASSWORD)


def container(service: str) -> str:
    return f"msrf-monai_{service}_1"


@pytest.fixture(scope="module")
def services(compose: Compose, built: Engine) -> Engine:
    """All three, started in the order of their conditions; no timer runs health checks here, so that we do."""
    for service in ("orthanc", "worker", "label"):
        compose("up", "--detach", "--no-build", "--no-deps", service, ORTHANC_PASSWORD=PASSWORD)
        name = container(service)
        wait_until(lambda name=name: built.is_healthy(name), 300, lambda name=name: built.logs(name))
    return built


def ask(engine: Engine, path: str, *options: str) -> str:
    return engine.here("curl", "-sS", "-u", f"msrf:{PASSWORD}", *options, f"http://127.0.0.1:8042{path}").stdout


def stored(engine: Engine) -> list[tuple[str, str]]:
    """Return study and modality of every instance in the archive."""
    answer = json.loads(ask(engine, "/dicom-web/instances", "-H", "Accept: application/dicom+json"))
    return [(each["0020000D"]["Value"][0], each["00080060"]["Value"][0]) for each in answer]


def segmented(engine: Engine, studies: set[str]) -> list[str]:
    """Return those of the studies that hold a segmentation; one that holds two is there twice."""
    return [study for study, modality in stored(engine) if modality == "SEG" and study in studies]


def test_without_a_password_nothing_starts(compose: Compose) -> None:
    done = compose("up", "--detach", "--no-build", "orthanc", check=False, ORTHANC_PASSWORD="")

    assert done.returncode != 0
    assert "choose a password for Orthanc" in done.stderr


def test_the_archive_asks_for_the_password(services: Engine) -> None:
    status = services.here(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8042/dicom-web/studies"
    ).stdout

    assert status == "401"


def test_a_photograph_that_arrives_gets_its_segmentation_once(services: Engine, dicom_samples: Path) -> None:
    services.here(*SEND, dicom_samples / "fundus_op8.dcm")
    wait_until(
        lambda: any(modality == "SEG" for _, modality in stored(services)),
        300,
        lambda: services.logs(container("worker")),
    )
    services.here(*SEND, dicom_samples / "us_gray.dcm")  # is of no interest to the worker

    said = services.logs(container("worker"))
    assert sorted(modality for _, modality in stored(services)) == ["OP", "SEG", "US"]
    assert "listens on 0.0.0.0:11112" in said


def test_the_services_have_no_rights_and_the_worker_no_way_out(services: Engine) -> None:
    for service in ("orthanc", "label", "worker"):
        status = services.run("exec", container(service), "cat", "/proc/self/status").stdout
        written = services.run("exec", container(service), "sh", "-c", "echo x > /usr/x", check=False)
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Uid:\t1000\t1000" in status
        assert "Read-only file system" in written.stderr
    (found,) = json.loads(services.run("inspect", container("worker")).stdout)
    assert list(found["NetworkSettings"]["Networks"]) == ["msrf-monai_inside"]
    (network,) = json.loads(services.run("network", "inspect", "msrf-monai_inside").stdout)
    assert network["internal"] is True


def test_monai_label_lists_the_archive_and_segments_its_photograph(services: Engine, dicom_samples: Path) -> None:
    series = str(pydicom.dcmread(dicom_samples / "fundus_op8.dcm", stop_before_pixels=True).SeriesInstanceUID)
    server, bundle = "http://127.0.0.1:8000", "imff_net_retinal_vessel_segmentation"

    def listed() -> int:  # a list is read again after half a minute
        return int(json.loads(services.here("curl", "-sS", f"{server}/info/").stdout)["datastore"]["total"])

    wait_until(lambda: listed() == 2, 120, lambda: f"{listed()}: {services.logs(container('label'))}")
    mask = services.folder / "mask"
    params = json.dumps({"label_info": [{"name": "vessel"}]})
    asked = ["--form", f"params={params}", "--output", mask, f"{server}/infer/{bundle}?image={series}&output=dicom_seg"]
    services.here("curl", "-sS", "--fail", *asked, timeout=300)

    found = pydicom.dcmread(mask)
    assert found.Modality == "SEG"
    assert (found.Rows, found.Columns) == (192, 256)


def test_the_worker_loses_and_doubles_nothing_when_it_is_killed_at_work(
    services: Engine, dicom_samples: Path, tmp_path: Path
) -> None:
    sent = {write_photograph(dicom_samples, tmp_path / f"{index}.dcm") for index in range(16)}

    services.here(*SEND, *sorted(tmp_path.glob("*.dcm")))
    # Orthanc tries once: what the worker has not acknowledged is not its to finish
    wait_until(lambda: forwarded(services), 120, lambda: ask(services, "/jobs?expand"))
    for count in (2, 6):  # so many are segmented, the others are in work or wait
        wait_until(
            lambda count=count: len(segmented(services, sent)) >= count, 300, lambda: services.logs(container("worker"))
        )
        services.run("kill", "--signal", "KILL", container("worker"))
        assert len(segmented(services, sent)) < len(sent), "it was finished before it was killed"
        services.run("start", container("worker"))
    wait_until(lambda: set(segmented(services, sent)) == sent, 300, lambda: services.logs(container("worker")))

    assert sorted(segmented(services, sent)) == sorted(sent)


def forwarded(engine: Engine) -> bool:
    """Return whether all that Orthanc sends on has been acknowledged."""
    return {job["State"] for job in json.loads(ask(engine, "/jobs?expand"))} == {"Success"}


def write_photograph(samples: Path, path: Path) -> str:
    """Write the sample as a photograph of a study of its own, and return the study's UID."""
    header = pydicom.dcmread(samples / "fundus_op8.dcm")
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(header, name, generate_uid())
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(path)
    return str(header.StudyInstanceUID)
