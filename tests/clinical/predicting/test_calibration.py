"""Bounds of flags by data: closed forms of what is chosen, and the command on pictures whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from msrf_monai.cli.main import app
from msrf_monai.clinical.calibration import CalibrationOptions, Checked, author_limits, calibrate, choose_limits
from msrf_monai.clinical.quality import TRAITS, QualityLimits, flags_of
from msrf_monai.clinical.statistics import CaseStatistics, Region
from msrf_monai.errors import DataError, InputError
from support.predictor_bundles import Tiny

GREY = dict.fromkeys(TRAITS, 1.0)


def checked(
    dice: float,
    *,
    confidence: float = 0.99,
    agreement: float = 1.0,
    pixels: int = 1000,
    border: float = 0.0,
    **traits: Any,
) -> Checked:
    """A validation image of 100 x 100 pixels."""
    region = Region(0, 1, pixels, 1, pixels, (0, 0, 1, 1), border, None)
    looks = ({**GREY, **traits},)
    return Checked(CaseStatistics(1, 100, 100, 1, (region,), (confidence,), None, None, (agreement,), looks), dice)


def chosen(images: Sequence[Checked], *, options: CalibrationOptions | None = None, **training: Any) -> Any:
    areas = training.get("areas", np.linspace(0.05, 0.25, 101).tolist())
    return choose_limits(areas, training.get("traits", [GREY] * len(areas)), images, options)


def test_the_area_is_the_middle_98_percent_of_training_masks_that_mark_something() -> None:
    areas = [*np.linspace(0.1, 0.3, 101).tolist(), *[0.0] * 50]

    found = chosen([checked(0.9, pixels=2000)], areas=areas)

    assert found.limits.area == pytest.approx((0.102, 0.298), abs=2e-5)
    assert found.training_images == 151


def test_of_99_right_results_four_are_cut_off_so_that_five_of_100_new_ones_are_expected() -> None:
    right = [checked(0.9, confidence=0.90 + number / 1000) for number in range(99)]
    wrong = [checked(0.2, confidence=0.85), checked(0.3, confidence=0.95)]

    found = chosen([*right, *wrong])

    assert found.limits.low_confidence == pytest.approx(0.904, abs=2e-5)
    assert (found.right, found.wrong, found.false_alarms, found.caught) == (99, 2, 4, 1)
    assert found.raised == {"low_confidence": (4, 1)}
    assert found.false_alarm_rate == 4 / 99


def test_all_flags_together_stay_within_the_limit() -> None:
    """Confidence, agreement and the border would each cut off another five of a hundred."""
    right = [
        checked(
            0.9,
            confidence=0.90 + number / 1000,
            agreement=0.5 + ((number + 33) % 100) / 200,
            border=((number + 66) % 100) / 100,
        )
        for number in range(100)
    ]

    found = chosen(right)

    assert 0 < found.false_alarms <= 5
    assert found.limits.flip_agreement > 0.5
    assert sum(bool(flags_of(each.statistics, found.limits)) for each in right) == found.false_alarms


def test_what_training_images_look_like_bounds_every_trait() -> None:
    looks = [{**GREY, "brightness": float(value), "aspect": 1.5} for value in range(1001)]
    areas = [0.1] * 1001
    near = checked(0.9, brightness=500.0, aspect=1.5)
    far = checked(0.1, brightness=1500.0, aspect=1.5)

    found = chosen([near, far], areas=areas, traits=looks)

    bounds = dict(found.limits.traits)
    assert bounds["brightness"] == pytest.approx((1000 * 0.05 / 8, 1000 * (1 - 0.05 / 8)), abs=1e-3)
    assert bounds["aspect"] == (0.75, 3.0)
    assert flags_of(far.statistics, found.limits) == ("unlike_training",)
    assert (found.false_alarms, found.caught) == (0, 1)


def test_a_trait_that_is_left_out_flags_nothing() -> None:
    options = CalibrationOptions(leave_out=("shorter_side",))

    found = chosen([checked(0.9, shorter_side=9000.0)], options=options)

    assert found.false_alarms == 0
    assert "shorter_side" not in dict(found.limits.traits)


def test_bounds_of_vessels_rise_with_what_is_right_and_none_falls() -> None:
    options = CalibrationOptions(base=QualityLimits(many_components=500, touches_border=0.2))
    looks = [checked(0.9, border=0.4)] * 30

    found = chosen(looks, options=options)

    assert (found.limits.many_components, found.limits.touches_border) == (500, 0.4)


def test_few_images_leave_the_usual_bounds_where_they_are() -> None:
    found = chosen([checked(0.9, confidence=0.9999)] * 5)

    assert (found.limits.low_confidence, found.limits.flip_agreement) == (0.75, 0.5)


def test_unsure_but_right_results_lower_the_usual_bound() -> None:
    found = chosen([checked(0.9, confidence=0.6)] * 5)

    assert (found.limits.low_confidence, found.false_alarms) == (0.6, 0)


def test_empty_masks_that_are_right_are_no_false_alarms() -> None:
    empty = Checked(CaseStatistics(1, 100, 100, 1, (), (0.99,), None, None, (1.0,), (GREY,)), 1.0)
    missed = Checked(empty.statistics, 0.0)

    found = chosen([*[checked(0.9)] * 20, *[empty] * 10, missed])

    assert (found.right, found.false_alarms, found.wrong, found.caught) == (30, 0, 1, 1)
    assert found.raised == {"empty_mask": (0, 1)}


def test_flags_that_no_bound_changes_do_not_loosen_the_others() -> None:
    """Of 30 right results 6 fill the whole frame; the strictest bounds that flag no other are kept."""
    looks = [{**GREY, "brightness": float(value)} for value in range(101)]
    right = [checked(0.9, brightness=50.0)] * 24 + [checked(0.9, pixels=10_000, brightness=50.0)] * 6

    found = chosen(right, traits=looks)

    assert found.false_alarms == 6
    low, high = dict(found.limits.traits)["brightness"]
    assert 0 < low < 5
    assert 95 < high < 100


def test_a_trait_that_all_training_images_share_leaves_room_for_noise() -> None:
    looks = [{**GREY, "darkest": 0.0}] * 50

    found = chosen([*[checked(0.9, darkest=0.4)] * 6, *[checked(0.9)] * 24], areas=[0.1] * 50, traits=looks)

    assert found.false_alarms == 0


def test_the_bounds_of_an_author_are_those_before_any_calibration() -> None:
    options = CalibrationOptions(base=QualityLimits(many_components=500))
    first = chosen([checked(0.9, border=0.4)] * 30, options=options)
    stored = {"quality_limits": first.limits.as_metadata(), "quality_calibration": first.as_metadata()}

    assert first.limits.touches_border == 0.4
    assert author_limits(json.loads(json.dumps(stored))) == options.base
    assert author_limits({"quality_limits": {"touches_border": 0.3}}) == QualityLimits(touches_border=0.3)


def test_a_range_of_areas_that_flags_too_many_is_told() -> None:
    found = chosen([*[checked(0.9)] * 8, *[checked(0.9, pixels=9000)] * 2])

    assert (found.false_alarms, found.false_alarm_rate) == (2, 0.2)
    assert found.raised == {"unusual_area": (2, 0)}


@pytest.mark.parametrize(
    ("areas", "dice", "said"), [([0.0, 0.0], 0.9, "0 training masks"), ([0.1], 0.5, "0 validation images")], ids=str
)
def test_a_network_that_does_not_work_is_not_calibrated(areas: list[float], dice: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        chosen([checked(dice)], areas=areas)


@pytest.mark.parametrize(
    "wrong", [{"right_dice": 1.0}, {"false_alarms": 0}, {"leave_out": ("smell",)}], ids=lambda each: next(iter(each))
)
def test_options_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        CalibrationOptions(**wrong)


# ---- with a network


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve pictures of a bright disc on dark ground; in one of the validation part the mask is elsewhere."""
    folder = tmp_path / "discs"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:40, :56]
    items = []
    for number in range(12):
        radius = 8 + number % 4
        disc = (y - 20) ** 2 + (x - 28 + number % 3) ** 2 < radius**2
        rows = np.where(disc[..., None], 200, 40) + generator.integers(0, 20, (40, 56, 3))
        mask = np.roll(disc, 25, axis=1) if number == 11 else disc
        Image.fromarray(rows.astype(np.uint8)).save(folder / "images" / f"{number:02}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "labels" / f"{number:02}.png")
        items.append({"image": f"images/{number:02}.png", "label": f"labels/{number:02}.png"})
    parts = {"training": items[:6], "validation": items[6:], "test": []}
    (folder / "dataset.json").write_text(json.dumps(parts))
    return folder


@pytest.fixture
def threshold(stock: Callable[..., Tiny]) -> Tiny:
    """A bundle whose network finds what is bright."""

    def convolution(config: dict[str, Any]) -> None:
        config["network_def"] = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 1}
        config["preprocessing"]["transforms"][3]["spatial_size"] = [56, 40]

    made = stock(planes=1, change=convolution)
    weights = {"weight": torch.full((1, 3, 1, 1), 20.0), "bias": torch.tensor([-30.0])}
    torch.save(weights, made.weights)
    return made


def test_a_bundle_is_calibrated_by_its_pictures(threshold: Tiny, dataset: Path) -> None:
    found = calibrate(threshold.predictor(check_flips=True), dataset)

    shares = [float((np.asarray(Image.open(each)) > 0).mean()) for each in sorted((dataset / "labels").iterdir())[:6]]
    low, high = np.array(found.limits.area, dtype=float)
    assert low <= min(shares) * 1.05
    assert high >= max(shares) * 0.95
    assert (found.training_images, found.right, found.wrong) == (6, 5, 1)
    assert found.false_alarm_rate <= 0.05
    assert found.limits.flip_agreement == QualityLimits().flip_agreement  # five images say nothing of one in twenty


def test_the_command_stores_bounds_that_the_next_run_uses(threshold: Tiny, dataset: Path, tmp_path: Path) -> None:
    call = ["calibrate", str(threshold.bundle), str(dataset), "--device", "cpu", "--leave-out", "aspect"]
    before = (threshold.bundle / "configs" / "metadata.json").read_text()

    tried = CliRunner().invoke(app, [*call, "--dry-run", "--json"])
    assert tried.exit_code == 0, tried.output
    assert (threshold.bundle / "configs" / "metadata.json").read_text() == before

    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    metadata = json.loads((threshold.bundle / "configs" / "metadata.json").read_text())
    told = json.loads(tried.stdout)
    assert metadata["quality_limits"] == told["quality_limits"]
    assert metadata["quality_calibration"] == {"dataset": "discs", **told["quality_calibration"]}
    assert metadata["quality_calibration"]["right_flagged"] == 0
    assert "flagged: 0 (0.0% of the 5 right results)" in done.output

    again = CliRunner().invoke(app, call)
    assert again.exit_code == 0, again.output
    assert json.loads((threshold.bundle / "configs" / "metadata.json").read_text()) == metadata

    dark = tmp_path / "dark.png"
    Image.fromarray(np.full((40, 56, 3), 3, np.uint8)).save(dark)
    run = CliRunner().invoke(app, ["predict", str(threshold.bundle), str(dark), "-o", str(tmp_path / "out")])
    assert run.exit_code == 3, run.output
    assert "unlike_training" in (tmp_path / "out" / "summary.csv").read_text()


def test_what_cannot_be_kept_is_not_stored(threshold: Tiny, dataset: Path) -> None:
    """All masks of the training part are tiny, so that every right result has an unusual area."""
    for number in range(6):
        mask = np.zeros((40, 56), np.uint8)
        mask[0, number] = 255
        Image.fromarray(mask).save(dataset / "labels" / f"{number:02}.png")
    before = (threshold.bundle / "configs" / "metadata.json").read_text()

    done = CliRunner().invoke(app, ["calibrate", str(threshold.bundle), str(dataset), "--device", "cpu"])

    assert isinstance(done.exception, DataError)
    assert "100.0% of the right results are flagged" in str(done.exception)
    assert (threshold.bundle / "configs" / "metadata.json").read_text() == before


def test_classes_are_compared_one_by_one(stock: Callable[..., Tiny], dataset: Path) -> None:
    """A network of two classes that finds the second one where the first should be is not right."""

    def convolution(config: dict[str, Any]) -> None:
        config["network_def"] = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
        config["preprocessing"]["transforms"][3]["spatial_size"] = [56, 40]

    bundle = stock(planes=3, change=convolution)
    weight = torch.zeros(3, 3, 1, 1)
    weight[2] = 20.0
    torch.save({"weight": weight, "bias": torch.tensor([0.0, -99.0, -30.0])}, bundle.weights)
    for path in (dataset / "labels").iterdir():
        marked = np.asarray(Image.open(path)) > 0
        Image.fromarray((marked * 2).astype(np.uint8)).save(path)

    found = calibrate(bundle.predictor(), dataset)
    assert (found.right, found.wrong) == (5, 1)

    for path in (dataset / "labels").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    with pytest.raises(InputError, match="0 validation images"):
        calibrate(bundle.predictor(), dataset)


def test_an_image_that_cannot_be_read_is_named(threshold: Tiny, dataset: Path) -> None:
    broken = dataset / "images" / "07.png"
    broken.write_bytes(broken.read_bytes()[:200])

    with pytest.raises(DataError, match=r"images/07\.png: "):
        calibrate(threshold.predictor(), dataset)


def test_a_network_that_gives_no_numbers_is_refused(threshold: Tiny, dataset: Path) -> None:
    torch.save({"weight": torch.full((1, 3, 1, 1), torch.nan), "bias": torch.zeros(1)}, threshold.weights)

    with pytest.raises(DataError, match=r"06\.png: the network gives values that are no numbers"):
        calibrate(threshold.predictor(), dataset)


def test_a_mask_of_another_size_is_named(threshold: Tiny, dataset: Path) -> None:
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(dataset / "labels" / "02.png")

    with pytest.raises(DataError, match=r"02\.png: the mask is 50 x 40 pixels, its image 56 x 40"):
        calibrate(threshold.predictor(), dataset)
