"""Volumes and images in space, as MONAI Label hands over series from DICOMweb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from msrf_monai.errors import DataError, InputError
from msrf_monai.inferers import FlipAveragingInferer, MaskSlidingWindowInferer
from msrf_monai.transforms import (
    ClearOutsided,
    DecideMaskd,
    EdgeMapd,
    FieldOfViewd,
    LoadImage2D,
    LoadImage2Dd,
    NormalizeInsided,
    Resize2Dd,
    RestoreSized,
    ToSourceAxesd,
)

WIDTH, HEIGHT, DEPTH = 37, 23, 3
AFFINE = np.array([[-0.5, 0, 0, 7], [0, -0.7, 0, 9], [0, 0, 2.5, -3], [0, 0, 0, 1.0]])


def volume() -> np.ndarray:
    """``(W, H, D)`` whose slices differ in content and brightness."""
    across, down, level = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT), np.arange(DEPTH), indexing="ij")
    return (across * 5 + (down % 7) * 6 + level * 9).astype(np.uint8)


def saved(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return path


def test_a_volume_is_loaded_with_its_slices_on_the_last_axis(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii.gz", volume())

    image = LoadImage2D(volumes=True)(path)

    assert image.shape == (3, WIDTH, HEIGHT, DEPTH)
    np.testing.assert_array_equal(image[1].numpy(), volume())
    np.testing.assert_allclose(image.affine.numpy(), AFFINE)
    assert image.meta["spatial_shape"].tolist() == [WIDTH, HEIGHT, DEPTH]


def test_a_volume_is_refused_where_it_was_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a volume"):
        LoadImage2D()(saved(tmp_path / "ct.nii.gz", volume()))


def test_all_slices_count_for_the_limit_of_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii.gz", volume())

    with pytest.raises(DataError, match="refused as too large"):
        LoadImage2D(volumes=True, max_pixels=WIDTH * HEIGHT * DEPTH - 1)(path)


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (WIDTH, HEIGHT, 1), (WIDTH, HEIGHT, 1, 1, 3)])
def test_one_slice_stays_a_picture_that_knows_the_axes_of_its_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 251

    image = LoadImage2D(volumes=True)(saved(tmp_path / "one.nii.gz", array))

    assert image.shape == (3, WIDTH, HEIGHT)
    assert image.meta["spatial_shape"].tolist() == [WIDTH, HEIGHT, 1][: len(shape)]


CHAINS: dict[str, list[Any]] = {
    "resize": [Resize2Dd("image", (20, 30))],
    "edges": [EdgeMapd("image")],
    "normalise": [FieldOfViewd("image", source="derived"), NormalizeInsided("image")],
}


@pytest.mark.parametrize("name", list(CHAINS))
def test_a_chain_gives_for_a_volume_what_it_gives_for_each_slice(tmp_path: Path, name: str) -> None:
    chain = Compose([LoadImage2Dd("image", volumes=True), *CHAINS[name]])
    paths = [saved(tmp_path / f"{at}.nii.gz", volume()[..., at]) for at in range(DEPTH)]

    together = chain({"image": str(saved(tmp_path / "all.nii.gz", volume()))})

    alone = [chain({"image": str(path)}) for path in paths]
    for key in {"image", "fov"} & set(together):
        expected = torch.stack([item[key].as_tensor() for item in alone], dim=-1)
        torch.testing.assert_close(together[key].as_tensor(), expected, rtol=0, atol=0)


def test_masks_of_a_volume_come_back_to_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "ct.nii.gz", volume())
    item = Compose([LoadImage2Dd("image", volumes=True), Resize2Dd("image", (74, 46))])({"image": str(path)})
    item["pred"] = item["image"][:1] / 255
    item["fov"] = (torch.arange(WIDTH)[:, None, None] >= 5).expand(1, WIDTH, HEIGHT, DEPTH)
    chain = Compose([RestoreSized("pred"), ClearOutsided("pred"), DecideMaskd("pred"), ToSourceAxesd("pred")])

    mask = chain(item)["pred"]

    expected = (volume() > 127) & (np.arange(WIDTH) >= 5)[:, None, None]
    assert mask.shape == (WIDTH, HEIGHT, DEPTH)
    assert mask.dtype == torch.uint8
    assert (np.asarray(mask) != expected).mean() < 0.02
    np.testing.assert_allclose(mask.affine.numpy(), AFFINE)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((WIDTH, HEIGHT), (WIDTH, HEIGHT)), ((WIDTH, HEIGHT, 1), (WIDTH, HEIGHT, 1)), (None, (WIDTH, HEIGHT))],
    ids=["photograph", "slice", "unknown"],
)
def test_a_mask_takes_the_axes_of_its_source(size: tuple[int, ...] | None, shape: tuple[int, ...]) -> None:
    plane = torch.arange(WIDTH * HEIGHT, dtype=torch.uint8).reshape(1, WIDTH, HEIGHT)
    image = MetaTensor(plane, meta={} if size is None else {"spatial_shape": np.asarray(size)})
    item = {"image": image, "pred": plane}

    mask = ToSourceAxesd("pred")(item)["pred"]

    assert mask.shape == shape
    np.testing.assert_array_equal(np.asarray(mask).reshape(WIDTH, HEIGHT), plane[0].numpy())


def test_several_planes_are_no_mask() -> None:
    with pytest.raises(InputError, match=r"\(2, 5, 6\)"):
        ToSourceAxesd("pred")({"pred": torch.zeros(2, 5, 6)})


@pytest.mark.parametrize(
    "inferer",
    [
        MaskSlidingWindowInferer(roi_size=(16, 12), sw_batch_size=2, overlap=0.25),
        FlipAveragingInferer(roi_size=(16, 12), sw_batch_size=2, overlap=0.25),
    ],
    ids=["plain", "flips"],
)
def test_windows_of_two_axes_go_through_a_volume_slice_by_slice(inferer: MaskSlidingWindowInferer) -> None:
    torch.manual_seed(5)
    network = torch.nn.Conv2d(2, 1, 5, padding=2)
    images = torch.rand(2, 2, WIDTH, HEIGHT, DEPTH)

    with torch.no_grad():
        result = inferer(images, network)

        for at in range(DEPTH):
            torch.testing.assert_close(result[..., at], inferer(images[..., at].contiguous(), network))


def test_windows_of_three_axes_stay_as_they_are() -> None:
    inferer = MaskSlidingWindowInferer(roi_size=(8, 8, 2), sw_batch_size=2)
    network = torch.nn.Conv3d(1, 1, 1)

    assert inferer(torch.rand(1, 1, 16, 12, 4), network).shape == (1, 1, 16, 12, 4)
