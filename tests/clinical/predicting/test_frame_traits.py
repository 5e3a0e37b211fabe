"""What a frame looks like, in closed forms, and how far a prediction agrees with that of the mirror image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.clinical import RunOptions, predict
from msrf_monai.clinical.predictor_decision import dice_of_classes
from msrf_monai.clinical.quality import TRAITS
from msrf_monai.clinical.reading import open_case
from msrf_monai.clinical.run_options import SOME_FAILED
from msrf_monai.clinical.traits import traits_of
from msrf_monai.errors import ConfigError
from msrf_monai.transforms.picture import Picture
from support.clinical_runs import entries_of
from support.predictor_bundles import Tiny, picture


def test_one_colour() -> None:
    rows = np.broadcast_to(np.array([90, 60, 30], np.uint8), (40, 20, 3))

    assert traits_of(Picture(rows, 255)) == {
        "shorter_side": 20,
        "aspect": 2,
        "darkest": 60,
        "brightest": 60,
        "brightness": 60,
        "contrast": 0,
        "colourfulness": 60,
        "warmth": 60,
    }


def test_a_ramp_of_grey_without_a_white_keeps_its_values() -> None:
    found = traits_of(Picture(np.arange(-500, 500, dtype=np.int16).reshape(25, 40, 1), None))

    assert (found["darkest"], found["brightest"]) == (-490, 489)
    assert found["brightness"] == pytest.approx(-0.5)
    assert found["contrast"] == pytest.approx(np.sqrt((1000**2 - 1) / 12))
    assert (found["colourfulness"], found["warmth"]) == (0, 0)
    assert set(found) == set(TRAITS)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 1), (np.uint8, 255), (np.uint16, 65535)], ids=str)
def test_depth_makes_no_difference(dtype: Any, white: int) -> None:
    rows = np.zeros((10, 10, 1), dtype)
    rows[:5] = white

    found = traits_of(Picture(rows, white))

    assert (found["brightness"], found["contrast"]) == pytest.approx((127.5, 127.5))
    assert (found["darkest"], found["brightest"]) == (0, 255)


def test_large_images_are_thinned_out_and_small_bytes_do_not_overflow() -> None:
    rows = np.full((3000, 2000, 3), 200, np.uint8)
    rows[1500:] = 100

    found = traits_of(Picture(rows, 255))

    assert (found["shorter_side"], found["aspect"]) == (2000, 1.5)
    assert found["brightness"] == pytest.approx(150, abs=0.5)
    assert found["contrast"] == pytest.approx(50, abs=0.1)


def test_traits_are_those_of_the_file_whatever_the_network_gets(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    rows = picture(47, 61)
    Image.fromarray(rows).save(tmp_path / "a.png")
    values = rows.astype(np.float64)

    (found,) = tiny("msrf").predictor().predict(open_case(tmp_path / "a.png")).traits or ()

    assert (found["shorter_side"], found["aspect"]) == (47, 61 / 47)
    assert found["brightness"] == pytest.approx(values.mean())
    assert found["contrast"] == pytest.approx(values.mean(axis=2).std())
    assert found["warmth"] == pytest.approx(values[..., 0].mean() - values[..., 2].mean())
    assert found["colourfulness"] == pytest.approx((values.max(axis=2) - values.min(axis=2)).mean())


# ---- mirror images


def by_brightness(batch: torch.Tensor, network: Any) -> torch.Tensor:
    """Scores of two planes that follow the image, and so its mirror image."""
    score = batch[:, :1] - batch[:, :1].mean()
    return torch.cat([-score, score], dim=1)


def left_half(batch: torch.Tensor, network: Any) -> torch.Tensor:
    """Scores of two planes that mark the left half of whatever is seen."""
    score = torch.where(torch.arange(batch.shape[2])[:, None] < batch.shape[2] // 2, 5.0, -5.0).expand_as(batch[:, :1])
    return torch.cat([-score, score], dim=1)


def nothing(batch: torch.Tensor, network: Any) -> torch.Tensor:
    """Scores of background everywhere."""
    score = torch.full_like(batch[:, :1], -5.0)
    return torch.cat([-score, score], dim=1)


@pytest.mark.parametrize(
    ("scores", "agreement"),
    [(by_brightness, 1.0), (left_half, 0.0), (nothing, 1.0)],
    ids=["follows-the-image", "left-half", "nothing"],
)
@pytest.mark.parametrize("planes", [1, 2])
def test_agreement_of_mirror_images(
    stock: Callable[..., Tiny], pictures: Path, scores: Any, agreement: float, planes: int
) -> None:
    predictor = dataclasses.replace(
        stock(planes=planes).predictor(check_flips=True),
        _inferer=lambda batch, network: scores(batch, network)[:, -planes:],
    )

    found = predictor.predict(open_case(pictures / "colour.png"))

    assert found.flip_agreement == pytest.approx((agreement,), abs=0.05)  # the middle is blurred on the way back


def test_agreement_is_the_dice_of_both_masks(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    rows = picture(48, 64)
    Image.fromarray(rows).save(tmp_path / "a.png")
    Image.fromarray(rows[:, ::-1]).save(tmp_path / "b.png")
    bundle = tiny("imff")

    (found,) = bundle.predictor(check_flips=True).predict(open_case(tmp_path / "a.png")).flip_agreement or ()

    one, other = (bundle.predictor().predict(open_case(tmp_path / f"{name}.png")).mask[0] for name in "ab")
    mirrored = other[:, ::-1]
    assert one.any()
    assert found == pytest.approx(2 * (one & mirrored).sum() / (one.sum() + mirrored.sum()), abs=0.02)


def test_masks_do_not_change_when_flips_are_checked(tiny: Callable[[str], Tiny], pictures: Path) -> None:
    case = open_case(pictures / "colour.png")
    plain, checked = (tiny("ssr").predictor(check_flips=each).predict(case) for each in (False, True))

    np.testing.assert_array_equal(plain.probabilities, checked.probabilities)
    assert plain.flip_agreement is None


def test_an_average_over_mirror_images_cannot_be_checked_by_them(stock: Callable[..., Tiny]) -> None:
    with pytest.raises(ConfigError, match="either tta or check_flips"):
        stock().predictor(tta=True, check_flips=True)
    with pytest.raises(ConfigError, match="either tta or check_flips"):
        RunOptions(tta=True, check_flips=True)


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"area": [0.9, 1.0]}, "unusual_area"),
        ({"flip_agreement": 1.0}, "flips_disagree"),
        ({"traits": {"brightness": [250, None]}}, "unlike_training"),
        ({"low_confidence": 1.0}, "low_confidence"),
    ],
    ids=["area", "flips", "looks", "confidence"],
)
def test_each_flag_of_a_bundles_own_bounds_is_raised_by_a_run(
    stock: Callable[..., Tiny], pictures: Path, tmp_path: Path, limits: dict[str, Any], flag: str
) -> None:
    bundle = stock(describe=lambda metadata: metadata.update(quality_limits=limits))

    result = predict(bundle.bundle, pictures / "colour.png", tmp_path / "out", device="cpu", check_flips=True)

    entry = entries_of(tmp_path / "out")["colour.png"]
    assert flag in entry.flags
    assert result.exit_code == SOME_FAILED
    record = json.loads((tmp_path / "out" / entry.folder / "stats.json").read_text())
    assert flag in record["flags"]
    assert flag in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_classes_that_mirror_images_exchange_do_not_agree(stock: Callable[..., Tiny], pictures: Path) -> None:
    """Four classes, of which none reaches a probability of a half, decided by the transform of this package."""

    def deciding(config: dict[str, Any]) -> None:
        config["postprocessing"]["transforms"][2] = {"_target_": "msrf_monai.transforms.DecideMaskd", "keys": "pred"}

    def two_halves(batch: torch.Tensor, network: Any) -> torch.Tensor:
        scores = torch.zeros(1, 4, *batch.shape[2:])
        middle = batch.shape[2] // 2
        scores[:, 1, :middle] = scores[:, 2, middle:] = 0.4
        return scores

    predictor = dataclasses.replace(stock(planes=4, change=deciding).predictor(check_flips=True), _inferer=two_halves)

    found = predictor.predict(open_case(pictures / "colour.png"))

    assert set(np.unique(found.mask)) == {1, 2}
    assert found.flip_agreement == pytest.approx((0.0,), abs=0.05)


@pytest.mark.parametrize(
    ("one", "other", "dice"),
    [
        ([0, 0], [0, 0], 1.0),
        ([1, 1], [0, 0], 0.0),
        ([1, 1, 0], [1, 0, 0], 2 / 3),
        ([1, 2, 0], [2, 1, 0], 0.0),
        ([1, 2, 0], [1, 0, 0], 0.5),
    ],
    ids=["empty", "one-empty", "half", "exchanged", "one-of-two"],
)
def test_dice_of_classes(one: list[int], other: list[int], dice: float) -> None:
    assert dice_of_classes(np.array(one), np.array(other)) == pytest.approx(dice)


def test_a_run_is_not_resumed_under_other_bounds(stock: Callable[..., Tiny], pictures: Path, tmp_path: Path) -> None:
    bundle = stock().bundle
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    predict(bundle, pictures / "colour.png", tmp_path / "out", device="cpu")

    metadata["quality_limits"] = {"low_confidence": 0.9}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))

    with pytest.raises(ConfigError, match=r"quality_limits was \{\} and is"):
        predict(bundle, pictures, tmp_path / "out", device="cpu", resume=True)
