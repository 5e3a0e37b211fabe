"""Trainings that are killed with SIGKILL from outside, at any moment, end with the bits of those that were not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from support import killed_jobs
from support.killed_jobs import JOBS, Kill
from support.processes import run_script


def _script(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    done = run_script(killed_jobs.__file__, folder, json.dumps(plan), timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _ends_alike(folder: Path, job: str, kills: list[Kill]) -> None:
    outcome = _script(folder, {"job": job, "kills": kills})
    assert outcome["codes"] == {"broken": [-9] * len(kills) + [0], "whole": [0]}
    assert outcome["results"]["broken"] == outcome["results"]["whole"]
    assert outcome["best"]["broken"] == outcome["best"]["whole"]
    assert outcome["left"] == []


def test_save_killed_at_any_of_its_lines_leaves_the_new_state_or_the_one_before(tmp_path: Path) -> None:
    found = _script(tmp_path, {})["found"]

    killed, whole = found[:-1], found[-1]
    assert len(killed) > 20
    assert {each["code"] for each in killed} == {-9}
    assert (whole["code"], whole["epoch"]) == (0, 3)
    epochs = [each["epoch"] for each in killed]
    assert epochs == sorted(epochs)  # first what was there, then what was saved, and never anything else
    assert set(epochs) == {2, 3}
    assert all(each["same"] == (each["epoch"] == 2) for each in found)
    assert any(not each["newest"] for each in killed)  # the moment in which only the previous file is there was hit


@pytest.mark.slow
def test_gan_killed_three_times_ends_like_the_unbroken_one(tmp_path: Path) -> None:
    kills: list[Kill] = [
        {"iterations": 1, "wait": 0.05},
        {"saves": 1, "wait": 0.004},
        {"iterations": 2, "wait": 0.02},
    ]
    _ends_alike(tmp_path, "gan", kills)


@pytest.mark.extended
@pytest.mark.parametrize("job", JOBS)
def test_training_killed_at_twenty_random_moments_ends_like_the_unbroken_one(tmp_path: Path, job: str) -> None:
    draw = random.Random(8)
    kills: list[Kill] = [
        {"saves": 1, "wait": draw.uniform(0, 0.012)}
        if draw.random() < 0.5
        else {"iterations": draw.randint(1, 4), "wait": draw.uniform(0, 0.1)}
        for _ in range(20)
    ]
    _ends_alike(tmp_path, job, kills)
