"""Fields of view in chains: where they come from, what normalising inside them gives, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from msrf_monai.data import synthesize_case
from msrf_monai.errors import ConfigError, DataError, InputError
from msrf_monai.field_of_view import derive_field_of_view
from msrf_monai.transforms import ClearOutsided, FieldOfViewd, LoadImage2Dd, NormalizeInsided

HEIGHT, WIDTH = 96, 128


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    """A drawn retina that was loaded, and the path of a mask that nobody would derive: a corner."""
    case = synthesize_case("vessels", 3, (HEIGHT, WIDTH))
    Image.fromarray(case.image).save(tmp_path / "eye.png")
    given = np.zeros((HEIGHT, WIDTH), np.uint8)
    given[:30, :50] = 255
    Image.fromarray(given).save(tmp_path / "fov.png")
    return {**LoadImage2Dd("image")({"image": str(tmp_path / "eye.png")}), "fov": str(tmp_path / "fov.png")}


def rows(planes: torch.Tensor) -> np.ndarray:
    """A tensor in MONAI's order (C, W, H) as a picture (H, W, C)."""
    return planes.as_subclass(torch.Tensor).permute(2, 1, 0).numpy()


def derived(item: dict[str, Any]) -> np.ndarray:
    return derive_field_of_view(rows(item["image"]))


def corner() -> np.ndarray:
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    expected[:30, :50] = True
    return expected


def assert_fov(item: dict[str, Any], expected: np.ndarray) -> None:
    assert item["fov"].dtype == torch.uint8
    assert item["fov"].shape == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(rows(item["fov"])[..., 0], expected)


@pytest.mark.parametrize("source", ["auto", "given"])
def test_the_mask_of_a_file_is_taken_upright(item: dict[str, Any], source: Any) -> None:
    assert_fov(FieldOfViewd(source=source)(item), corner())


def test_without_a_file_the_field_is_found_in_the_image(item: dict[str, Any]) -> None:
    del item["fov"]

    found = FieldOfViewd()(item)

    assert_fov(found, derived(item))
    assert 0.3 < rows(found["fov"]).mean() < 0.9
    assert found["fov"].meta["filename_or_obj"] == item["image"].meta["filename_or_obj"]


def test_a_file_is_left_aside_when_the_field_is_to_be_derived(item: dict[str, Any]) -> None:
    assert_fov(FieldOfViewd(source="derived")(item), derived(item))


def test_whole_takes_every_pixel_of_any_image(item: dict[str, Any]) -> None:
    assert_fov(FieldOfViewd(source="whole")(item), np.ones((HEIGHT, WIDTH), np.bool_))
    grey = {"image": torch.rand(1, 9, 7)}
    assert FieldOfViewd(source="whole")(grey)["fov"].shape == (1, 9, 7)


def test_a_mask_that_is_loaded_already_stays(item: dict[str, Any]) -> None:
    once = FieldOfViewd()(item)

    twice = FieldOfViewd()(once)

    assert twice["fov"] is once["fov"]


def test_the_item_that_was_given_is_not_changed(item: dict[str, Any]) -> None:
    before = dict(item)
    FieldOfViewd()(item)
    assert item == before


def test_floats_of_the_same_values_give_the_same_field(item: dict[str, Any]) -> None:
    expected = derived(item)
    item["image"] = item["image"].float() + 0.3
    assert_fov(FieldOfViewd(source="derived")(item), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_black_photograph_is_seen_whole(dtype: torch.dtype) -> None:
    black = {"image": torch.zeros(3, 12, 9, dtype=dtype)}
    assert FieldOfViewd()(black)["fov"].all()


def test_a_field_that_is_asked_for_and_not_there_is_an_error(item: dict[str, Any]) -> None:
    del item["fov"]
    with pytest.raises(InputError, match='the item has no "fov"; prepare the data set with fields of view'):
        FieldOfViewd(source="given")(item)


def test_a_mask_of_another_size_is_an_error_that_names_both_files(item: dict[str, Any], tmp_path: Path) -> None:
    Image.new("L", (HEIGHT, WIDTH)).save(tmp_path / "turned.png")
    item["fov"] = str(tmp_path / "turned.png")
    with pytest.raises(DataError, match=r"turned\.png is 96 x 128 pixels and its image .*eye\.png is 128 x 96"):
        FieldOfViewd()(item)


def test_a_file_that_is_no_mask_is_an_error(item: dict[str, Any], tmp_path: Path) -> None:
    item["fov"] = str(tmp_path / "eye.png")
    with pytest.raises(DataError, match=r"eye\.png is no binary mask"):
        FieldOfViewd()(item)


@pytest.mark.parametrize(
    "image",
    [torch.rand(3, 20, 30), torch.rand(1, 20, 30) * 255, torch.rand(2, 3, 20, 30) * 255],
    ids=["scaled", "grey", "batch"],
)
def test_an_image_that_cannot_be_searched_is_an_error(image: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expected \(3, W, H\) within 0\.\.255: .* right after LoadImage2Dd"):
        FieldOfViewd()({"image": image})


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="source is 'guess'; expected one of 'auto', 'given', 'derived', 'whole'"):
        FieldOfViewd(source="guess")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one image key is expected, got image, label"):
        FieldOfViewd(["image", "label"])


def test_items_without_the_image_are_passed_on_when_that_is_allowed() -> None:
    assert FieldOfViewd(allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError):
        FieldOfViewd()({"label": 1})


def test_mean_is_0_and_deviation_1_inside_and_everything_0_outside(item: dict[str, Any]) -> None:
    inside = derived(item)
    values = rows(item["image"]).astype(np.float64)

    found = NormalizeInsided()(FieldOfViewd(source="derived")(item))["image"]

    assert found.dtype == torch.float32
    assert found.meta["filename_or_obj"] == item["image"].meta["filename_or_obj"]
    expected = (values - values[inside].mean(axis=0)) / values[inside].std(axis=0)
    np.testing.assert_allclose(rows(found)[inside], expected[inside], atol=2e-5)
    assert not rows(found)[~inside].any()
    np.testing.assert_allclose(rows(found)[inside].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows(found)[inside].std(axis=0), 1, atol=1e-5)


def test_brightness_contrast_and_colour_of_a_lamp_cancel(item: dict[str, Any]) -> None:
    item = FieldOfViewd(source="derived")(item)
    other = {**item, "image": item["image"].float() * torch.tensor([0.5, 0.8, 1.3])[:, None, None] + 20}

    one, two = (NormalizeInsided()(each)["image"] for each in (item, other))

    torch.testing.assert_close(one.as_tensor(), two.as_tensor(), atol=1e-4, rtol=1e-4)


def test_what_lies_outside_does_not_count() -> None:
    fov = torch.zeros(1, 6, 4)
    fov[:, 1:5, :3] = 1
    image = torch.rand(3, 6, 4) * 255
    glare = torch.where(fov > 0, image, torch.tensor(1e6))

    one, two = (NormalizeInsided()({"image": each, "fov": fov})["image"] for each in (image, glare))

    torch.testing.assert_close(one, two)


def test_a_constant_channel_becomes_0_and_the_others_stay() -> None:
    image = torch.rand(3, 8, 5) * 255
    image[1] = 77
    fov = torch.ones(1, 8, 5, dtype=torch.uint8)

    found = NormalizeInsided()({"image": image, "fov": fov})["image"]

    assert not found[1].any()
    np.testing.assert_allclose(found[[0, 2]].flatten(1).std(dim=1, correction=0), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 5), (1, 1)])
def test_an_empty_field_and_a_field_of_one_pixel_give_0(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    for fov in (torch.zeros(1, *size), torch.ones(1, *size)):
        found = NormalizeInsided()({"image": image, "fov": fov})["image"]
        assert found.shape == image.shape
        assert not found.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_clearing_keeps_what_is_inside_with_its_type_and_metadata(dtype: torch.dtype) -> None:
    fov = torch.zeros(1, 6, 4)
    fov[:, 2:, 1:] = 1
    pred = MetaTensor(torch.ones(2, 6, 4, dtype=dtype), meta={"filename_or_obj": "eye.png"})

    found = ClearOutsided()({"pred": pred, "fov": fov})["pred"]

    assert found.dtype == dtype
    assert found.meta["filename_or_obj"] == "eye.png"
    assert torch.equal(found.as_tensor(), fov.expand(2, -1, -1).to(dtype))
    assert pred.all()


@pytest.mark.parametrize("transform", [NormalizeInsided("image"), ClearOutsided("image")])
def test_a_field_that_is_missing_or_of_another_size_is_an_error(transform: Any) -> None:
    image = torch.rand(3, 8, 5)
    for item in ({"image": image}, {"image": image, "fov": "fov.png"}):
        with pytest.raises(InputError, match='no field of view under "fov"; put FieldOfViewd before'):
            transform(item)
    with pytest.raises(InputError, match='"image" is 8 x 5 pixels and its field of view "fov" is 5 x 8'):
        transform({"image": image, "fov": torch.ones(1, 5, 8)})


@pytest.mark.parametrize("kind", [NormalizeInsided, ClearOutsided])
def test_missing_keys_are_passed_over_when_that_is_allowed(kind: Any) -> None:
    fov = torch.ones(1, 3, 3)
    assert kind("x", allow_missing_keys=True)({"fov": fov}).keys() == {"fov"}
    with pytest.raises(KeyError):
        kind("x")({"fov": fov})


def test_a_configuration_builds_the_chain_by_dotted_names(item: dict[str, Any]) -> None:
    names = ("FieldOfViewd", "NormalizeInsided", "ClearOutsided")
    config = [{"_target_": f"msrf_monai.transforms.{name}", "keys": "image"} for name in names]

    for transform in ConfigParser({"chain": config}).get_parsed_content("chain"):
        item = transform(item)

    outside = rows(item["fov"])[..., 0] == 0
    assert outside.any()
    assert not rows(item["image"])[outside].any()
