"""Runs by Ray: actors of a real Ray on this computer give the files of a run in one process, and may be killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from msrf_monai.clinical.crashes import CRASHED
from msrf_monai.clinical.execution import ray_workers
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.errors import ConfigError, EngineError
from support.clinical_runs import good_pictures, result_bytes, save_picture
from support.clinical_workers import PROGRAM, StubActor, light_inputs, load, stub_bundle
from support.worker_killer import MARK, WorkerKiller, ray_actors

TESTS = Path(__file__).resolve().parents[2]
OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray on this computer, started once for this file; runs find it and leave it as it is. Yields its mark."""
    mark = str(tmp_path_factory.mktemp("cluster"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(MARK, mark)
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        yield mark
        ray.shutdown()


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
    monkeypatch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
    monkeypatch.setattr(ray_workers, "ACTOR", StubActor)


def lines(output: Path) -> dict[str, Any]:
    """Return what a manifest says, without the seconds."""
    return {entry.folder: {**vars(entry), "timings": None} for entry in read_manifest(output).entries}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_give_the_files_of_one_process(tmp_path: Path) -> None:
    inputs, bundle = good_pictures(tmp_path / "in", 12), stub_bundle(tmp_path / "bundle")
    (inputs / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")

    here = predict(bundle, inputs, tmp_path / "here", **OPTIONS)
    there = predict(bundle, inputs, tmp_path / "there", engine="ray", num_workers=2, **OPTIONS)

    assert there == here
    assert (there.done, there.failed) == (12, 1)
    assert result_bytes(tmp_path / "there") == result_bytes(tmp_path / "here")
    assert lines(tmp_path / "there") == lines(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_either_engine_goes_on_where_the_other_stopped(tmp_path: Path) -> None:
    inputs, bundle = light_inputs(tmp_path / "in", 6), stub_bundle(tmp_path / "bundle")
    predict(bundle, inputs, tmp_path / "out", part=(1, 2), **OPTIONS)
    first = len(read_manifest(tmp_path / "out").entries)

    result = predict(bundle, inputs, tmp_path / "out", engine="ray", resume=True, **OPTIONS)

    assert 0 < first < 6
    assert (result.done, result.kept) == (6, first)
    again = predict(bundle, inputs, tmp_path / "out", resume=True, **OPTIONS)
    assert again.kept == 6


def kill_actors(cluster: str, folder: Path, seed: int, kills: int) -> None:
    inputs = light_inputs(folder / "in", 40)
    slow, fast = stub_bundle(folder / "slow", seconds=0.1), stub_bundle(folder / "fast")
    generator = random.Random(seed)
    # even when two that are dead have told of all that they had in work, enough is left for others
    moments = set(generator.sample(range(1, 20), kills))
    alive = partial(ray_actors, cluster)
    # the oldest has loaded by then
    killer = WorkerKiller(moments, alive, lambda alive, _: alive[0], generator)

    result = predict(slow, inputs, folder / "out", engine="ray", num_workers=2, observer=killer, **OPTIONS)
    predict(fast, inputs, folder / "undisturbed", **OPTIONS)

    assert len(killer.killed) == kills
    assert (result.done, result.failed) == (40, 0)
    found = (folder / "out" / "manifest.jsonl").read_text().splitlines()[1:]
    assert len({json.loads(line)["folder"] for line in found}) == len(found) == 40
    assert result_bytes(folder / "out") == result_bytes(folder / "undisturbed")


@pytest.mark.slow
def test_three_killed_actors_lose_and_double_nothing(cluster: str, tmp_path: Path) -> None:
    kill_actors(cluster, tmp_path, seed=5, kills=3)


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(5))
def test_five_times_four_killed_actors_lose_and_double_nothing(cluster: str, tmp_path: Path, seed: int) -> None:
    kill_actors(cluster, tmp_path, seed=seed, kills=4)


@pytest.mark.extended
@pytest.mark.usefixtures("cluster")
def test_an_input_that_brings_actors_down_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    inputs = good_pictures(tmp_path / "in", 4)
    bundle = stub_bundle(tmp_path / "bundle", die_rows=77)
    save_picture(inputs / "poison.png", size=(77, 31))

    result = predict(bundle, inputs, tmp_path / "out", engine="ray", num_workers=1, **OPTIONS)

    assert (result.done, result.failed) == (4, 1)
    (failed,) = [each for each in read_manifest(tmp_path / "out").entries if each.state == "failed"]
    assert (failed.input, failed.code) == ("poison.png", CRASHED[0])


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_error_that_ends_a_worker_ends_the_run_in_its_words(tmp_path: Path) -> None:
    bundle = stub_bundle(tmp_path / "bundle", fails=["CheckpointError", "the weights are not those of the bundle"])

    with pytest.raises(Exception, match="the weights are not those of the bundle"):
        predict(bundle, good_pictures(tmp_path / "in", 1), tmp_path / "out", engine="ray", num_workers=1, **OPTIONS)


@pytest.mark.extended
def test_a_run_starts_ray_by_itself_and_ends_it(tmp_path: Path) -> None:
    inputs, bundle = good_pictures(tmp_path / "in", 2), stub_bundle(tmp_path / "bundle")
    options = {"outputs": ["mask"], "report": False, "engine": "ray", "num_workers": 2, "num_threads": 1}
    line = [sys.executable, "-m", "support.clinical_workers", str(bundle), str(inputs), str(tmp_path / "out")]

    done = subprocess.run(
        [*line, json.dumps({**options, "outputs": ("mask",)})],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["done"] == 2
    assert not any(str(tmp_path) in text for text in (done.stderr,))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no address"], ids=["gone", "client", "none"])
def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path, address: str) -> None:
    if ray.is_initialized():
        ray.shutdown()

    with pytest.raises(EngineError, match="Ray cannot be used at"):
        predict(stub_bundle(tmp_path / "b"), tmp_path, tmp_path / "out", engine="ray", ray_address=address, **OPTIONS)


def test_threads_of_an_actor_fit_on_one_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four computers of 8 processors: one worker cannot have 32 of them."""
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0 * (number < 2)}} for number in range(4)]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])

    plain, on_gpus = ray_workers.RayCluster(), ray_workers.RayCluster(on_gpus=True)

    assert [plain.threads(count) for count in (1, 2, 5, 8, 9, 100)] == [8, 8, 4, 4, 2, 1]
    assert (plain.count(0), plain.count(3)) == (4, 3)
    assert [on_gpus.threads(count) for count in (1, 4)] == [8, 4]
    assert on_gpus.count(0) == 4
    with pytest.raises(ConfigError, match="uses Ray already"):
        ray_workers.RayCluster("127.0.0.1:6379")


@pytest.mark.parametrize(
    ("processors", "count", "threads"), [((8, 8), 3, 4), ((16, 4), 2, 8), ((0, 6), 1, 6), ((3, 3), 2, 3)]
)
def test_all_actors_have_room_at_once(
    monkeypatch: pytest.MonkeyPatch, processors: tuple[int, ...], count: int, threads: int
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": float(number)} if number else {}} for number in processors]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)

    cluster = ray_workers.RayCluster()

    assert cluster.threads(count) == threads
    assert cluster.count(0) == sum(number > 0 for number in processors)


def test_it_is_told_that_some_wait_for_room_while_others_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Talker:
        def __init__(self, is_ready: bool) -> None:
            self.is_ready = is_ready

        def has_news(self) -> bool:
            return self.is_ready

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", list)
    now = [0.0]
    monkeypatch.setattr(ray_workers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    cluster, workers = ray_workers.RayCluster(), [Talker(True), Talker(False)]

    for moment in range(0, 200, 10):
        now[0] = moment
        assert cluster.with_news(workers) == workers[:1]

    assert caplog.messages == ["1 of 2 workers still wait for room in the cluster, or load"] * 3


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected local or ray"):
        RunOptions(engine="slurm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="goes with the engine ray"):
        RunOptions(ray_address="auto")
