"""The run itself killed with ``kill -9`` while actors work, and gone on with: nothing lost, doubled or left over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

import support.clinical_workers
from msrf_monai.clinical.ledger import MANIFEST
from msrf_monai.clinical.pipeline import predict
from support.clinical_runs import result_bytes
from support.clinical_workers import light_inputs, load, stub_bundle
from support.worker_killer import MARK, marked, ray_actors

TESTS = Path(support.clinical_workers.__file__).parents[1]
INPUTS = 16
OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}
LAST = f"{INPUTS - 2:04}.dcm"
"""Behind it only the bad input comes. It is never done while runs are killed, so that none of them comes to its end."""


@dataclass(frozen=True)
class Work:
    """Inputs, one of them bad, bundles, and the results of an undisturbed run in one process.

    All that is started here has a mark that begins with the folder.
    """

    folder: Path
    address: str

    def begin(self, output: Path, mark: str, bundle: str = "endless", **options: Any) -> subprocess.Popen[str]:
        """Begin a run in a process of its own."""
        given = {**OPTIONS, "engine": "ray", "num_workers": 2, "num_threads": 1, "resume": True, **options}
        script = str(support.clinical_workers.__file__)
        command = [sys.executable, script, str(self.folder / bundle), str(self.folder / "in"), str(output)]
        environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", MARK: mark}
        return subprocess.Popen(
            [*command, json.dumps(given)],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Inputs and results, and a Ray that stays: runs find it by its address."""
    folder = tmp_path_factory.mktemp("killed")
    (light_inputs(folder / "in", INPUTS - 1) / "bad.dcm").write_bytes(b"no DICOM")
    stub_bundle(folder / "endless", seconds=0.1, endless=LAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
        patch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(MARK, str(folder))
        predict(stub_bundle(folder / "fast"), folder / "in", folder / "undisturbed", **OPTIONS)
        found = ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
        )
        yield Work(folder, found.address_info["gcs_address"])
        ray.shutdown()


def left(found: Callable[[], Collection[Any]]) -> Collection[Any]:
    """Return the processes that do not end by themselves.

    Ray needs a moment to hear of the end of a run. What it was just about to start looks for it for a minute.
    """
    until = time.monotonic() + 180
    while (there := found()) and time.monotonic() < until:
        time.sleep(0.05)
    return there


def lines_of(output: Path) -> list[dict[str, Any]]:
    path = output / MANIFEST
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()[1:]]


def kill_after(run: subprocess.Popen[str], output: Path, lines: int, seconds: float) -> None:
    """Kill a run when so many lines are in its manifest and a moment has gone by."""
    while run.poll() is None and len(lines_of(output)) < lines:
        time.sleep(0.002)
    time.sleep(seconds)
    run.kill()
    _, complaint = run.communicate()
    assert run.returncode == -signal.SIGKILL, complaint


def assert_nothing_is_lost_or_doubled(work: Work, output: Path) -> None:
    expected = work.folder / "undisturbed"
    counted = Counter(line["folder"] for line in lines_of(output))
    assert set(counted.values()) == {1}
    assert len(counted) == INPUTS
    assert result_bytes(output) == result_bytes(expected)
    assert {path.name for path in output.iterdir()} == {path.name for path in expected.iterdir()}


def killed_and_gone_on_with(
    work: Work, output: Path, seed: int, kills: int, *, actors_each: int = 2, **options: Any
) -> None:
    """Kill a run again and again, each time a little later, then let it end."""
    generator = random.Random(seed)
    for number, least in enumerate(sorted(generator.sample(range(INPUTS - 3), kills))):
        mark = f"{work.folder}{output}-{number}"
        done_before = len(lines_of(output))
        run = work.begin(output, mark, num_workers=actors_each, **options)
        # at least one input more than before, so that kills come at different moments of the work
        lines = min(max(least, done_before + (number > 0)), INPUTS - 2)
        kill_after(run, output, lines, generator.random() / 10)
        assert not left(partial(marked, mark))
    assert not left(partial(ray_actors, str(work.folder)))
    mark = f"{work.folder}{output}-last"
    run = work.begin(output, mark, bundle="fast", **options)
    said, complaint = run.communicate(timeout=300)
    assert run.returncode == 0, complaint
    found = json.loads(said.splitlines()[-1])
    assert (found["done"], found["failed"]) == (INPUTS - 1, 1)
    assert not left(partial(marked, mark))
    assert not left(partial(ray_actors, str(work.folder)))
    assert_nothing_is_lost_or_doubled(work, output)


@pytest.mark.slow
def test_a_run_killed_three_times_loses_and_doubles_nothing(work: Work, tmp_path: Path) -> None:
    """In a cluster that stays: Ray ends the actors of a run that is gone."""
    killed_and_gone_on_with(work, tmp_path / "out", seed=3, kills=3, actors_each=1, ray_address=work.address)


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_five_times_four_times_loses_and_doubles_nothing(work: Work, tmp_path: Path, seed: int) -> None:
    killed_and_gone_on_with(work, tmp_path / "out", seed=seed, kills=4, ray_address=work.address)


@pytest.mark.extended
def test_a_killed_run_takes_the_ray_along_that_it_has_started(work: Work, tmp_path: Path) -> None:
    """Ray's own processes carry the mark of the run that has started them, and none of them stays."""
    ray.shutdown()

    killed_and_gone_on_with(work, tmp_path / "out", seed=1, kills=2)
