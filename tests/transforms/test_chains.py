"""Whole chains from JSON, with MONAI's own augmentation, and what importing the room brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from PIL import Image

from msrf_monai.edges import canny_edges, mask_edges
from msrf_monai.transforms import to_rows

HEIGHT, WIDTH = 75, 110


def pair(folder: Path) -> dict[str, str]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    lesion = ((rows - 30) ** 2 + (columns - 70) ** 2 < 18**2).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 3))
    image = np.clip(lesion[..., None] * 220 + 10 + noise, 0, 255).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "case.jpg", quality=95)
    Image.fromarray(lesion * 255).save(folder / "case_mask.png")
    return {"image": str(folder / "case.jpg"), "label": str(folder / "case_mask.png")}


PREPARE = [
    {"_target_": "msrf_monai.transforms.LoadImage2Dd", "keys": "image"},
    {"_target_": "msrf_monai.transforms.LoadMask2Dd", "keys": "label", "allow_missing_keys": True},
    {
        "_target_": "msrf_monai.transforms.Resize2Dd",
        "keys": ["image", "label"],
        "spatial_size": [64, 48],
        "mode": ["lanczos", "nearest"],
        "allow_missing_keys": True,
    },
]
FINISH = [
    {"_target_": "msrf_monai.transforms.EdgeMapd", "keys": "image"},
    {"_target_": "msrf_monai.transforms.EdgeTargetd", "keys": "label", "allow_missing_keys": True},
    {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
    {"_target_": "EnsureTyped", "keys": ["image", "label"], "dtype": "$torch.float32", "allow_missing_keys": True},
]
BOTH: dict[str, Any] = {"keys": ["image", "label"], "prob": 1.0}
SAMPLED: dict[str, Any] = {**BOTH, "mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
AUGMENT: list[dict[str, Any]] = [
    {"_target_": "RandFlipd", "spatial_axis": 0, **BOTH},
    {"_target_": "RandRotate90d", **BOTH},
    {"_target_": "RandAffined", "rotate_range": 0.5, "scale_range": 0.2, "translate_range": 5, **SAMPLED},
    {"_target_": "Rand2DElasticd", "spacing": [20, 20], "magnitude_range": [1, 2], **SAMPLED},
    {"_target_": "RandGridDistortiond", "num_cells": 4, **SAMPLED},
    {"_target_": "RandGaussianNoised", "keys": "image", "prob": 1.0, "std": 5.0},
    {"_target_": "RandGaussianSmoothd", "keys": "image", "prob": 1.0},
    {"_target_": "msrf_monai.transforms.RandColorJitterd", "keys": "image", "prob": 1.0},
]


def parsed(steps: list[dict[str, Any]], **more: Any) -> Any:
    config = ConfigParser({"imports": ["$import torch"], "chain": {"_target_": "Compose", "transforms": steps}, **more})
    config.parse()
    return config.get_parsed_content("chain")


def check(item: dict[str, Any]) -> None:
    image, label = item["image"], item["label"]
    assert image.shape[0] == 4
    assert label.shape[0] == 2
    assert image.shape[1:] == label.shape[1:]
    assert image.dtype == label.dtype == torch.float32
    assert image[:3].max() > 0.5
    assert set(image[3].unique().tolist()) <= {0.0, 1.0}
    assert set(label.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(to_rows(label)[..., 1], mask_edges(to_rows(label)[..., 0]))


def test_training_chain_without_augmentation_gives_the_networks_input(tmp_path: Path) -> None:
    item = parsed(PREPARE + FINISH)(pair(tmp_path))

    check(item)
    assert item["image"].shape == (4, 64, 48)
    with Image.open(tmp_path / "case.jpg") as image:
        small = np.asarray(image.resize((64, 48), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(to_rows(item["image"])[..., 3], cv2.Canny(small, 10, 1000) / 255)
    np.testing.assert_allclose(to_rows(item["image"])[..., :3], small / 255, atol=1e-6)
    assert item["image"][3].any()


@pytest.mark.parametrize("step", AUGMENT, ids=lambda step: step["_target_"].rpartition(".")[2])
def test_monais_augmentation_works_on_our_tensors(tmp_path: Path, step: dict[str, Any]) -> None:
    chain = parsed([*PREPARE, step, *FINISH])
    chain.set_random_state(0)
    still = parsed(PREPARE + FINISH)(pair(tmp_path))

    item = chain(pair(tmp_path))

    check(item)
    assert item["image"].shape != still["image"].shape or not torch.equal(item["image"][:3], still["image"][:3])


def test_edges_are_taken_after_the_augmentation(tmp_path: Path) -> None:
    chain = parsed([*PREPARE, AUGMENT[2], *FINISH])
    chain.set_random_state(0)

    item = chain(pair(tmp_path))

    rows = to_rows(item["image"])
    np.testing.assert_array_equal(rows[..., 3], canny_edges(rows[..., :3] * 255))


def test_whole_chain_is_reproducible_from_a_seed(tmp_path: Path) -> None:
    results = []
    for _ in range(2):
        chain = parsed(PREPARE + AUGMENT + FINISH)
        chain.set_random_state(11)
        results.append(chain(pair(tmp_path)))

    assert torch.equal(results[0]["image"], results[1]["image"])
    assert torch.equal(results[0]["label"], results[1]["label"])


@pytest.mark.parametrize("restore", ["Invertd", "msrf_monai.transforms.RestoreSized"])
def test_inference_chain_saves_a_mask_of_the_files_size(tmp_path: Path, restore: str) -> None:
    paths = pair(tmp_path / "in")
    before = parsed(PREPARE + FINISH)
    item = before(dict(paths))
    options: dict[str, Any] = {"keys": "pred"}
    options |= {"transform": before, "orig_keys": "image", "nearest_interp": False} if restore == "Invertd" else {}
    after = parsed(
        [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": restore, **options},
            {"_target_": "msrf_monai.transforms.DecideMaskd"},
            {
                "_target_": "msrf_monai.transforms.SaveMaskd",
                "output_dir": str(tmp_path / "out"),
                "data_root_dir": str(tmp_path / "in"),
            },
            {"_target_": "SqueezeDimd", "keys": "pred", "dim": 0},
        ]
    )
    logits = MetaTensor((item["label"].as_tensor()[:1] - 0.5) * 8).copy_meta_from(item["image"])
    batch = list_data_collate([{"image": item["image"], "pred": logits}])

    result = after(decollate_batch(batch)[0])["pred"]

    with Image.open(tmp_path / "out" / "case_seg.png") as saved, Image.open(paths["label"]) as truth:
        assert saved.size == (WIDTH, HEIGHT)
        found, expected = np.asarray(saved) > 0, np.asarray(truth) > 0
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.93
    assert result.shape == (WIDTH, HEIGHT)
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(np.asarray(result).T, found)


def test_importing_the_room_brings_no_heavy_library_that_monai_does_not() -> None:
    code = (
        "import sys, monai.transforms, monai.bundle; before = set(sys.modules); import msrf_monai.transforms; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'matplotlib', 'onnx', 'torchvision', 'mlflow', 'highdicom', 'tensorboard', 'skimage'}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "[]"
