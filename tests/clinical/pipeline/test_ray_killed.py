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
from collections.abc import Callable, Iterator
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
from support.worker_killer import ray_actors

TESTS = Path(support.clinical_workers.__file__).parents[1]
INPUTS = 16
OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}
MARK = "MSRF_TEST_OF_KILLS"
"""A variable that all processes which a run starts inherit, however far down."""


@dataclass(frozen=True)
class Work:
    """Inputs, one of them bad, a slow bundle, and the results of an undisturbed run in one process."""

    folder: Path
    address: str

    def begin(self, output: Path, mark: str, **options: Any) -> subprocess.Popen[str]:
        """Begin a run in a process of its own."""
        given = {**OPTIONS, "engine": "ray", "num_workers": 2, "num_threads": 1, "resume": True, **options}
        script = str(support.clinical_workers.__file__)
        command = [sys.executable, script, str(self.folder / "slow"), str(self.folder / "in"), str(output)]
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
    # so slow that a signal comes in time
    stub_bundle(folder / "slow", seconds=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
        patch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        predict(stub_bundle(folder / "fast"), folder / "in", folder / "undisturbed", **OPTIONS)
        found = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        yield Work(folder, found.address_info["gcs_address"])
        ray.shutdown()


def marked(mark: str) -> list[str]:
    """Return the processes that a run has started, and itself, as far as they are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def left(found: Callable[[], list[Any]]) -> list[Any]:
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


def kill_after(run: subprocess.Popen[str], output: Path, lines: int, seconds: float) -> bool:
    """Kill a run when so many lines are in its manifest and a moment has gone by; return whether it was still there."""
    while run.poll() is None and len(lines_of(output)) < lines:
        time.sleep(0.002)
    time.sleep(seconds)
    was_there = run.poll() is None
    run.kill()
    run.communicate()
    return was_there


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
        mark = f"{output}-{number}"
        done_before = len(lines_of(output))
        run = work.begin(output, mark, num_workers=actors_each, **options)
        # at least one input more than before, so that kills come at different moments of the work
        assert kill_after(run, output, max(least, done_before + (number > 0)), generator.random() / 10)
        assert run.returncode == -signal.SIGKILL
        assert left(partial(marked, mark)) == []
    assert left(ray_actors) == []
    run = work.begin(output, f"{output}-last", **options)
    said, complaint = run.communicate(timeout=300)
    assert run.returncode == 0, complaint
    found = json.loads(said.splitlines()[-1])
    assert (found["done"], found["failed"]) == (INPUTS - 1, 1)
    assert left(partial(marked, f"{output}-last")) == []
    assert left(ray_actors) == []
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
