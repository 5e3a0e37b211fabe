"""Edge maps against OpenCV on files, scikit-image, and shapes whose outline is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from scipy import ndimage
from skimage import feature

from msrf_monai.edges import adaptive_thresholds, canny_edges, gradient_magnitude, mask_edge_target, mask_edges
from msrf_monai.errors import InputError
from msrf_monai.transforms import EdgeMap, EdgeMapd, EdgeTarget, EdgeTargetd, LoadImage2D, Resize2D, to_planes, to_rows


def rectangle(height: int = 40, width: int = 60) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[10:25, 15:45] = 1
    return mask


def noisy(height: int = 48, width: int = 70) -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def test_canny_of_planes_equals_opencv_on_the_file_as_pillow_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noisy()).save(path)
    expected = cv2.Canny(np.asarray(Image.open(path)), 10, 300)

    out = EdgeMap(low=10, high=300)(LoadImage2D()(path))

    assert out.shape == (4, 70, 48)
    assert out.dtype == torch.uint8
    assert expected.any()
    np.testing.assert_array_equal(out[3].numpy().T, expected)
    np.testing.assert_array_equal(to_rows(out)[..., :3], noisy())


def test_reference_thresholds_are_those_of_the_published_code() -> None:
    image = cv2.merge([rectangle() * 255] * 3)

    edges = canny_edges(image)

    np.testing.assert_array_equal(edges * 255, cv2.Canny(image, 10, 1000))
    assert edges.any()


def test_outline_of_a_mask_lies_within_one_pixel_of_its_morphological_border() -> None:
    mask = rectangle()
    border = mask.astype(bool) ^ ndimage.binary_erosion(mask)

    edges = mask_edges(mask).astype(bool)

    assert edges.any()
    assert not (edges & ~ndimage.binary_dilation(border, np.ones((3, 3)))).any()
    assert not (border & ~ndimage.binary_dilation(edges, np.ones((3, 3)))).any()


def test_outline_agrees_with_scikit_image_within_one_pixel() -> None:
    rows, columns = np.mgrid[:64, :80]
    disc = ((rows - 30) ** 2 + (columns - 41) ** 2 < 20**2).astype(np.uint8)
    theirs = feature.canny(disc.astype(float), sigma=0.1, low_threshold=0.1, high_threshold=0.2)

    ours = mask_edges(disc).astype(bool)

    assert theirs.any()
    assert not (ours & ~ndimage.binary_dilation(theirs, np.ones((3, 3)))).any()
    assert not (theirs & ~ndimage.binary_dilation(ours, np.ones((3, 3)))).any()


def test_gradient_magnitude_of_a_ramp_is_eight_times_its_slope() -> None:
    ramp = np.repeat(np.arange(0, 60, 3, dtype=np.uint8)[None], 12, axis=0)

    magnitude = gradient_magnitude(ramp)

    assert (magnitude[:, 1:-1] == 8 * 3).all()
    assert (magnitude[:, [0, -1]] == 4 * 3).all()


def test_gradient_magnitude_takes_the_steepest_channel() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:, 1] = 100
    image[:, 4:, 2] = 30

    assert gradient_magnitude(image).max() == 400


def test_adaptive_map_of_low_contrast_image_is_not_empty_where_the_reference_is() -> None:
    image = (100 + 4 * cv2.merge([rectangle()] * 3)).astype(np.uint8)

    assert not canny_edges(image).any()
    assert canny_edges(image, adaptive=True).any()


def test_adaptive_map_is_empty_only_for_constant_images() -> None:
    rng = np.random.default_rng(1)
    images = [np.full((9, 7, 3), 80, np.uint8)]
    images += [(80 + rng.integers(0, high, (9, 7, 3))).astype(np.uint8) for high in (2, 2, 3, 5, 100)]
    diagonal = np.tri(9, 9, dtype=np.uint8)
    images += [diagonal, np.eye(9, dtype=np.uint8), np.pad(np.ones((1, 1), np.uint8), 4)]

    found = [bool(canny_edges(image, adaptive=True).any()) for image in images]

    assert found == [bool(image.max() > image.min()) for image in images]


def test_adaptive_map_keeps_the_steepest_pixels_when_suppression_removes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "Canny", lambda image, low, high: np.zeros(image.shape[:2], np.uint8))
    image = np.pad(np.full((2, 2), 50, np.uint8), 3)
    magnitude = gradient_magnitude(image)

    edges = canny_edges(image, adaptive=True)

    np.testing.assert_array_equal(edges, magnitude == magnitude.max())


def test_adaptive_thresholds_follow_the_quantile_of_sloping_pixels() -> None:
    magnitude = np.array([0] * 50 + list(range(1, 102)), np.int32)

    low, high = adaptive_thresholds(magnitude, quantile=0.9, ratio=0.5)

    assert (low, high) == (45 - 1, 91 - 1)


def test_float_image_gives_the_map_of_its_rounded_and_clipped_values() -> None:
    image = noisy()
    shaken = image.astype(np.float32) + np.random.default_rng(0).uniform(-0.4, 0.4, image.shape).astype(np.float32)
    shaken[0, 0], shaken[-1, -1] = -30, 290
    expected = image.copy()
    expected[0, 0], expected[-1, -1] = 0, 255

    out = EdgeMap(high=300)(to_planes(shaken))

    assert out.dtype == torch.float32
    np.testing.assert_array_equal(to_rows(out)[..., 3], cv2.Canny(expected, 10, 300))
    np.testing.assert_array_equal(to_rows(out)[..., :3], shaken)


def test_edge_map_refuses_an_image_that_is_scaled_already() -> None:
    with pytest.raises(InputError, match=r"within \[0, 1\].*before the transform that scales"):
        EdgeMap()(torch.rand(3, 8, 9))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_edge_map_takes_black_float_images(value: float) -> None:
    assert EdgeMap()(torch.full((3, 5, 4), value))[3].sum() == 0


def test_edge_map_refuses_nan() -> None:
    image = torch.full((1, 6, 6), 20.0)
    image[0, 2, 2] = float("nan")

    with pytest.raises(InputError, match="NaN or infinity"):
        EdgeMap()(image)


def test_edge_map_refuses_a_batch() -> None:
    with pytest.raises(InputError, match=r"\(C, W, H\)"):
        EdgeMap()(torch.zeros(2, 3, 8, 9))


def test_edges_of_an_image_without_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        canny_edges(np.zeros((0, 5), np.uint8))


def test_one_pixel_image_has_an_empty_map() -> None:
    assert canny_edges(np.full((1, 1, 3), 9, np.uint8), adaptive=True).tolist() == [[0]]


@pytest.mark.parametrize("options", [{"quantile": 1.0}, {"quantile": 0.0}, {"ratio": 0.0}, {"ratio": 1.1}])
def test_edge_map_refuses_options_outside_their_range(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="quantile must lie"):
        EdgeMapd("image", **options)


def test_edge_target_appends_the_outline_and_keeps_metadata() -> None:
    mask = MetaTensor(to_planes(rectangle()), meta={"filename_or_obj": "a.png"})

    out = EdgeTargetd("label")({"label": mask, "id": 7})["label"]

    assert out.shape == (2, 60, 40)
    assert out.dtype == torch.uint8
    assert out.meta["filename_or_obj"] == "a.png"
    np.testing.assert_array_equal(out[1].numpy().T, mask_edges(rectangle()))
    np.testing.assert_array_equal(out[0].numpy().T, rectangle())


def test_edge_target_of_several_classes_unites_the_outlines_of_all() -> None:
    first, second = rectangle(), np.roll(rectangle(), (8, 10), (0, 1))
    expected = mask_edges(first) | mask_edges(second)

    planes = mask_edges(np.stack([first, second], axis=2))
    numbers = EdgeTarget()(to_planes(np.where(first, 1, np.where(second, 2, 0)).astype(np.uint8)))

    np.testing.assert_array_equal(planes, expected)
    visible = mask_edges(np.stack([first, second & (1 - first)], axis=2))
    np.testing.assert_array_equal(numbers[1].numpy().T, visible)


def test_boolean_mask_has_the_outline_of_its_uint8_form() -> None:
    np.testing.assert_array_equal(mask_edges(rectangle().astype(bool)), mask_edges(rectangle()))


def test_edge_target_of_a_batch_equals_the_transform_on_each_item() -> None:
    masks = torch.stack([to_planes(rectangle()), to_planes(np.roll(rectangle(), 5, 1))])
    expected = torch.stack([EdgeTarget()(mask)[1:] for mask in masks]).float()

    assert torch.equal(mask_edge_target(masks), expected)
    assert torch.equal(mask_edge_target(masks.double()), expected.double())
    assert torch.equal(mask_edge_target(masks.bool()), expected)


def test_edge_target_of_a_batch_refuses_other_shapes() -> None:
    with pytest.raises(InputError, match=r"\(B, K, W, H\)"):
        mask_edge_target(torch.zeros(1, 5, 5))


def test_edge_map_dictionary_form_equals_the_array_form() -> None:
    image = to_planes(noisy())

    out = EdgeMapd(["image"], high=300)({"image": image})["image"]

    assert torch.equal(out, EdgeMap(high=300)(image))


@pytest.mark.realdata
def test_adaptive_map_is_never_empty_on_kvasir_and_reference_map_sometimes(data_root: Path) -> None:
    paths = sorted((data_root / "Kvasir-SEG" / "images").glob("*.jpg"))
    if not paths:
        pytest.skip("no Kvasir-SEG images below MSRF_DATA_DIR")
    images = [to_rows(Resize2D(256)(LoadImage2D()(path))) for path in paths[:60]]

    reference = np.mean([canny_edges(image).mean() for image in images])
    adaptive = [canny_edges(image, adaptive=True).mean() for image in images]

    assert min(adaptive) > 0.02
    assert max(adaptive) < 0.3
    assert reference < np.mean(adaptive)
