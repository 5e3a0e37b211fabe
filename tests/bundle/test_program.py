"""What a user of ``python -m monai.bundle`` sees at the end of a run, by real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Run = Callable[..., CompletedProcess[str]]


def _break(toy: Path, expression: str) -> None:
    path = toy / "configs" / "train.json"
    config = json.loads(path.read_text())
    config["run"] = [expression]
    path.write_text(json.dumps(config))


def test_good_run_exits_zero_and_leaves_a_finished_manifest(toy: Path, run_toy: Run) -> None:
    done = run_toy(
        "run", "training", "--config_file", "configs/train.json", "--network_def::act", "relu", "--seed", "7"
    )

    assert done.returncode == 0, done.stderr
    manifest = json.loads((toy / "eval" / "run.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["overrides"] == {"network_def::act": "relu", "seed": 7}
    assert manifest["config"]["network_def"]["act"] == "relu"
    assert manifest["argv"][1:3] == ["run", "training"]
    assert manifest["wall_time_s"] >= 0
    assert "git_commit" in manifest
    assert manifest["versions"]["monai"].startswith("1.")


def test_misspelt_override_ends_on_one_sentence_and_starts_nothing(toy: Path, run_toy: Run) -> None:
    done = run_toy("run", "training", "--config_file", "configs/train.json", "--dataset_dirr", "x")

    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: unknown override --dataset_dirr: did you mean --dataset_dir?")
    assert "Traceback" not in done.stderr
    assert not (toy / "eval").exists()


def test_package_error_below_an_expression_and_a_component_ends_on_its_sentence(toy: Path, run_toy: Run) -> None:
    _break(toy, "$__import__('msrf_monai.data').data.load_datalist('nowhere', 'training')")

    done = run_toy("run", "--config_file", "configs/train.json")

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: nowhere")
    assert "Traceback" not in done.stderr
