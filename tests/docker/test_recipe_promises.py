"""What the recipes say fits the program, its versions and each other."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from msrf_monai import __version__
from msrf_monai.cli.main import LazyGroup

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = sorted(COMPOSE["services"])
RAY_JOB = yaml.safe_load((FOLDER / "kuberay" / "predict.yaml").read_text())


def name_of(path: Path) -> str:
    return path.name


def parsed(words: list[str]) -> dict[str, Any]:
    """Let the program's own command line read words that begin with its name; return the parameters."""
    assert words[0] == "msrf-monai"
    command = typer.main.get_command(importlib.import_module(LazyGroup.members[words[1]][0]).app)
    context = command.make_context(words[1], words[2:])
    return context.params


def pinned(name: str) -> str:
    (version,) = re.findall(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


def let_through() -> list[str]:
    return [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_an_image_begins_with_one_that_does_not_change_and_ends_without_rights(path: Path) -> None:
    text = path.read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)

    assert re.fullmatch(r"\S+:[\w.-]+@sha256:[0-9a-f]{64}|msrf-monai:" + re.escape(__version__), base)
    assert {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")} == {"${BASE}"}
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "1000:1000"


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_what_is_copied_exists_and_is_let_through(path: Path) -> None:
    for words in re.findall(r"^COPY ((?!--from).+)$", path.read_text(), re.MULTILINE):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists()
            assert source in let_through()


def test_versions_are_those_that_are_tested() -> None:
    assert f"'torch=={pinned('torch')}'" in (FOLDER / "Dockerfile").read_text()
    assert f"'ray[default]=={pinned('ray')}'" in (FOLDER / "Dockerfile.ray").read_text()
    assert RAY_JOB["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    images = re.findall(r"image: (\S+):(\S+)", "".join(path.read_text() for path in FOLDER.rglob("*.yaml")))
    assert {version for _, version in images} == {__version__}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_reached_from_this_computer_alone(name: str) -> None:
    service = COMPOSE["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "privileged" not in service
    dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
    assert "healthcheck" in service or "HEALTHCHECK" in dockerfile


def test_worker_and_archive_know_each_other() -> None:
    worker = COMPOSE["services"]["worker"]
    options = parsed(worker["command"])
    orthanc = json.loads((FOLDER / "orthanc.json").read_text())

    assert orthanc["DicomModalities"] == {"segmenter": [options["aet"], "worker", options["port"]]}
    assert options["allow"] == [orthanc["DicomAet"]]
    assert options["send_to"] == [f"{orthanc['DicomAet']}@orthanc:{orthanc['DicomPort']}"]
    assert f'"{options["aet"]}"' in (FOLDER / "route.lua").read_text()
    assert worker["healthcheck"]["test"][-5:] == [
        str(options["port"]),
        *("-aet", options["allow"][0], "-aec", options["aet"]),
    ]
    assert str(options["output"]).startswith("runs/")
    assert worker["volumes"] == ["worker:/app/runs"]


def test_monai_label_gets_options_that_it_has() -> None:
    label = COMPOSE["services"]["label"]
    options = parsed(["msrf-monai", "label", "--host", "0.0.0.0", *label["command"]])

    assert options["studies"] == "http://orthanc:8042/dicom-web"
    assert label["volumes"] == [f"label-app:{options['app_dir']}"]


def test_no_password_is_written_anywhere() -> None:
    orthanc = json.loads((FOLDER / "orthanc.json").read_text())

    assert orthanc["AuthenticationEnabled"] is True
    assert set(orthanc["RegisteredUsers"].values()) == {"${ORTHANC_PASSWORD}"}
    given = [value for name in SERVICES for value in COMPOSE["services"][name].get("environment", {}).items()]
    assert all(value.startswith("${ORTHANC_PASSWORD:?") for name, value in given if "PASSWORD" in name)


def test_the_ray_job_asks_for_what_its_cluster_has() -> None:
    spec = RAY_JOB["spec"]
    options = parsed(shlex.split(spec["entrypoint"]))
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]

    assert (options["engine"], options["ray_address"], options["resume"]) == ("ray", "auto", True)
    assert options["num_workers"] == group["replicas"]
    assert str(options["threads"]) == group["rayStartParams"]["num-cpus"]
    for template in (group["template"], spec["rayClusterSpec"]["headGroupSpec"]["template"]):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"]["cpu"] == "2"
        (mount,) = container["volumeMounts"]
        assert str(options["output"]).startswith(mount["mountPath"])
        assert options["inputs"][0].startswith(mount["mountPath"])
