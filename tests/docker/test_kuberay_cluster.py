"""The job of kuberay/predict.yaml on containers that are started as KubeRay starts its pods, without Kubernetes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.clinical_runs import entries_of, save_picture
from support.docker_engine import Engine, wait_until

pytestmark = pytest.mark.extended

FOLDER = Path(__file__).resolve().parents[2] / "docker"
JOB: dict[str, Any] = yaml.safe_load((FOLDER / "kuberay" / "predict.yaml").read_text())["spec"]
CLUSTER = JOB["rayClusterSpec"]
WORKERS = 2
COUNT = 6
CONFINED = ("--user", "1000:1000", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--shm-size", "1g")
# what KubeRay's probes ask every pod
PROBE = "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"


def start(engine: Engine, name: str, data: Path, group: dict[str, Any], *first: str) -> None:
    """Start a container as the operator starts a pod of a group."""
    (pod,) = group["template"]["spec"]["containers"]
    (mount,) = pod["volumeMounts"]
    variables = [word for each in pod["env"] for word in ("--env", f"{each['name']}={each['value']}")]
    place = ["--name", name, "--network", "ray-pods", "--volume", f"{data}:{mount['mountPath']}"]
    given = [f"--{key}={value}" for key, value in group["rayStartParams"].items()]
    command = ["ray", "start", *first, *given, "--block", "--dashboard-agent-listen-port=52365"]
    engine.run("run", "--detach", *CONFINED, *place, *variables, f"localhost/{pod['image']}", *command)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(COUNT):
        save_picture(tmp_path / "data" / "images" / f"eye{index}.png", index, size=(80, 96))
    (tmp_path / "data").chmod(0o777)
    return tmp_path / "data"


@pytest.fixture
def cluster(built_for_ray: Engine, data: Path) -> Iterator[Engine]:
    built = built_for_ray
    built.run("network", "create", "--internal", "ray-pods")
    (group,) = CLUSTER["workerGroupSpecs"]
    start(built, "ray-head", data, CLUSTER["headGroupSpec"], "--head")
    names = ["ray-head"]
    wait_until(lambda: _answers(built, "ray-head"), 180, lambda: built.logs("ray-head"))
    for index in range(WORKERS):
        names.append(f"ray-worker-{index}")
        start(built, names[-1], data, group, "--address=ray-head:6379")
        wait_until(lambda: _answers(built, names[-1]), 180, lambda: built.logs(names[-1]))
    yield built
    built.run("rm", "--force", "--time", "1", *names, check=False)
    built.run("network", "rm", "ray-pods", check=False)


def _answers(engine: Engine, name: str) -> bool:
    return engine.run("exec", name, "bash", "-c", PROBE, check=False).returncode == 0


def test_the_job_runs_on_the_workers_and_again_where_it_stopped(cluster: Engine, data: Path) -> None:
    entrypoint = JOB["entrypoint"].replace("--num-workers 4", f"--num-workers {WORKERS}")
    submit = ["exec", "ray-head", "ray", "job", "submit", "--address", "http://ray-head:8265", "--"]

    cluster.run(*submit, *shlex.split(entrypoint), check=False)
    first = (data / "results" / "manifest.jsonl").read_bytes()
    actors = cluster.run("exec", "ray-head", "ray", "list", "actors", "--format", "json").stdout
    cluster.run(*submit, *shlex.split(entrypoint), check=False)

    assert {name: entry.state for name, entry in entries_of(data / "results").items()} == {
        f"eye{index}.png": "done" for index in range(COUNT)
    }
    assert (data / "results" / "manifest.jsonl").read_bytes() == first  # the second time all was done
    places = [each["node_id"] for each in json.loads(actors) if each["class_name"] == "WorkerActor"]
    assert len(places) == len(set(places)) == WORKERS
