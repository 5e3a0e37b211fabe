"""``msrf-monai label`` up to the moment at which MONAI Label takes over."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from msrf_monai.cli import label as command
from msrf_monai.errors import ConfigError, DataError, MissingExtraError, MsrfError
from msrf_monai.label.environment import Environment
from msrf_monai.label.launch import launch_of, warnings_of
from msrf_monai.label.options import LabelOptions
from support.orthanc import free_port

VESSEL = "imff_net_retinal_vessel_segmentation"
POLYP = "msrf_net_polyp_segmentation"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, and a MONAI Label that can be found but is never imported."""
    (tmp_path / "installed" / "monailabel").mkdir(parents=True)
    (tmp_path / "installed" / "monailabel" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.delenv("MSRF_LABEL_ENV", raising=False)
    # what the command sets in this process is taken back with it
    monkeypatch.setenv("MSRF_LABEL_GONE_ON", "")
    (tmp_path / "images").mkdir()
    return tmp_path


def run(*arguments: str | Path) -> str:
    """Run the command; raise what it raises."""
    result = CliRunner().invoke(command.app, [str(each) for each in arguments])
    if isinstance(result.exception, MsrfError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def options(here: Path, **more: Any) -> LabelOptions:
    bundle = here / "bundles" / POLYP
    return LabelOptions(studies=str(here / "images"), bundles=(bundle,), port=free_port(), app_dir=here / "app", **more)


def test_the_dry_run_prints_the_plain_command_and_makes_nothing(here):
    port = str(free_port())

    line = run(
        "--studies", here / "images", "--bundles", VESSEL, "--app-dir", here / "app", "--port", port, "--dry-run"
    )

    words = shlex.split(line)
    assert words[0] == "env"
    assert words[words.index("-m") : words.index("-m") + 3] == ["-m", "monailabel.main", "start_server"]
    for name, value in (("--studies", str(here / "images")), ("--host", "127.0.0.1"), ("--port", port)):
        assert words[words.index(name) + 1] == value
    conf = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "--conf"}
    assert conf == {"models": VESSEL, "zoo_source": "local", "sam2": "false"}
    assert "MONAI_LABEL_DICOMWEB_SEARCH_FILTER={}" in words
    assert not (here / "app").exists()


def test_all_bundles_are_served_unless_some_are_named(here):
    line = run("--studies", here / "images", "--port", str(free_port()), "--dry-run")

    models = next(word for word in shlex.split(line) if VESSEL in word)
    assert len(models.split(",")) == 4


def test_programs_of_the_app_and_of_the_environment_come_first(here):
    launch = launch_of(options(here), Environment("/opt/env"))

    path = launch.environment()["PATH"].split(os.pathsep)
    assert path[:2] == [str(here / "app" / "bin"), "/opt/env/bin"]
    assert path[2:] == os.environ["PATH"].split(os.pathsep)


def test_files_of_every_usual_kind_are_listed(here):
    endings = json.loads(launch_of(options(here), Environment("/opt/env")).variables["MONAI_LABEL_DATASTORE_FILE_EXT"])

    assert {"*.png", "*.jpeg", "*.JPG", "*.bmp", "*.dcm", "*.nii.gz", "*.tif"} <= set(endings)


def test_variables_of_the_user_and_the_number_of_threads_count(here, monkeypatch):
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_SEARCH_FILTER", '{"Modality": "OP"}')
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    assert launch_of(options(here), Environment("/e")).variables["OMP_NUM_THREADS"] == "7"
    variables = launch_of(options(here, threads=2), Environment("/e")).variables
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] == '{"Modality": "OP"}'


def test_the_bundle_that_ranks_images_is_named(here):
    launch = launch_of(options(here, epistemic=POLYP), Environment("/e"))

    assert launch.command[-3:] == ("--conf", "epistemic_model", POLYP)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "annotation-server"])
def test_an_address_that_others_reach_is_warned_about(here, monkeypatch, host):
    monkeypatch.delenv("MONAI_LABEL_AUTH_ENABLE", raising=False)

    (warning,) = warnings_of(options(here, host=host))

    assert host in warning
    assert "without asking" in warning
    assert "archive" not in warning


def test_an_archive_that_others_reach_through_the_server_is_warned_about(here, monkeypatch):
    monkeypatch.delenv("MONAI_LABEL_AUTH_ENABLE", raising=False)
    remote = replace(options(here, host="0.0.0.0"), studies="http://127.0.0.1:8042/dicom-web")

    (warning,) = warnings_of(remote)

    assert "everything in the archive" in warning


def test_authentication_that_refuses_everybody_is_warned_about(here, monkeypatch):
    monkeypatch.setenv("MONAI_LABEL_AUTH_ENABLE", "true")

    (warning,) = warnings_of(options(here))

    assert "refuses everybody" in warning


def test_a_password_in_the_address_is_refused_and_not_repeated(here):
    with pytest.raises(ConfigError, match="MONAI_LABEL_DICOMWEB_PASSWORD") as caught:
        run("--studies", "https://anna:secret@pacs.example/dicom-web", "--port", str(free_port()), "--dry-run")

    assert "secret" not in str(caught.value)
    assert "anna" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_an_address_of_this_computer_is_not(here, host):
    assert warnings_of(options(here, host=host)) == []


def test_a_missing_folder_of_images_is_refused(here):
    with pytest.raises(DataError, match=r"no folder of images at .*nowhere"):
        run("--studies", here / "nowhere", "--dry-run")


def test_nothing_to_label_is_refused(here):
    with pytest.raises(ConfigError, match="--studies"):
        run("--dry-run")


def test_a_port_that_is_taken_is_refused(here):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            run("--studies", here / "images", "--port", str(port), "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bundles", "lung_net"], "lung_net is no bundle"),
        (["--bundles", f"{VESSEL},{VESSEL}"], "two bundles are called"),
        (["--bundles", " , "], "no bundle was found"),
        (["--epistemic", "lung_net"], "lung_net is none of the bundles"),
        (["--weights", "lung_net=model.pt"], "lung_net is none of the bundles"),
        (["--weights", "model.pt"], "BUNDLE=FILE"),
        (["--environment", "no_such_folder"], "no_such_folder is no environment"),
    ],
    ids=["unknown", "twice", "none", "ranking", "weights", "pair", "environment"],
)
def test_what_cannot_be_meant_is_refused(here, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run("--studies", here / "images", "--port", str(free_port()), *arguments, "--dry-run")


def test_without_monai_label_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MSRF_LABEL_ENV", raising=False)
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _: None)

    with pytest.raises(MissingExtraError, match="--make-environment"):
        run("--studies", tmp_path)


def test_another_environment_takes_over(here, monkeypatch):
    python = here / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    called: list[list[str]] = []

    def take_over(program, arguments):
        called.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(command.os, "execv", take_over)
    monkeypatch.setattr(sys, "argv", ["msrf-monai", "label", "--studies", "x"])

    run("--studies", here / "images", "--environment", here / "env")

    assert called == [[str(python), "-m", "msrf_monai.cli.main", "label", "--studies", "x"]]

    # the process that took over finds itself outside that folder: its Python is a link to another environment's
    with pytest.raises(ConfigError, match="no environment of its own"):
        run("--studies", here / "images", "--environment", here / "env")
    assert len(called) == 1


def test_an_environment_is_made_and_named(here, monkeypatch):
    made = Environment(here / "env")
    monkeypatch.setattr(command, "make_environment", lambda folder, torch_index: made)

    said = run("--make-environment", here / "env")

    assert str(here / "env" / "bin" / "msrf-monai") in said.replace("\n", "")
