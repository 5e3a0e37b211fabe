"""The images, built by Podman from their Dockerfiles: they run without rights, without network, on a read-only root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.clinical_runs import entries_of, save_picture
from support.docker_engine import Engine, wait_until

pytestmark = pytest.mark.extended

BUNDLE = "bundles/imff_net_retinal_vessel_segmentation"
CONFINED = ("--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
SCRATCH = ("--tmpfs", "/tmp", "--tmpfs", "/app/.home")
IMAGE = "localhost/msrf-monai:0.1.0"


@pytest.mark.parametrize("name", ["msrf-monai", "msrf-monai-label", "msrf-monai-orthanc", "msrf-monai-ray"])
def test_an_image_has_a_user_without_rights_and_a_health_check(built: Engine, name: str) -> None:
    (found,) = json.loads(built.run("inspect", "--type", "image", f"localhost/{name}:0.1.0").stdout)

    assert found["Config"]["User"] == "1000:1000"
    assert found["Healthcheck"]["Test"][0] == "CMD"
    kept = [line for line in found["Config"]["Env"] if any(word in line for word in ("PASSWORD", "TOKEN", "KEY"))]
    assert kept == []


@pytest.mark.parametrize("user", ["1000:1000", "4711:4711"])
def test_one_picture_is_predicted_by_any_user_without_network(built: Engine, tmp_path: Path, user: str) -> None:
    save_picture(tmp_path / "data" / "eye.png", size=(96, 80))
    (tmp_path / "runs").mkdir(mode=0o777)
    (tmp_path / "runs").chmod(0o777)
    mounts = ["--volume", f"{tmp_path}/data:/app/data:ro", "--volume", f"{tmp_path}/runs:/app/runs"]
    words = ["msrf-monai", "predict", BUNDLE, "data", "--output", "runs/first", "--threads", "1", "--quiet"]

    done = built.run("run", "--rm", *CONFINED, *SCRATCH, "--user", user, *mounts, IMAGE, *words, check=False)

    assert done.returncode in (0, 3), done.stderr  # 3: flagged, since a drawing is no eye
    assert [entry.state for entry in entries_of(tmp_path / "runs" / "first").values()] == ["done"]
    assert {path.stat().st_uid for path in (tmp_path / "runs" / "first").rglob("*")} == {int(user.split(":")[0])}


def test_the_command_by_itself_is_the_help_and_the_bundles_are_there(built: Engine) -> None:
    shown = built.run("run", "--rm", *CONFINED, *SCRATCH, IMAGE).stdout
    found = json.loads(built.run("run", "--rm", *CONFINED, *SCRATCH, IMAGE, "msrf-monai", "info", "--json").stdout)

    assert "predict" in shown
    assert "listen" in shown
    assert len(found["bundles"]) == 4


def test_a_job_is_healthy_and_one_whose_bundles_are_damaged_is_not(built: Engine, tmp_path: Path) -> None:
    damaged = tmp_path / "bundles" / "damaged" / "configs" / "metadata.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    for name, mounts in (("whole", []), ("damaged", ["--volume", f"{tmp_path}/bundles:/app/bundles:ro"])):
        built.run("run", "--detach", "--name", name, *CONFINED, *SCRATCH, *mounts, IMAGE, "sleep", "300")

    health = {name: built.is_healthy(name) for name in ("whole", "damaged")}

    assert health == {"whole": True, "damaged": False}


def test_no_programs_that_compile_stay_in_the_image_of_monai_label(built: Engine) -> None:
    image = "localhost/msrf-monai-label:0.1.0"
    found = built.run("run", "--rm", *CONFINED, "--entrypoint", "sh", image, "-c", "command -v gcc make; id -u").stdout

    assert found.split() == ["1000"]


def test_monai_label_serves_a_folder_of_images(built: Engine, tmp_path: Path) -> None:
    save_picture(tmp_path / "images" / "eye.png", size=(96, 80))
    (tmp_path / "images").chmod(0o777)
    mounts = ["--volume", f"{tmp_path}/images:/app/images", "--volume", "of-one-test:/app/label-app"]
    name = "label-alone"
    built.run("run", "--detach", "--name", name, *CONFINED, *SCRATCH, *mounts, "localhost/msrf-monai-label:0.1.0")

    wait_until(lambda: built.is_healthy(name), 300, lambda: built.logs(name))

    ask = "import sys, urllib.request as u; sys.stdout.write(u.urlopen('http://127.0.0.1:8000/info/').read().decode())"
    told = json.loads(built.run("exec", name, "python", "-c", ask).stdout)
    assert list(told["models"]) == ["imff_net_retinal_vessel_segmentation"]
    assert told["datastore"]["total"] == 1
