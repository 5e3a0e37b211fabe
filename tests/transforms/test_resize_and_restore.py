"""Resizing against Pillow, OpenCV and torch; its inverse against torch and MONAI's own Resized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data.meta_obj import set_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.dictionary import Flipd, Resized
from PIL import Image

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms import LoadImage2Dd, Resize2D, Resize2Dd, RestoreSized, to_planes, to_rows

HEIGHT, WIDTH = 37, 53


def rgb() -> np.ndarray:
    rng = np.random.default_rng(2)
    smooth = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def mask() -> np.ndarray:
    return (rgb()[..., :1] > 128).astype(np.uint8)


@pytest.mark.parametrize("size", [(20, 31), (90, 70), (53, 37), (7, 80)])
def test_lanczos_equals_pillow_to_the_bit(size: tuple[int, int]) -> None:
    expected = np.asarray(Image.fromarray(rgb()).resize(size, Image.Resampling.LANCZOS))

    out = Resize2D(size, "lanczos")(to_planes(rgb()))

    assert out.shape == (3, *size)
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(to_rows(out), expected)


def test_lanczos_of_float_planes_equals_pillow_in_mode_f() -> None:
    values = rgb().astype(np.float32) / 3
    expected = np.asarray(Image.fromarray(values[..., 1]).resize((20, 31), Image.Resampling.LANCZOS))

    out = Resize2D((20, 31))(to_planes(values))

    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out[1].numpy().T, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_nearest_equals_pillow(dtype: torch.dtype) -> None:
    expected = np.asarray(Image.fromarray(mask()[..., 0]).resize((80, 21), Image.Resampling.NEAREST))

    out = Resize2D((80, 21), "nearest")(to_planes(mask()).to(dtype))

    assert out.dtype == dtype
    np.testing.assert_array_equal(out[0].numpy().T, expected)


def test_bilinear_equals_torch_interpolate() -> None:
    planes = to_planes(rgb().astype(np.float32))
    expected = F.interpolate(planes[None], size=(90, 25), mode="bilinear", align_corners=False)[0]

    out = Resize2D((90, 25), "bilinear")(planes)

    torch.testing.assert_close(out.as_tensor(), expected, rtol=0, atol=1e-3)


def test_area_is_the_mean_of_whole_blocks() -> None:
    image = rgb()[:36, :52]
    expected = image.reshape(9, 4, 13, 4, 3).mean((1, 3))

    out = Resize2D((13, 9), "area")(to_planes(image))

    assert np.abs(to_rows(out) - expected).max() <= 0.5


def test_lanczos_mask_is_the_published_way() -> None:
    grey = Image.fromarray(mask()[..., 0] * np.uint8(255)).resize((20, 31), Image.Resampling.LANCZOS)

    out = Resize2D((20, 31), "lanczos_mask")(to_planes(mask()))

    np.testing.assert_array_equal(out[0].numpy().T, np.asarray(grey) / 255 >= 0.5)


@pytest.mark.parametrize("mode", ["area", "bilinear", "nearest"])
def test_many_planes_are_resized_one_by_one(mode: Any) -> None:
    planes = to_planes(np.concatenate([rgb(), rgb()[::-1]], axis=2))

    out = Resize2D((30, 20), mode)(planes)

    assert torch.equal(out.as_tensor()[4:5], Resize2D((30, 20), mode)(planes[4:5]).as_tensor())


def test_boolean_masks_become_uint8() -> None:
    out = Resize2D(16, "nearest")(to_planes(mask()).bool())

    assert out.dtype == torch.uint8
    assert out.shape == (1, 16, 16)


def test_one_pixel_can_be_resized_both_ways() -> None:
    one = to_planes(np.full((1, 1, 3), 9, np.uint8))

    assert (Resize2D((5, 4))(one) == 9).all()
    assert (Resize2D((1, 1))(to_planes(np.full((400, 3, 3), 9, np.uint8))) == 9).all()


def test_no_size_changes_nothing_and_its_inverse_neither() -> None:
    resize = Resize2Dd(["image", "label"], None, ["lanczos", "nearest"])
    item = {"image": to_planes(rgb()), "label": to_planes(mask())}

    assert resize(item)["image"] is item["image"]
    assert resize.inverse(item)["label"] is item["label"]


def test_each_key_has_its_mode() -> None:
    out = Resize2Dd(["image", "label"], (20, 31), ["lanczos", "nearest"])(
        {"image": to_planes(rgb()), "label": to_planes(mask())}
    )

    assert torch.equal(out["image"], Resize2D((20, 31), "lanczos")(to_planes(rgb())))
    assert torch.equal(out["label"], Resize2D((20, 31), "nearest")(to_planes(mask())))


def test_affine_is_that_of_monais_resize() -> None:
    image = MetaTensor(to_planes(rgb()), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64)))
    theirs = Resized("image", (20, 31), mode="bilinear")({"image": image.clone()})["image"]

    ours = Resize2Dd("image", (20, 31))({"image": image.clone()})["image"]

    torch.testing.assert_close(ours.affine, theirs.affine)


@pytest.mark.parametrize("size", [0, (3,), (1, 2, 3), (4, -1), (2.5, 3)])
def test_wrong_sizes_are_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match="spatial_size"):
        Resize2D(size)


def test_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="lanczos, area, bilinear, nearest, lanczos_mask; got 'cubic'"):
        Resize2Dd("image", 8, "cubic")  # type: ignore[arg-type]


def test_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(C, W, H\)"):
        Resize2D(8)(torch.zeros(2, 3, 9, 9))


def test_untracked_metadata_gives_plain_tensors() -> None:
    set_track_meta(False)
    try:
        out = Resize2D((20, 31))(to_planes(rgb()))
    finally:
        set_track_meta(True)

    assert not isinstance(out, MetaTensor)


# -- back to the size of the file ------------------------------------------------------------------------------------


def loaded(tmp_path: Path) -> tuple[dict[str, Any], Compose]:
    path = tmp_path / "case.png"
    Image.fromarray(rgb()).save(path)
    chain = Compose([LoadImage2Dd("image"), Resize2Dd("image", (24, 16))])
    return chain({"image": path}), chain


def prediction() -> torch.Tensor:
    return torch.rand(2, 24, 16, generator=torch.Generator().manual_seed(0))


def test_invertd_restores_the_size_of_the_file(tmp_path: Path) -> None:
    item, chain = loaded(tmp_path)
    item["pred"] = MetaTensor(prediction())
    expected = F.interpolate(prediction()[None], size=(WIDTH, HEIGHT), mode="bilinear")[0]

    out = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(item)["pred"]

    torch.testing.assert_close(out.as_tensor(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.affine, torch.eye(4, dtype=torch.float64))
    assert out.applied_operations == []


def test_invertd_restores_by_the_nearest_pixel_when_it_is_asked_to(tmp_path: Path) -> None:
    item, chain = loaded(tmp_path)
    item["pred"] = MetaTensor(prediction())
    plane = Image.fromarray(prediction()[1].numpy().T.copy())
    expected = np.asarray(plane.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))

    out = Invertd("pred", chain, orig_keys="image", nearest_interp=True)(item)["pred"]

    np.testing.assert_array_equal(out[1].numpy().T, expected)


def test_invertd_undoes_further_transforms_too(tmp_path: Path) -> None:
    path = tmp_path / "case.png"
    Image.fromarray(rgb()).save(path)
    chain = Compose([LoadImage2Dd("image"), Resize2Dd("image", (24, 16)), Flipd("image", 0)])
    item = chain({"image": path})
    item["pred"] = MetaTensor(prediction())
    expected = F.interpolate(prediction().flip(1)[None], size=(WIDTH, HEIGHT), mode="bilinear")[0]

    out = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(item)["pred"]

    torch.testing.assert_close(out.as_tensor(), expected, rtol=0, atol=1e-5)


def test_invertd_of_a_mask_made_with_nearest_stays_binary() -> None:
    chain = Compose([Resize2Dd("label", (24, 16), "nearest")])
    item = chain({"label": MetaTensor(to_planes(mask()))})

    out = chain.inverse(item)["label"]

    assert out.shape == (1, WIDTH, HEIGHT)
    assert out.dtype == torch.uint8
    assert set(out.unique().tolist()) <= {0, 1}


def test_invertd_with_the_same_size_keeps_the_values(tmp_path: Path) -> None:
    path = tmp_path / "case.png"
    Image.fromarray(rgb()).save(path)
    chain = Compose([LoadImage2Dd("image"), Resize2Dd("image", (WIDTH, HEIGHT))])
    item = chain({"image": path})
    item["pred"] = item["image"].clone()

    assert torch.equal(Invertd("pred", chain, orig_keys="image")(item)["pred"], to_planes(rgb()))


def test_spacing_beside_the_affine_is_restored() -> None:
    image = MetaTensor(to_planes(rgb()), meta={"pixdim": np.ones(8)})
    resize = Resize2D((24, 16))

    out = resize.inverse(resize(image))

    np.testing.assert_allclose(out.meta["pixdim"][1:3], 1.0)


def test_sliding_window_output_can_be_restored(tmp_path: Path) -> None:
    item, chain = loaded(tmp_path)
    network = torch.nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        pred = SlidingWindowInferer((16, 16), overlap=0.25)(item["image"][None].float(), network)[0]
    item["pred"] = pred

    restored = RestoreSized("pred")(item)["pred"]
    inverted = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(item)["pred"]

    assert restored.shape == (1, WIDTH, HEIGHT)
    torch.testing.assert_close(restored.as_tensor(), inverted.as_tensor())


def test_restore_equals_invertd_and_brings_the_files_metadata(tmp_path: Path) -> None:
    item, chain = loaded(tmp_path)
    item["pred"] = MetaTensor(prediction())

    out = RestoreSized("pred")(item)["pred"]

    expected = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert torch.equal(out.as_tensor(), expected.as_tensor())
    assert out.meta["filename_or_obj"].endswith("case.png")
    assert torch.equal(out.affine, torch.eye(4, dtype=torch.float64))
    assert item["pred"].shape == (2, 24, 16)


def test_restore_takes_plain_tensors_and_keeps_masks_binary(tmp_path: Path) -> None:
    item, _ = loaded(tmp_path)
    item["pred"] = (prediction()[:1] > 0.5).to(torch.uint8)

    out = RestoreSized("pred", mode="nearest")(item)["pred"]

    assert out.dtype == torch.uint8
    assert set(out.unique().tolist()) == {0, 1}


def test_restore_leaves_a_prediction_of_the_right_size(tmp_path: Path) -> None:
    item, _ = loaded(tmp_path)
    item["pred"] = torch.rand(1, WIDTH, HEIGHT)

    assert torch.equal(RestoreSized("pred")(item)["pred"], item["pred"])


def test_restore_refuses_an_image_that_was_flipped(tmp_path: Path) -> None:
    item, _ = loaded(tmp_path)
    item = Flipd("image", 0)(item)
    item["pred"] = prediction()

    with pytest.raises(InputError, match="changed by Flip besides resizing; use Invertd"):
        RestoreSized("pred")(item)


def test_restore_refuses_an_image_without_metadata() -> None:
    with pytest.raises(InputError, match='"image" has no metadata'):
        RestoreSized("pred")({"pred": prediction(), "image": torch.zeros(3, 4, 4)})


def test_restore_refuses_other_modes() -> None:
    with pytest.raises(ConfigError, match='"bilinear" or "nearest"'):
        RestoreSized("pred", mode="cubic")  # type: ignore[arg-type]
