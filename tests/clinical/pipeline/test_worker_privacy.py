"""What is planted in files comes out of no worker: not by its log, its warnings, its errors, nor by what Ray keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.clinical_runs import planted_words
from support.clinical_workers import stub_bundle

TESTS = Path(__file__).resolve().parents[2]


def run(planted: Path, ray_folder: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a bundle that leaks whatever it sees, in a program of its own that shows every log line."""
    bundle = stub_bundle(planted / "bundle", leaks=True)
    told = {"outputs": ("mask", "stats"), "num_workers": 1, "num_threads": 1, **options}
    return subprocess.run(
        [sys.executable, "-m", "support.clinical_workers", str(bundle), "in", "out", json.dumps(told)],
        cwd=planted,
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
            **({"RAY_TMPDIR": ray_folder} if ray_folder else {}),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_worker_processes_tell_nothing_planted(planted: Path) -> None:
    done = run(planted)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failed"] == 7
    assert planted_words(planted, done) == []


@pytest.mark.slow
def test_actors_tell_nothing_planted_and_ray_keeps_nothing(planted: Path) -> None:
    # a short path, for Ray's sockets lie below it
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        done = run(planted, folder, engine="ray")

        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["failed"] == 7
        assert list(Path(folder).rglob("worker-*")), "Ray has kept nothing of its workers where it was told to"
        assert planted_words(planted, done, Path(folder)) == []
