"""What IMFF-Net's bundle has beside the jobs of every bundle: its report by each protocol, and fields of view."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from PIL import Image
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

from msrf_monai.data import load_datalist
from msrf_monai.field_of_view import derive_field_of_view
from msrf_monai.networks import IMFFNet
from support.bundle_results import read_mask, table, weights_of
from support.bundle_runs import IMFF, Evaluate, MainJob, Segment, run_here

HERE: dict[str, Any] = {**IMFF.small("inference.json"), "device": "cpu"}


def said_by(job: MainJob, image: str, fov: np.ndarray, *, flips: bool = False) -> np.ndarray:
    """The probability (H, W) that the trained network gives inside a field of view, without the bundle."""
    network = IMFFNet(features=(4, 8, 8)).eval()
    network.load_state_dict(weights_of(job.root))
    values = np.asarray(Image.open(image).convert("RGB")).astype(np.float64)
    values = (values - values[fov].mean(axis=0)) / values[fov].std(axis=0) * fov[..., None]
    x = torch.from_numpy(values.transpose(2, 1, 0)[None]).float()  # MONAI's order: columns before rows
    window = SlidingWindowInferer((48, 48), overlap=0.25, mode="gaussian")
    passes = [(), (2,), (3,), (2, 3)] if flips else [()]
    with torch.no_grad():
        logits = torch.stack([torch.flip(window(torch.flip(x, axes), network), axes) for axes in passes]).mean(dim=0)
    return np.asarray(torch.sigmoid(logits)[0, 0].T) * fov


def pixels_of(job: MainJob, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of all pixels inside the fields of view of a part."""
    found = []
    for item in load_datalist(job.data, part):
        fov = read_mask(item["fov"])
        found.append((said_by(job, item["image"], fov)[fov], read_mask(item["label"])[fov]))
    said, true = (np.concatenate(each) for each in zip(*found, strict=True))
    return said, true


@pytest.fixture
def report(imff_job: MainJob, evaluated: Evaluate) -> Path:
    """Folder of the report on the test part."""
    return evaluated(imff_job)


def test_the_threshold_is_that_of_the_validation_images_alone(imff_job: MainJob, report: Path) -> None:
    said, true = pixels_of(imff_job, "validation")
    precision, recall, _ = precision_recall_curve(true, said)

    chosen = json.loads((report / "threshold.json").read_text())

    assert chosen["images"] == 2
    assert chosen["pixels"] == "in the field of view"
    assert chosen["f1"] == pytest.approx(f1_score(true, said >= chosen["threshold"]), abs=2e-3)
    assert chosen["f1"] == pytest.approx((2 * precision * recall / (precision + recall + 1e-9)).max(), abs=5e-3)


def test_scores_of_the_test_images_are_those_of_scikit_learn(imff_job: MainJob, report: Path) -> None:
    said, true = pixels_of(imff_job, "test")
    threshold = json.loads((report / "threshold.json").read_text())["threshold"]

    summary = json.loads((report / "summary.json").read_text())

    assert summary["images"] == 3
    assert summary["threshold"] == threshold
    pooled = summary["protocols"]["fov_chosen"]["pooled"]
    assert pooled["f1"] == pytest.approx(f1_score(true, said >= threshold), abs=2e-3)
    assert pooled["auc_roc"] == pytest.approx(roc_auc_score(true, said), abs=2e-3)
    assert summary["protocols"].keys() == {"fov_chosen", "fov_0.5", "fov_observer", "full_0.5", "full_observer"}


def test_the_report_has_a_row_for_each_image_and_protocol_and_a_picture_of_each(
    imff_job: MainJob, report: Path
) -> None:
    names = {Path(item["image"]).stem for item in load_datalist(imff_job.data, "test")}
    cases = table(report / "cases.csv")
    assert len(cases) == 3 * 5
    assert {Path(row["file"]).stem for row in cases} == names
    inside = {row["protocol"]: sum(int(row[n]) for n in ("tp", "fp", "fn", "tn")) for row in cases[:5]}
    fov = read_mask(load_datalist(imff_job.data, "test")[0]["fov"])
    assert inside["fov_chosen"] == fov.sum()
    assert inside["full_0.5"] == fov.size
    assert {row["protocol"] for row in table(report / "tables.csv")} == {row["protocol"] for row in cases}
    assert {path.stem.removesuffix("_vessels") for path in (report / "overlays").rglob("*.png")} == names
    for name in ("report.html", "reliability.png", "run.json"):
        assert (report / name).stat().st_size > 500


def test_inference_gives_measures_of_each_image(imff_job: MainJob, segmented: Segment) -> None:
    _, out = segmented(imff_job)

    measures = {path.relative_to(out).as_posix() for path in out.rglob("*_measures.json")}

    assert len(measures) == len(list(out.rglob("*_seg.png")))
    assert {row["measures"] for row in table(out / "measures.csv")} == measures


@pytest.mark.parametrize("tta", [False, True])
def test_inference_gives_the_probability_that_the_network_gives(imff_job: MainJob, tmp_path: Path, tta: bool) -> None:
    (tmp_path / "in").mkdir()
    source = Path(load_datalist(imff_job.data, "test")[0]["image"])
    shutil.copy(source, tmp_path / "in")
    fov = derive_field_of_view(np.asarray(Image.open(source)))

    folders = {"bundle_root": imff_job.root, "dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    run_here(IMFF, "inference.json", **folders, **HERE, tta=tta, save_probabilities=True, save_measures=False)

    (path,) = (tmp_path / "out").glob("*_prob.png")
    found = np.asarray(Image.open(path)).astype(np.float64) / 65535
    np.testing.assert_allclose(found, said_by(imff_job, str(source), fov, flips=tta), atol=1e-4)


@pytest.mark.parametrize(("source", "is_masked"), [("derived", True), ("derived", False), ("whole", True)])
def test_the_field_of_view_is_that_of_the_flags(
    imff_job: MainJob, tmp_path: Path, source: str, is_masked: bool
) -> None:
    (tmp_path / "in").mkdir()
    image = Path(load_datalist(imff_job.data, "test")[1]["image"])
    shutil.copy(image, tmp_path / "in")
    outside = ~derive_field_of_view(np.asarray(Image.open(image)))
    assert outside.any()

    folders = {"bundle_root": imff_job.root, "dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    flags = {"fov_source": source, "mask_outside": is_masked, "threshold": 0.01, "pixel_spacing_um": 10.0}
    run_here(IMFF, "inference.json", **folders, **HERE, **flags)

    (mask,) = (read_mask(path) for path in (tmp_path / "out").glob("*_seg.png"))
    assert mask[outside].any() is np.bool_(source == "whole" or not is_masked)
    (report,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_measures.json"))
    area = outside.size if source == "whole" else int((~outside).sum())
    assert report["measures"]["fov_area_px"] == area
    assert report["measures"]["vessel_density"] == pytest.approx(
        (mask & (~outside if source == "derived" else True)).sum() / area
    )
    assert report["spacing_um"] == {"pixel_height": 10.0, "pixel_width": 10.0}
