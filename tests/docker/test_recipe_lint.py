"""What programs of others say of the container and cluster recipes: nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "docker"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))
COMPOSE = sorted(FOLDER.glob("compose*.yaml"))
KUBERAY = sorted(FOLDER.glob("kuberay/*.yaml"))
SCRIPTS = sorted(FOLDER.glob("slurm/*.sh"))


def name_of(path: Path) -> str:
    return path.name


def lint(program: str, *words: str | Path) -> str:
    """Return what a program of the extra ``dev`` complains of."""
    found = Path(sys.executable).with_name(program)
    done = subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_hadolint_has_nothing_to_say_of_a_dockerfile(path: Path) -> None:
    assert lint("hadolint", "--no-color", path) == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_shellcheck_has_nothing_to_say_of_a_script(path: Path) -> None:
    assert lint("shellcheck", path) == ""


@pytest.mark.parametrize("path", [*COMPOSE, *KUBERAY], ids=name_of)
def test_yamllint_has_nothing_to_say_of_a_file(path: Path) -> None:
    assert lint("yamllint", "--strict", "--config-file", FOLDER / ".yamllint", path) == ""


@pytest.mark.parametrize("path", COMPOSE, ids=name_of)
def test_a_compose_file_fits_the_schema_of_compose(path: Path) -> None:
    assert lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path) == ""


def kubernetes_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what is Kubernetes' own: whole objects, and the templates of pods within Ray's."""
    for number, content in enumerate(yaml.safe_load_all(path.read_text())):
        if content["apiVersion"].startswith("ray.io/"):
            cluster = content["spec"]["rayClusterSpec"]
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            for index, group in enumerate(groups):
                yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{index}"}, **group["template"]}
        else:
            yield {**content, "metadata": {"name": f"o{number}", **content["metadata"]}}


@pytest.mark.parametrize("path", KUBERAY, ids=name_of)
def test_objects_and_pods_fit_the_schemas_of_kubernetes(path: Path, tmp_path: Path) -> None:
    files = []
    for index, content in enumerate(kubernetes_objects(path)):
        files.append(tmp_path / f"{index}.yaml")
        files[-1].write_text(yaml.safe_dump(content))

    assert len(files) == {"predict.yaml": 2, "volume.yaml": 1}[path.name]
    assert lint("kubernetes-validate", "--strict", "--quiet", *files) == ""
