"""The command lines of compose.yaml without containers: Orthanc with its settings, and the worker that answers it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

import support.pacs_objects
from support.docker_engine import wait_until
from support.orthanc import free_port, orthanc_program
from support.pacs_objects import STAND_IN

FOLDER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
PASSWORD = "of one test"

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


@pytest.fixture
def ports() -> dict[str, int]:
    """Free ones for those of the recipes."""
    return {"8042": free_port(), "4242": free_port(), "11112": free_port()}


@pytest.fixture
def archive(tmp_path: Path, ports: dict[str, int]) -> Iterator[Path]:
    """Orthanc as in its container, but for ports, folders and the worker's name; yields its log."""
    text = (FOLDER / "orthanc.json").read_text()
    program = orthanc_program()
    text = (
        text.replace('"worker"', '"127.0.0.1"')
        .replace("/archive", str(tmp_path / "archive"))
        .replace("/etc/orthanc-scripts", str(FOLDER))
    )
    (tmp_path / "orthanc.json").write_text(_with_ports(text, ports))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(tmp_path / "orthanc.json")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ORTHANC_PASSWORD": PASSWORD},
        )
    yield tmp_path / "orthanc.log"
    process.terminate()
    process.wait(30)


@pytest.fixture
def start_worker(tmp_path: Path, repository: Path, ports: dict[str, int]) -> Iterator[Callable[[], Path]]:
    """Starts the worker with a stand-in for the network, and returns its log."""
    words = [word.replace("orthanc:", "127.0.0.1:") for word in COMPOSE["services"]["worker"]["command"][1:]]
    words = [word.replace("0.0.0.0", "127.0.0.1").replace("bundles/", f"{repository}/bundles/") for word in words]
    words = [_with_ports(word, ports) for word in words] + ["--settle", "0.5"]
    code = f"{STAND_IN}\nimport sys\nfrom msrf_monai.cli.main import main\nsys.argv[1:] = {words!r}\nmain()\n"
    tests = str(Path(support.pacs_objects.__file__).parents[1])
    (tmp_path / "runs").mkdir()
    with ExitStack() as stack:

        def start() -> Path:
            log = stack.enter_context((tmp_path / "worker.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": tests},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return tmp_path / "worker.log"

        yield start


def _with_ports(word: str, ports: dict[str, int]) -> str:
    return re.sub("|".join(ports), lambda found: str(ports[found[0]]), word)


def health_of_archive() -> list[str]:
    """The check that Dockerfile.orthanc has."""
    text = (FOLDER / "Dockerfile.orthanc").read_text().replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("HEALTHCHECK"))
    return list(json.loads(line.partition("CMD ")[2]))


def is_healthy(check: list[str], ports: dict[str, int]) -> bool:
    words = [sys.executable if word == "python" else _with_ports(word, ports) for word in check]
    environment = {**os.environ, "ORTHANC_PASSWORD": PASSWORD}
    return subprocess.run(words, capture_output=True, env=environment, check=False, timeout=60).returncode == 0


def modalities(ports: dict[str, int]) -> list[str]:
    """Return the modalities of what Orthanc holds, as DICOMweb tells them."""
    address = f"http://127.0.0.1:{ports['8042']}/dicom-web/instances?includefield=00080060"
    done = subprocess.run(["curl", "-sS", "-u", f"msrf:{PASSWORD}", address], capture_output=True, check=True)
    return sorted(each["00080060"]["Value"][0] for each in json.loads(done.stdout))


def test_a_photograph_goes_to_the_worker_and_its_segmentation_comes_back(
    archive: Path, start_worker: Callable[[], Path], ports: dict[str, int], dicom_samples: Path
) -> None:
    check = COMPOSE["services"]["worker"]["healthcheck"]["test"][1:]
    assert not is_healthy(check, ports)
    worker = start_worker()
    wait_until(lambda: is_healthy(health_of_archive(), ports), 60, archive.read_text)
    wait_until(lambda: is_healthy(check, ports), 120, worker.read_text)

    send = [sys.executable, "-m", "pynetdicom", "storescu", "-aec", "ORTHANC", "127.0.0.1", str(ports["4242"])]
    for name in ("us_gray.dcm", "fundus_op8.dcm"):  # the first is of no interest to the worker
        subprocess.run([*send, str(dicom_samples / name)], check=True, capture_output=True, timeout=60)

    wait_until(lambda: "SEG" in modalities(ports), 120, worker.read_text)
    assert modalities(ports) == ["OP", "SEG", "US"]


def test_an_archive_without_a_password_of_its_own_lets_nobody_in(archive: Path, ports: dict[str, int]) -> None:
    wait_until(lambda: is_healthy(health_of_archive(), ports), 60, archive.read_text)
    address = f"http://127.0.0.1:{ports['8042']}/dicom-web/studies"
    shown = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"]

    told = [
        subprocess.run([*shown, *who, address], capture_output=True, text=True, check=True).stdout
        for who in ([], ["-u", "msrf:"], ["-u", "msrf:${ORTHANC_PASSWORD}"], ["-u", "orthanc:orthanc"])
    ]

    assert told == ["401"] * 4
