"""The pages about bundle commands and federated learning: every command and example runs, in the order of the page."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.bundle import build_network
from support.bundle_runs import IMFF, ROOT, SSR
from support.documented_commands import FORMS, PYTHON, Command, documented, run_command, unsaid
from support.warm_programs import cold_path, warm_path

COMMANDS, FEDERATED = ROOT / "docs" / "bundle-commands.md", ROOT / "docs" / "federated.md"
MONAI_SCHEMA = ROOT.parent / "shared" / "recipes" / "bundle" / "schema" / "meta_schema_20240725.json"
PAGE_FORMS = {
    "args_file": r"python -m monai\.bundle run --args_file ",
    "run_workflow": r"python -m monai\.bundle run_workflow ",
    "verify_metadata": r"python -m monai\.bundle verify_metadata ",
    "trt_export": r"python -m monai\.bundle trt_export ",
    "download": r"python -m monai\.bundle download ",
    "download_large_files": r"python -m monai\.bundle download_large_files ",
    "init_bundle": r"python -m monai\.bundle init_bundle ",
    "package": r"msrf-monai package ",
    "write": r"cat > \S+ <<'END'\n",
    **FORMS,
}
SIZES = "--image_size '[48,32]' --patch_size '[48,32]'"
# What makes a command small, by its form; the network keeps its width, which the Python examples rely on.
SMALLER = {
    "train": f"{SIZES} --train_limit 4",
    "evaluate": SIZES,
    "segment": SIZES,
    "args_file": f"{SIZES} --train_limit 4",
    "run_workflow": SIZES,
    "synthesize": "--count 4,2,2 --size 36x48",
}
# Files that a command leaves, by a pattern of the command.
LEFT = {
    r"synthesize .* data/isic2018": ["data/isic2018/dataset.json"],
    r"run training .* --max_epochs 2": ["models/model.pt", "eval/curves.png", "eval/run.json"],
    r"evaluate\.json": ["eval/test/cases.csv"],
    r"run evaluating .*inference\.json": ["eval/masks/run.json"],
    r"run --args_file": ["runs/mine/models/model.pt", "runs/mine/train/history.csv"],
    r"weight_decay 0\.01": ["runs/other/models/model.pt", "runs/other/train/history.csv"],
    r"run_workflow": ["runs/by_workflow/run.json"],
    r"tracking mlflow": ["runs/tracked/models/model.pt", "runs/tracked/train/mlruns.db"],
    r"ckpt_export": ["models/model.ts"],
    r"onnx_export": ["models/model.onnx"],
    r"msrf-monai package": ["ssr.zip"],
    r"bundle download ": ["fetched/ssr_unet_skin_lesion_segmentation/models/model.ts"],
    r"init_bundle": ["runs/new_bundle/configs/inference.json", "runs/new_bundle/models/model.pt"],
}


@dataclass(frozen=True)
class Page:
    """A page whose commands have all been run."""

    root: Path
    """The bundle's folder in which they ran."""
    said: dict[str, str]
    """What each command wrote."""


def run_page(document: Path, folder: Path, path: str) -> Page:
    """Run everything on a page in a copy of SSR-U-Net's bundle; fail with all that failed."""
    root = folder / SSR.folder_name
    shutil.copytree(SSR.folder, root)
    shutil.copytree(IMFF.folder, folder / IMFF.folder_name)
    said, failed = {}, []
    for command in documented(document, PAGE_FORMS):
        if command.form == "verify_metadata":
            (root / "eval" / "schema.json").write_text(schema())
        if not command.is_run:
            continue
        words = SMALLER.get(command.form, "")
        done = run_command(replace(command, text=f"{command.text} {words}".rstrip()), folder=root, path=path)
        wrong = [*lacking(command, root), *(unsaid(command, done.stdout) if command.form == PYTHON else ())]
        said[command.text] = done.stdout
        if done.returncode != 0 or wrong:
            failed.append(f"{command.text}\nexit code {done.returncode}, missing {wrong}:\n{done.stdout[-1500:]}")
    assert not failed, "\n\n".join(failed)
    return Page(root, said)


def lacking(command: Command, root: Path) -> Iterator[str]:
    """Yield the files that a command should have left."""
    for pattern, names in LEFT.items():
        if re.search(pattern, command.text):
            yield from (name for name in names if not (root / name).is_file())


def schema() -> str:
    """Return MONAI's schema for metadata, or, where it is not beside the checkout, a short one."""
    if MONAI_SCHEMA.is_file():
        return MONAI_SCHEMA.read_text()
    return json.dumps({"type": "object", "required": ["schema", "version", "network_data_format", "task"]})


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*_seg.png"))}


def check_command_page(page: Page) -> None:
    """Look at what the commands of the page have left."""
    root = page.root
    whole = masks(root / "eval" / "masks")
    assert len(whole) == 8
    by_workflow = masks(root / "runs" / "by_workflow")
    assert whole.keys() == by_workflow.keys()
    assert all(np.array_equal(mask, by_workflow[name]) for name, mask in whole.items())
    assert len(masks(root / "runs" / "python")) == 8
    assert len(masks(root / "runs" / "few")) == 2

    record = json.loads((root / "runs" / "mine" / "train" / "run.json").read_text())
    assert record["config"]["network_def"]["recalibration"] == "scse"
    assert record["config"]["max_epochs"] == 1  # the command line's, not the file's 20
    record = json.loads((root / "runs" / "other" / "train" / "run.json").read_text())
    assert record["config"]["optimizer"]["weight_decay"] == 0.01
    assert record["config"]["train"]["random_transforms"][2]["prob"] == 0

    tracked = root / "runs" / "tracked" / "train"
    with sqlite3.connect(tracked / "mlruns.db") as database:
        names = {name for (name,) in database.execute("select distinct key from metrics")}
    assert names >= {"val_dice", "train_loss"}
    (artifact,) = (tracked / "mlruns").rglob("config*.json")
    assert json.loads(artifact.read_text())["network_def"]["recalibration"] == "ssr"

    assert "metadata is verified with no error" in "".join(page.said.values())
    fetched = root / "fetched" / SSR.folder_name / "models" / "model.pt"
    assert fetched.read_bytes() == (root / "models" / "model.pt").read_bytes()


@pytest.mark.slow
def test_commands_and_examples_of_the_page_run_and_leave_what_it_says(tmp_path: Path) -> None:
    check_command_page(run_page(COMMANDS, tmp_path, warm_path()))


@pytest.mark.extended
def test_commands_and_examples_of_the_page_run_in_new_processes(tmp_path: Path) -> None:
    check_command_page(run_page(COMMANDS, tmp_path, cold_path()))


def test_page_about_federated_learning_makes_weights_that_the_network_takes(tmp_path: Path) -> None:
    page = run_page(FEDERATED, tmp_path, warm_path())
    weights = torch.load(page.root / "models" / "model.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    for site in ("a", "b"):
        lines = (page.root / "sites" / site / "train" / "history.csv").read_text().splitlines()
        assert len(lines) == 1 + 3 * 2  # three rounds of two epochs


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about what a computer without a GPU is told")
def test_export_to_tensorrt_without_a_gpu_ends_as_the_page_says(tmp_path: Path) -> None:
    (command,) = (each for each in documented(COMMANDS, PAGE_FORMS) if not each.is_run)
    assert command.form == "trt_export"
    root = tmp_path / SSR.folder_name
    shutil.copytree(SSR.folder, root)
    torch.save(build_network(root).state_dict(), root / "models" / "model.pt")

    done = run_command(command, folder=root, path=warm_path())

    (message,) = re.findall(r"exit code 1 and `(Exception: .*)`", COMMANDS.read_text())
    assert done.returncode == 1
    assert done.stdout.strip().splitlines()[-1] == message
    assert not (root / "models" / "model_trt.ts").exists()


def test_new_bundle_of_monai_fails_as_the_page_says(tmp_path: Path) -> None:
    commands = ("init_bundle new", "verify_metadata --meta_file new/configs/metadata.json --filepath schema.json")
    (tmp_path / "schema.json").write_text(schema())
    done = [
        run_command(Command(f"python -m monai.bundle {text}", "x"), folder=tmp_path, path=warm_path())
        for text in commands
    ]
    assert [each.returncode for each in done] == [0, 1]
    text = " ".join(COMMANDS.read_text().split())
    (message,) = re.findall(r"fails `verify_metadata` \(`([^`]*)`\)", text)
    assert message in done[1].stdout.replace("`", "")


def test_example_that_prints_something_else_is_noticed() -> None:
    command = Command('print("a")  # a\nprint(1)  # 2\n', PYTHON)
    assert unsaid(command, "log\na\n1\n") == ["2"]
    assert unsaid(command, "log\na\n2\n") == []
