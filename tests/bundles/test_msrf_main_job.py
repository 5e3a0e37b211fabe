"""What MSRF-Net's bundle has beside the jobs of every bundle, and what goes wrong while a job runs, said well."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset
from support.bundle_results import table
from support.bundle_runs import MSRF, MainJob, error_line, finished, program_here, run_bundle, run_here

TRAIN = MSRF.small("train.json")


def test_training_leaves_files_for_tensorboard_when_asked(msrf_job: MainJob) -> None:
    assert list((msrf_job.root / "eval").glob("events.out.tfevents*"))


def test_native_resolution_slides_a_window_over_larger_images(msrf_job: MainJob, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.open(load_datalist(msrf_job.data, "test")[0]["image"]).resize((101, 77)).save(folder / "a.png")
    overrides = {**MSRF.small("inference.json"), "image_size": "$None"}
    folders = {"bundle_root": msrf_job.root, "dataset_dir": folder, "output_dir": out}
    finished(program_here(MSRF, "evaluating", "inference.json", **folders, **overrides))
    assert Image.open(next(out.rglob("*_seg.png"))).size == (101, 77)
    record = json.loads((out / "run.json").read_text())
    assert "$None" in json.dumps(record)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_polyps_are_prepared_learnt_evaluated_and_segmented(data_root: Path, tmp_path: Path) -> None:
    data, root = tmp_path / "kvasir", tmp_path / "bundle"
    prepare_dataset("kvasir_seg", data_root / "Kvasir-SEG", data, images="link")
    size = {"image_size": [64, 64], "patch_size": [64, 64]}
    common = {"bundle_root": root, "dataset_dir": data, **TRAIN, **size}
    run_here(MSRF, "train.json", "datasets/kvasir_seg.json", max_epochs=1, train_limit=24, **common)
    run_here(MSRF, "train.json", "evaluate.json", output_dir=root / "t", **common)
    assert len(table(root / "t" / "cases.csv")) == len(load_datalist(data, "test"))
    images = tmp_path / "images"
    images.mkdir()
    for item in load_datalist(data, "test")[:2]:
        shutil.copy(item["image"], images)
    folders = {"bundle_root": root, "dataset_dir": images, "output_dir": root / "p"}
    run_here(MSRF, "inference.json", **folders, **{**MSRF.small("inference.json"), **size})
    for path in images.iterdir():
        assert Image.open(root / "p" / f"{path.stem}_seg.png").size == Image.open(path).size


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "folder", "overlay"), [("dsb2018", "DSB2018", "dsb2018"), ("isic2017", "ISIC2017_256x192", "isic2018")]
)
def test_overlay_trains_the_same_network_on_another_real_set(
    data_root: Path, tmp_path: Path, name: str, folder: str, overlay: str
) -> None:
    data = tmp_path / "data"
    prepare_dataset(name, data_root / folder, data, images="reference")
    small = {k: v for k, v in TRAIN.items() if k != "image_size"} | {"patch_size": [64, 64]}
    if overlay != "dsb2018":
        small["image_size"] = [64, 64]
    short = {"validate::dataset::data": f"$msrf_monai.data.load_datalist('{data}', 'validation', limit=3)"}
    folders = {"bundle_root": tmp_path / "bundle", "dataset_dir": data}
    run_here(MSRF, "train.json", f"datasets/{overlay}.json", **folders, max_epochs=1, train_limit=8, **small, **short)
    assert (tmp_path / "bundle" / "models" / "model.pt").is_file()


def test_nan_in_the_loss_stops_and_names_the_files(msrf_job: MainJob, tmp_path: Path) -> None:
    overrides = {"bundle_root": tmp_path, "dataset_dir": msrf_job.data, "max_epochs": 2, **TRAIN}
    done = program_here(MSRF, "training", "train.json", **{**overrides, "learning_rate": 1e30})
    assert ".png" in error_line(done)


def _forbid_large_files() -> None:
    """Refuse, in the operating system, files above 60 kB: writing the state fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are set in a forked process, which POSIX has")
def test_disk_full_while_saving_leaves_nothing_half_written(msrf_job: MainJob, tmp_path: Path) -> None:
    overrides = {"bundle_root": tmp_path, "dataset_dir": msrf_job.data, "max_epochs": 1, **TRAIN}
    line = error_line(run_bundle(MSRF, "training", "train.json", preexec=_forbid_large_files, **overrides))
    assert "cannot write" in line
    assert str(tmp_path) in line
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.part"))
