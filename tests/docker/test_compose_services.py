"""The services of compose.yaml, started by podman-compose: a photograph goes in, its segmentation comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.docker_engine import Engine, wait_until

pytestmark = [pytest.mark.extended, pytest.mark.realdata]

PASSWORD = "of one test"
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


def stored(engine: Engine) -> dict[str, str]:
    """Return Orthanc's instances and their modalities."""
    names = json.loads(ask(engine, "/instances"))
    return {name: json.loads(ask(engine, f"/instances/{name}/simplified-tags"))["Modality"] for name in names}


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
    send = ["storescu", "-aet", "CAMERA", "-aec", "ORTHANC", "127.0.0.1", "4242"]
    services.here(*send, str(dicom_samples / "fundus_op8.dcm"))
    wait_until(lambda: "SEG" in stored(services).values(), 300, lambda: services.logs(container("worker")))
    services.here(*send, str(dicom_samples / "us_gray.dcm"))  # is of no interest to the worker

    said = services.logs(container("worker"))
    assert sorted(stored(services).values()) == ["OP", "SEG", "US"]
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


def test_the_worker_goes_on_after_it_was_killed(services: Engine, dicom_samples: Path) -> None:
    before = sorted(stored(services).values())
    services.run("kill", "--signal", "KILL", container("worker"))
    services.run("start", container("worker"))
    wait_until(lambda: services.is_healthy(container("worker")), 120, lambda: services.logs(container("worker")))

    assert sorted(stored(services).values()) == before
