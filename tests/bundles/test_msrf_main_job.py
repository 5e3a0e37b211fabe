"""The main job through MSRF-Net's bundle: train, resume, evaluate, segment, export; and what goes wrong, said well."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset
from support.bundle_runs import MSRF, SMALL, SMALL_INFERENCE, MainJob, run_bundle


def error_line(result: Any) -> str:
    """Return the last line of stderr, which must be the one sentence, of a run that failed."""
    assert result.returncode != 0, result.stdout[-2000:]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), result.stderr[-2000:]
    return str(last)


def test_training_leaves_weights_pictures_and_a_record(main_job: MainJob) -> None:
    weights = torch.load(main_job.root / "models" / "model.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) for v in weights.values())
    run = main_job.root / "eval"
    for picture in ("curves.png", "gallery.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) >= 300
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    record = json.loads((run / "run.json").read_text())
    assert record["seed"] == 42
    assert record["config"]["network_def"]["features"] == 2 or record["overrides"]["network_def::features"] == 2
    assert list(run.glob("events.out.tfevents*"))
    assert not list(main_job.root.rglob("*.part"))


def test_same_seed_gives_the_same_weights_and_resume_the_same_as_no_stop(main_job: MainJob, tmp_path: Path) -> None:
    # One epoch of a two-epoch schedule, then resumed: bit-equal to the run that was not stopped.
    common = {"bundle_root": tmp_path, "dataset_dir": main_job.data, **SMALL}
    stop_early = {"lr_scheduler__t_total": 2, "max_epochs": 1}
    first = run_bundle("training", "train.json", **stop_early, **common)
    assert first.returncode == 0, first.stderr[-2000:]
    second = run_bundle("training", "train.json", max_epochs=2, resume=True, **common)
    assert second.returncode == 0, second.stderr[-2000:]
    one = _tensors(torch.load(main_job.root / "models" / "state" / "training_state.pt", weights_only=True))
    two = _tensors(torch.load(tmp_path / "models" / "state" / "training_state.pt", weights_only=True))
    assert one.keys() == two.keys()
    different = [k for k, v in one.items() if not torch.equal(v, two[k])]
    assert different == []


def _tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {k: v for key, part in items for k, v in _tensors(part, f"{name}/{key}").items()}


def test_evaluation_writes_cases_and_summary_that_a_second_computation_confirms(
    main_job: MainJob, tmp_path: Path
) -> None:
    result = run_bundle(
        "evaluating",
        "train.json",
        "evaluate.json",
        bundle_root=main_job.root,
        dataset_dir=main_job.data,
        output_dir=tmp_path,
        **SMALL,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert len(rows) == len(load_datalist(main_job.data, "test"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    text = json.dumps(summary)
    for name in ("dice", "iou", "precision", "recall", "hd95", "macro_dsc", "pooled_iou"):
        assert name in text
    dice = [float(row["dice"]) for row in rows]
    assert _find(summary, "macro_dsc") == pytest.approx(np.mean(dice), abs=1e-4)


def _find(tree: Any, key: str) -> float:
    """Find a number by its key, or by the mean or value below its key, anywhere in a tree."""
    if isinstance(tree, dict):
        if key in tree:
            found = tree[key]
            return float(found.get("mean", found.get("value"))) if isinstance(found, dict) else float(found)
        for part in tree.values():
            try:
                return _find(part, key)
            except KeyError:
                continue
    raise KeyError(key)


def test_inference_gives_a_mask_of_each_image_in_its_own_size(main_job: MainJob, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "ward").mkdir(parents=True)
    test_images = [item["image"] for item in load_datalist(main_job.data, "test")]
    for k, name in enumerate(("a.png", "b.jpg", "ward/a.png", "c.tif")):
        Image.open(test_images[k % len(test_images)]).convert("RGB").resize((150 + 10 * k, 90)).save(folder / name)
    Image.new("L", (1, 1), 90).save(folder / "one_pixel.png")
    Image.new("RGBA", (10_000, 8), (180, 90, 90, 255)).save(folder / "wide.png")

    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle_root=main_job.root,
        dataset_dir=folder,
        output_dir=out,
        save_probabilities=True,
        save_overlays=True,
        **SMALL_INFERENCE,
    )

    assert result.returncode == 0, result.stderr[-2000:]
    masks = sorted(out.rglob("*_seg.png"))
    assert len(masks) == 6
    sizes = set()
    for path in masks:
        mask = np.asarray(Image.open(path))
        assert set(np.unique(mask)) <= {0, 255}
        sizes.add(mask.shape)
    assert {(90, 150), (90, 160), (90, 170), (90, 180), (1, 1), (8, 10_000)} == sizes
    assert len(list(out.rglob("*_prob.png"))) == 6
    assert len(list(out.rglob("*_overlay.jpg"))) == 6


def test_native_resolution_slides_a_window_over_larger_images(main_job: MainJob, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.open(load_datalist(main_job.data, "test")[0]["image"]).resize((101, 77)).save(folder / "a.png")
    overrides = {**SMALL_INFERENCE, "image_size": "$None"}
    result = run_bundle(
        "evaluating", "inference.json", bundle_root=main_job.root, dataset_dir=folder, output_dir=out, **overrides
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert Image.open(next(out.rglob("*_seg.png"))).size == (101, 77)
    record = json.loads((out / "run.json").read_text())
    assert "$None" in json.dumps(record)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(main_job: MainJob, tmp_path: Path) -> None:
    common = {"bundle_root": main_job.root, "dataset_dir": main_job.data, **SMALL}
    single = run_bundle("evaluating", "train.json", "evaluate.json", output_dir=tmp_path / "one", **common)
    double = run_bundle(
        "evaluating",
        "train.json",
        "evaluate.json",
        "multi_gpu_evaluate.json",
        torchrun=2,
        output_dir=tmp_path / "two",
        **common,
    )
    assert single.returncode == 0, single.stderr[-2000:]
    assert double.returncode == 0, double.stderr[-2000:]
    one, two = (
        sorted(csv.DictReader((tmp_path / name / "cases.csv").open()), key=lambda r: next(iter(r.values())))
        for name in ("one", "two")
    )
    assert [r["dice"] for r in one] == [r["dice"] for r in two]
    trained = run_bundle(
        "training",
        "train.json",
        "multi_gpu_train.json",
        torchrun=2,
        max_epochs=1,
        **{**common, "bundle_root": tmp_path / "ddp"},
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert (tmp_path / "ddp" / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_mlflow_records_the_run_locally(main_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "training",
        "train.json",
        tracking="mlflow",
        bundle_root=tmp_path,
        dataset_dir=main_job.data,
        output_dir=f"$'{tmp_path}/out'",
        max_epochs=1,
        **SMALL,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "out" / "mlruns.db").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.realdata
def test_real_polyps_are_prepared_learnt_evaluated_and_segmented(data_root: Path, tmp_path: Path) -> None:
    data, root = tmp_path / "kvasir", tmp_path / "bundle"
    prepare_dataset("kvasir_seg", data_root / "Kvasir-SEG", data, images="link")
    common = {**SMALL, "image_size": "[64,64]", "patch_size": "[64,64]"}
    trained = run_bundle(
        "training",
        "train.json",
        "datasets/kvasir_seg.json",
        bundle_root=root,
        dataset_dir=data,
        max_epochs=1,
        train_limit=24,
        **common,
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    evaluated = run_bundle(
        "evaluating", "train.json", "evaluate.json", bundle_root=root, dataset_dir=data, output_dir=root / "t", **common
    )
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    rows = list(csv.DictReader((root / "t" / "cases.csv").open()))
    assert len(rows) == len(load_datalist(data, "test"))
    images = tmp_path / "images"
    images.mkdir()
    for item in load_datalist(data, "test")[:2]:
        shutil.copy(item["image"], images)
    small = {**SMALL_INFERENCE, "image_size": "[64,64]", "patch_size": "[64,64]"}
    result = run_bundle(
        "evaluating", "inference.json", bundle_root=root, dataset_dir=images, output_dir=root / "p", **small
    )
    assert result.returncode == 0, result.stderr[-2000:]
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
    small = {k: v for k, v in SMALL.items() if k != "image_size"} | {"patch_size": "[64,64]"}
    if overlay != "dsb2018":
        small["image_size"] = "[64,64]"
    short = {"validate__dataset__data": f"$msrf_monai.data.load_datalist('{data}', 'validation', limit=3)"}
    result = run_bundle(
        "training",
        "train.json",
        f"datasets/{overlay}.json",
        bundle_root=tmp_path / "bundle",
        dataset_dir=data,
        max_epochs=1,
        train_limit=8,
        **small,
        **short,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "bundle" / "models" / "model.pt").is_file()


def test_published_recipe_runs(main_job: MainJob, tmp_path: Path) -> None:
    small = {k: v for k, v in SMALL.items() if k != "learning_rate"}
    result = run_bundle(
        "training",
        "train.json",
        "recipes/paper.json",
        bundle_root=tmp_path,
        dataset_dir=main_job.data,
        **{**small, "max_epochs": 1, "train_limit": 4},
    )
    assert result.returncode == 0, result.stderr[-2000:]


# What a user can get wrong: name, run, configs, overrides, words that the one line must hold.
MISTAKES = [
    ("missing data folder", "training", ["train.json"], {"dataset_dir": "nowhere/at_all"}, ["nowhere/at_all"]),
    ("unknown override", "training", ["train.json"], {"dataset_dirr": "x"}, ["dataset_dirr", "dataset_dir"]),
    ("unknown nested", "training", ["train.json"], {"train__trainer__max_epoch": 1}, ["max_epoch", "max_epochs"]),
    ("missing weights", "evaluating", ["inference.json"], {"weights": "no/model.pt"}, ["no/model.pt"]),
]


@pytest.mark.parametrize(
    ("run", "configs", "overrides", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistake_is_told_in_one_line(
    run: str, configs: list[str], overrides: dict[str, Any], words: list[str], main_job: MainJob, tmp_path: Path
) -> None:
    images = main_job.data / "images" if run == "evaluating" else main_job.data
    small = SMALL_INFERENCE if run == "evaluating" else SMALL
    result = run_bundle(run, *configs, **{"bundle_root": tmp_path, "dataset_dir": images, **small, **overrides})
    line = error_line(result)
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob("*.pt"))


def test_weights_of_another_width_are_refused_in_one_line(main_job: MainJob, tmp_path: Path) -> None:
    wider = {**SMALL_INFERENCE, "network_def__features": 4}
    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle_root=main_job.root,
        dataset_dir=main_job.data / "images",
        output_dir=tmp_path,
        **wider,
    )
    line = error_line(result)
    assert "model.pt" in line
    assert "encoder.stage1.conv1" in line or "shape" in line
    assert not list(tmp_path.rglob("*_seg.png"))


def test_text_that_is_named_png_stops_with_its_name(main_job: MainJob, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.png").write_text("Dear colleague,")
    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle_root=main_job.root,
        dataset_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        **SMALL_INFERENCE,
    )
    assert "letter.png" in error_line(result)


def test_nan_in_the_loss_stops_and_names_the_files(main_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "training",
        "train.json",
        bundle_root=tmp_path,
        dataset_dir=main_job.data,
        max_epochs=2,
        **{**SMALL, "learning_rate": 1e30},
    )
    line = error_line(result)
    assert ".png" in line


def _forbid_large_files() -> None:
    """Refuse, in the operating system, files above 60 kB: writing the state fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are set in a forked process, which POSIX has")
def test_disk_full_while_saving_leaves_nothing_half_written(main_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "training",
        "train.json",
        bundle_root=tmp_path,
        dataset_dir=main_job.data,
        max_epochs=1,
        preexec=_forbid_large_files,
        **SMALL,
    )
    line = error_line(result)
    assert "cannot write" in line
    assert str(tmp_path) in line
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.part"))


def test_readme_of_the_bundle_names_every_config() -> None:
    text = (MSRF / "docs" / "README.md").read_text()
    for path in (MSRF / "configs").rglob("*.json"):
        assert path.name in text or path.stem in text, path.name
