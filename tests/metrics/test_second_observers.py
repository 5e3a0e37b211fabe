"""Vessel scores on real data: what second observers reach, and the topology of true vessels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.metrics import betti_numbers, confusion, dice, mask_scores, published_scores_consistency


def mask_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("L")) > 127)


@pytest.mark.realdata
def test_the_second_observer_of_stare_scores_as_the_specification_says(data_root: Path) -> None:
    folder = data_root / "STARE"
    names = sorted(path.name for path in (folder / "masks").glob("*.png"))
    rows, pooled = [], []
    for name in names:
        first, second, fov = (mask_of(folder / part / name) for part in ("masks", "masks_observer2", "fov"))
        rows.append(mask_scores(second, first, fov))
        pooled.append((second[fov], first[fov]))
    pred, label = (torch.cat(parts)[None] for parts in zip(*pooled, strict=True))

    assert len(rows) == 20
    assert np.mean([row["f1"] for row in rows]) == pytest.approx(0.740, abs=5e-4)
    assert np.mean([row["cldice"] for row in rows]) == pytest.approx(0.715, abs=5e-4)
    assert float(dice(confusion(pred, label))) == pytest.approx(0.742, abs=5e-4)  # over the pixels of all images


@pytest.mark.realdata
@pytest.mark.parametrize(("dataset", "expected"), [("CHASE_DB1", (3, 15)), ("STARE", (6, 29))])
def test_true_vessels_have_few_components_and_many_holes(
    data_root: Path, dataset: str, expected: tuple[float, float]
) -> None:
    folder = data_root / dataset
    paths = sorted((folder / "masks").glob("*.png"))
    numbers = [betti_numbers(mask_of(path) & mask_of(folder / "fov" / path.name)) for path in paths]
    assert tuple(np.mean(numbers, axis=0)) == pytest.approx(expected, abs=0.5)


@pytest.mark.realdata
@pytest.mark.parametrize(("dataset", "gap"), [("CHASE_DB1", 0.009), ("STARE", 0.023)])
def test_scores_of_the_same_pixels_agree_where_means_over_differing_images_may_not(
    data_root: Path, dataset: str, gap: float
) -> None:
    folder = data_root / dataset
    names = sorted(path.name for path in (folder / "masks").glob("*.png"))
    images = [[mask_of(folder / part / name) for part in ("masks_observer2", "masks", "fov")] for name in names]
    rows = [mask_scores(*image, topology=False) for image in images]
    pred, label = (torch.cat([image[part][image[2]] for image in images]) for part in (0, 1))
    four = ("sensitivity", "specificity", "f1", "accuracy")

    pooled = mask_scores(pred, label, topology=False)
    exact = published_scores_consistency(*(round(pooled[name], 4) for name in four), tolerance=0.0)
    means = published_scores_consistency(*(float(np.mean([row[name] for row in rows])) for name in four))

    assert exact.agree
    assert exact.specificity == pytest.approx(pooled["specificity"], abs=1e-4)
    distance = abs(means.prevalence_from_accuracy - means.prevalence_from_f1)
    assert distance == pytest.approx(gap, abs=1e-3)
    assert means.agree == (distance <= 0.01)
