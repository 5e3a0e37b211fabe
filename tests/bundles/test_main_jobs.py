"""The main job of every bundle: train, resume, evaluate, segment; and what users get wrong.

Two processes train and score by the commands of the READMEs, in ``test_readme_commands.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.data import load_datalist
from support.bundle_results import kept, table, training_state, weights_of
from support.bundle_runs import (
    BUNDLES,
    HIGMIS,
    MSRF,
    SSR,
    Bundle,
    Evaluate,
    Segment,
    Train,
    error_line,
    program_here,
    run_here,
)

# One bundle after the other, so that what one has trained serves all its tests.
each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name, scope="session")
# What a user can get wrong: name, run, configs, overrides, words that the one line must hold.
MISTAKES = [
    ("missing data folder", "training", ["train.json"], {"dataset_dir": "nowhere/at_all"}, ["nowhere/at_all"]),
    ("unknown override", "training", ["train.json"], {"dataset_dirr": "x"}, ["dataset_dirr", "dataset_dir"]),
    ("unknown nested", "training", ["train.json"], {"train::trainer::max_epoch": 1}, ["max_epoch", "max_epochs"]),
    ("missing weights", "evaluating", ["inference.json"], {"weights": "no/model.pt"}, ["no/model.pt"]),
]


@each_bundle
def test_training_leaves_weights_pictures_and_a_record(bundle: Bundle, trained: Train) -> None:
    job = trained(bundle)
    assert all(isinstance(v, torch.Tensor) for v in weights_of(job.root).values())
    run = job.root / "eval"
    for picture in ("curves.png", "gallery.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) >= 300
    rows = table(run / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert bundle.columns <= rows[0].keys()
    record = json.loads((run / "run.json").read_text())
    assert record["seed"] == 42
    assert bundle.network.items() <= record["overrides"].items()
    assert kept(job.root)["metric"] == bundle.metric
    assert not list(job.root.rglob("*.part"))


@each_bundle
def test_same_seed_gives_the_same_weights_and_resume_the_same_as_no_stop(
    bundle: Bundle, trained: Train, tmp_path: Path
) -> None:
    # One epoch of a two-epoch schedule, then resumed: bit-equal to the run, in another process, that was not stopped.
    job = trained(bundle)
    common = {"bundle_root": tmp_path, "dataset_dir": job.data, **bundle.small("train.json")}
    run_here(bundle, "train.json", **common, **{"lr_scheduler::t_total": 2, "max_epochs": 1})
    run_here(bundle, "train.json", **common, max_epochs=2, resume=True)

    one, two = (training_state(root) for root in (job.root, tmp_path))

    assert one.keys() == two.keys()
    assert [k for k, v in one.items() if not torch.equal(v, two[k])] == []


@each_bundle
def test_evaluation_has_a_row_for_each_test_image(bundle: Bundle, trained: Train, evaluated: Evaluate) -> None:
    job = trained(bundle)

    out = evaluated(job)
    cases = table(out / "cases.csv")

    assert all((out / name).stat().st_size > 500 for name in ("gallery.png", "failures.png"))
    assert {Path(row["file"]).stem for row in cases} == {
        Path(item["image"]).stem for item in load_datalist(job.data, "test")
    }


@pytest.mark.parametrize("bundle", [MSRF, SSR, HIGMIS], ids=lambda bundle: bundle.name, scope="session")
def test_summary_is_confirmed_by_a_second_computation(bundle: Bundle, trained: Train, evaluated: Evaluate) -> None:
    out = evaluated(trained(bundle))

    summary = json.loads((out / "summary.json").read_text())

    dice = [float(row["dice"]) for row in table(out / "cases.csv")]
    assert len(dice) == summary["images"] == 3
    assert summary["paper"]["macro_dsc"] == pytest.approx(np.mean(dice), abs=1e-4)
    text = json.dumps(summary)
    for name in ("dice", "iou", "precision", "recall", "hd95", "macro_dsc", "pooled_iou"):
        assert name in text


@each_bundle
def test_inference_gives_a_mask_of_each_image_in_its_own_size(
    bundle: Bundle, trained: Train, segmented: Segment
) -> None:
    images, out = segmented(trained(bundle))
    sources = [path for path in images.rglob("*.*") if path.is_file()]
    assert len(sources) == 9

    masks = {path.relative_to(out): np.asarray(Image.open(path)) for path in out.rglob("*_seg.png")}

    assert len(masks) == len(sources)
    assert sorted(mask.shape[::-1] for mask in masks.values()) == sorted(Image.open(path).size for path in sources)
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks.values())
    assert len(list(out.rglob("*_prob.png"))) == len(list(out.rglob("*_overlay.jpg"))) == len(sources)


@pytest.mark.parametrize(
    ("run", "configs", "overrides", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
@each_bundle
def test_mistake_is_told_in_one_line(
    bundle: Bundle,
    run: str,
    configs: list[str],
    overrides: dict[str, Any],
    words: list[str],
    trained: Train,
    tmp_path: Path,
) -> None:
    data = trained(bundle).data
    folders = {"bundle_root": tmp_path, "dataset_dir": data / "images" if run == "evaluating" else data}
    done = program_here(bundle, run, *configs, **{**folders, **bundle.small(*configs), **overrides})
    line = error_line(done)
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob("*.pt"))


@each_bundle
def test_weights_of_another_width_are_refused_in_one_line(bundle: Bundle, trained: Train, tmp_path: Path) -> None:
    job = trained(bundle)
    folders = {"bundle_root": job.root, "dataset_dir": job.data / "images", "output_dir": tmp_path}
    wider = {**bundle.small("inference.json"), **bundle.other_network}
    line = error_line(program_here(bundle, "evaluating", "inference.json", **folders, **wider))
    assert "model.pt" in line
    assert "shape" in line
    assert not list(tmp_path.rglob("*_seg.png"))


@each_bundle
def test_text_that_is_named_png_stops_with_its_name(bundle: Bundle, trained: Train, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.png").write_text("Dear colleague,")
    folders = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    small = bundle.small("inference.json")
    done = program_here(bundle, "evaluating", "inference.json", bundle_root=trained(bundle).root, **folders, **small)
    assert "letter.png" in error_line(done)


@each_bundle
def test_readme_of_the_bundle_names_every_config(bundle: Bundle) -> None:
    text = (bundle.folder / "docs" / "README.md").read_text()
    assert [path.name for path in bundle.configs.rglob("*.json") if path.name not in text] == []
