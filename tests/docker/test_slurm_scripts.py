"""The scripts for Slurm, run as Slurm would: every input once whatever is sent again, and on after each requeue."""

from __future__ import annotations

import csv
import inspect
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from msrf_monai.clinical.ledger import read_manifest
from support.bundle_runs import SSR
from support.small_label_bundles import small_bundle, write_discs
from support.warm_programs import warm_path

SCRIPTS = Path(__file__).resolve().parents[2] / "docker" / "slurm"
PARTS = 3
COUNT = 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(SSR, tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_discs(tmp_path / "in put", tmp_path / "masks", COUNT)
    return tmp_path / "in put"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH whose ``scontrol`` writes down what it is asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    (folder / "scontrol").chmod(0o755)
    return f"{folder}:{warm_path()}"


def variables(path: str, task: int = 1, tasks: tuple[int, ...] = (1, 2, 3), **more: str) -> dict[str, str]:
    """What Slurm sets for one job of an array."""
    job = {"JOB_ID": f"40{task}", "CPUS_PER_TASK": 1, "PROCID": 0, "LOCALID": 0, "NTASKS": 1, "JOB_NUM_NODES": 1}
    array = {"ID": task, "COUNT": len(tasks), "MIN": min(tasks), "MAX": max(tasks)}
    slurm = {f"SLURM_{name}": str(value) for name, value in job.items()}
    slurm |= {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    return {**os.environ, "PATH": path, **slurm, **more}


def submit(
    script: str, *words: str | Path, variables: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False, cwd=cwd, timeout=600)


def inputs_done(results: Path) -> Counter[str]:
    """Count how often each input is a line of a part's manifest."""
    found: Counter[str] = Counter()
    for manifest in results.glob("part-*/manifest.jsonl"):
        found.update(entry.input for entry in read_manifest(manifest.parent).entries if entry.state == "done")
    return found


@pytest.mark.slow
def test_an_array_does_every_input_once_also_when_parts_are_sent_again(
    bundle: Path, inputs: Path, tmp_path: Path, path: str
) -> None:
    words = (bundle, inputs, tmp_path / "results", "--outputs", "mask", "--device", "cpu", "--quiet")
    done = [submit("predict.sh", *words, variables=variables(path, task)) for task in range(1, PARTS + 1)]

    # 3: flagged, since the weights are random
    assert {each.returncode for each in done} <= {0, 3}, [each.stderr[-1500:] for each in done]
    assert inputs_done(tmp_path / "results") == {f"case_{index}.png": 1 for index in range(COUNT)}

    shutil.rmtree(tmp_path / "results" / f"part-2-of-{PARTS}")
    again = submit("predict.sh", *words, variables=variables(path, 2, (2,), PARTS=str(PARTS)))

    assert again.returncode in (0, 3), again.stderr
    assert inputs_done(tmp_path / "results") == {f"case_{index}.png": 1 for index in range(COUNT)}
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("tasks", [(2, 3), (1, 3)], ids=["not from 1", "with a gap"])
def test_an_array_that_does_not_say_how_many_parts_there_are_is_refused(
    tasks: tuple[int, ...], tmp_path: Path, path: str
) -> None:
    done = submit("predict.sh", "bundle", "images", tmp_path / "results", variables=variables(path, 3, tasks))

    assert done.returncode == 2
    assert "set PARTS to what it was at first" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("script", ["predict.sh", "train.sh"])
def test_a_script_without_its_words_says_what_to_give(script: str, path: str) -> None:
    done = submit(script, "bundle", variables=variables(path))

    assert done.returncode == 2
    assert done.stderr.startswith("error: give BUNDLE,")


@pytest.mark.parametrize(
    ("ends_with", "asked"), [(143, "requeue 401\n"), (0, "")], ids=["in the middle", "just as it was done"]
)
@pytest.mark.parametrize("script", ["predict.sh", "train.sh"])
def test_a_script_whose_time_ends_stops_the_program_and_asks_to_be_queued_again(
    script: str, ends_with: int, asked: str, tmp_path: Path, path: str
) -> None:
    stand_in = f"#!/bin/bash\ntrap 'exit {ends_with}' TERM\ntouch '{tmp_path}/runs'\nwhile :; do sleep 0.05; done\n"
    for name in ("msrf-monai", "torchrun"):
        (tmp_path / "bin" / name).write_text(stand_in)
        (tmp_path / "bin" / name).chmod(0o755)
    command = ["bash", str(SCRIPTS / script), "bundle", "images", str(tmp_path / "results")]
    process = subprocess.Popen(command, env=variables(path))
    until = time.monotonic() + 60
    while not (tmp_path / "runs").exists():
        assert time.monotonic() < until
        time.sleep(0.05)

    process.send_signal(signal.SIGUSR1)

    assert (process.wait(60) == 0) == (ends_with == 0)
    assert ((tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else "") == asked


def test_a_training_takes_the_places_of_its_processes_from_torchrun(tmp_path: Path, path: str) -> None:
    from ignite.distributed.comp_models import native

    hidden = "SLURM_JOB_ID"
    assert f'if "{hidden}" in os.environ' in inspect.getsource(native)  # by which Ignite knows Slurm
    (tmp_path / "bin" / "torchrun").write_text('#!/bin/sh\nenv; echo "$@"\n')
    (tmp_path / "bin" / "torchrun").chmod(0o755)

    done = submit("train.sh", "bundle", "data", tmp_path / "run", variables=variables(path, SLURM_GPUS_ON_NODE="4"))

    assert done.returncode == 0, done.stderr
    assert f"{hidden}=" not in done.stdout
    assert "--nproc_per_node=4 --max-restarts=3 -m monai.bundle run training" in done.stdout
    assert "--resume auto" in done.stdout


@pytest.mark.extended
def test_a_training_that_is_queued_again_goes_on(bundle: Path, tmp_path: Path, path: str) -> None:
    drawn = ["msrf-monai", "data", "synthesize", "lesion", "--out", "data", "--count", "4,2,2", "--size", "36x48"]
    subprocess.run(drawn, env=variables(path), cwd=tmp_path, check=True, capture_output=True)
    words = (bundle, "data", "run", "--batch_size", "2", "--amp", "False")
    slurm = variables(path, PROCESSES="2")

    first = submit("train.sh", *words, "--max_epochs", "1", variables=slurm, cwd=tmp_path)
    second = submit("train.sh", *words, "--max_epochs", "2", variables=slurm, cwd=tmp_path)

    assert (first.returncode, second.returncode) == (0, 0), (first.stderr + second.stderr)[-3000:]
    rows = list(csv.DictReader((tmp_path / "run" / "train" / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
