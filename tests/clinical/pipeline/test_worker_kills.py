"""``kill -9`` of a worker or of the run itself at any moment: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import support.clinical_workers
from msrf_monai.clinical.ledger import MANIFEST, read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.run_options import RunResult
from support.clinical_runs import result_bytes
from support.clinical_workers import PROGRAM, children, load, stub_bundle
from support.dicom_files import as_bytes, image_dataset, pattern
from support.worker_killer import WorkerKiller

INPUTS = 44
OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, one of them bad, a bundle, and the results of an undisturbed run in one process."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "in").mkdir()
    for number in range(INPUTS - 1):
        dataset = image_dataset(pattern(20, 30, peak=120 + number), InstanceNumber=number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (folder / "in" / f"{number}.dcm").write_bytes(as_bytes(dataset))
    (folder / "in" / "bad.dcm").write_bytes(b"no DICOM")
    stub_bundle(folder / "bundle", seconds=0.02)
    stub_bundle(folder / "endless", seconds=0.02, endless="9.dcm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
        predict(folder / "bundle", folder / "in", folder / "undisturbed", **OPTIONS)
    return folder


def killed_run(work: Path, output: Path, seed: int, kills: int, **options: Any) -> tuple[RunResult, WorkerKiller]:
    generator = random.Random(seed)
    # even when two that are dead have told of all that they had in work, enough is left for others
    moments = set(generator.sample(range(1, INPUTS - 20), kills))
    killer = WorkerKiller(moments, children, lambda alive, chance: chance.choice(alive), generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
        found = predict(work / "bundle", work / "in", output, observer=killer, num_workers=2, **OPTIONS, **options)
    return found, killer


def assert_nothing_is_lost_or_doubled(work: Path, output: Path) -> None:
    assert result_bytes(output) == result_bytes(work / "undisturbed")
    lines = [json.loads(line) for line in (output / MANIFEST).read_bytes().splitlines()]
    counted = Counter(line["folder"] for line in lines[1:])
    assert set(counted.values()) == {1}
    assert len(counted) == INPUTS
    assert {path.name for path in output.iterdir()} == {path.name for path in (work / "undisturbed").iterdir()}
    assert children() == []


def test_workers_killed_at_three_moments_lose_and_double_nothing(work: Path, tmp_path: Path) -> None:
    found, killer = killed_run(work, tmp_path / "out", seed=5, kills=3)

    assert len(killer.killed) == 3
    assert (found.done, found.failed) == (INPUTS - 1, 1)
    assert_nothing_is_lost_or_doubled(work, tmp_path / "out")


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(20))
def test_workers_killed_at_twenty_times_three_moments(work: Path, tmp_path: Path, seed: int) -> None:
    found, killer = killed_run(work, tmp_path / "out", seed=seed, kills=3)

    assert len(killer.killed) == 3
    assert (found.done, found.failed) == (INPUTS - 1, 1)
    assert_nothing_is_lost_or_doubled(work, tmp_path / "out")


def begun(work: Path, output: Path) -> subprocess.Popen[str]:
    """Begin a run in a process of its own."""
    script = Path(support.clinical_workers.__file__)
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    options = json.dumps({**OPTIONS, "num_workers": 2, "resume": True})
    command = [sys.executable, str(script), str(work / "endless"), str(work / "in"), str(output), options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(output: Path, count: int, run: subprocess.Popen[str]) -> None:
    path = output / MANIFEST
    while run.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > count):
        time.sleep(0.005)


def wait_until_gone(processes: list[int]) -> bool:
    """Return whether processes end by themselves, which takes them no time worth mentioning."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not any(is_alive(process) for process in processes):
            return True
        time.sleep(0.02)
    return False


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "terminate"])
def test_workers_end_with_the_run_and_another_run_goes_on(work: Path, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "out"
    run = begun(work, output)
    wait_for_lines(output, 6, run)
    workers = children(run.pid)
    os.kill(run.pid, number)
    run.communicate()

    assert run.returncode == -number
    assert workers
    assert wait_until_gone(workers)
    before = {entry.folder for entry in read_manifest(output).entries}
    assert 6 <= len(before) < INPUTS
    found, _ = killed_run(work, output, seed=1, kills=0, resume=True)
    assert (found.done, found.failed, found.kept) == (INPUTS - 1, 1, len(before))
    assert_nothing_is_lost_or_doubled(work, output)


def test_a_run_that_is_told_to_end_takes_its_workers_along(work: Path, tmp_path: Path) -> None:
    """By the command, which turns the signal into an error, as Ctrl-C does by itself."""
    output = tmp_path / "out"
    program = "from support.clinical_workers import use_stubs\nuse_stubs()\n"
    program += "from msrf_monai.cli.main import main\nmain()\n"
    words = ["predict", str(work / "endless"), str(work / "in"), "--output", str(output), "--outputs", "mask,stats"]
    environment = {**os.environ, "PYTHONPATH": str(Path(support.clinical_workers.__file__).parents[1])}
    command = [sys.executable, "-c", program, *words, "--num-workers", "2"]
    run = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # the tests themselves may run where the signal is ignored, which programs inherit
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_lines(output, 3, run)
    workers = children(run.pid)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()

    assert run.returncode == 1, said
    assert "the run was ended; what is done stays: go on with --resume" in said
    assert "Traceback" not in said
    assert workers
    assert wait_until_gone(workers)
    assert not [path for path in output.iterdir() if path.name.startswith(".part-")]
    entries = read_manifest(output).entries
    assert 3 <= len(entries) < INPUTS
