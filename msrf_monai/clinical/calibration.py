"""Bounds of the quality flags that fit a bundle: how its training data look, and how sure it is when it is right."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.predictor import Predictor
from msrf_monai.clinical.predictor_decision import dice_of_classes
from msrf_monai.clinical.quality import FLAGS, TRAITS, Bounds, QualityLimits, flags_of
from msrf_monai.clinical.reading import open_case
from msrf_monai.clinical.statistics import CaseStatistics, measure
from msrf_monai.data.datalist import load_datalist
from msrf_monai.errors import DataError, InputError, MsrfError
from msrf_monai.json_files import read_json, write_json
from msrf_monai.transforms.load_mask import LoadMask2D

__all__ = [
    "Calibration",
    "CalibrationOptions",
    "Checked",
    "author_limits",
    "calibrate",
    "choose_limits",
    "store_calibration",
]

_STEPS = (
    *((part, 0.0) for part in (1.0, 0.8, 0.6, 0.4, 0.2)),
    *((0.0, margin) for margin in (0.1, 0.25, 0.5, 1.0, 2.0)),
)
"""From strict to loose: what part of the wanted share of false alarms each bound may raise alone, and how far ranges of
training data are widened, as a share of what they span."""
_LEAST_SPAN = {"shorter_side": 1.0, "aspect": 0.05}
"""What a trait is taken to span at least; 1 for values, of which white has 255."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What is wanted of flags.

    Raises:
        InputError: when a number lies outside its range, or a trait is unknown.
    """

    right_dice: float = 0.7
    """A validation image is predicted right when its Dice is at least this; a flag on it is a false alarm."""
    false_alarms: float = 0.05
    """Share of right results that may be flagged."""
    leave_out: tuple[str, ...] = ()
    """Traits that are not to be judged, such as ``shorter_side`` where copies in one small size were trained on."""
    base: QualityLimits = QualityLimits()  # noqa: RUF009 (frozen)
    """Bounds of the flags that are not calibrated."""

    def __post_init__(self) -> None:
        for name in ("right_dice", "false_alarms"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0 and below 1")
        for name in self.leave_out:
            if name not in TRAITS:
                raise InputError(f"the trait {name!r} is unknown; there are {', '.join(TRAITS)}")


@dataclass(frozen=True)
class Checked:
    """A validation image: what the network made of it."""

    statistics: CaseStatistics
    dice: float


@dataclass(frozen=True)
class Calibration:
    """Bounds, and how they did on the validation images that they were chosen by."""

    limits: QualityLimits
    training_images: int
    right: int
    """Validation images that were predicted right."""
    wrong: int
    false_alarms: int
    """Of the right ones, how many are flagged."""
    caught: int
    """Of the wrong ones, how many are flagged."""
    raised: Mapping[str, tuple[int, int]]
    """For each flag that was raised: on how many right and wrong results."""
    options: CalibrationOptions

    @property
    def false_alarm_rate(self) -> float:
        """Share of right results that are flagged; NaN without any."""
        return self.false_alarms / self.right if self.right else math.nan

    def as_metadata(self) -> dict[str, Any]:
        """Return it as ``quality_calibration`` in metadata.json holds it."""
        return {
            "training_images": self.training_images,
            "validation_images": self.right + self.wrong,
            "right_dice": self.options.right_dice,
            "right": self.right,
            "right_flagged": self.false_alarms,
            "false_alarm_rate": round(self.false_alarm_rate, 4),
            "wrong": self.wrong,
            "wrong_flagged": self.caught,
            "base": self.options.base.as_metadata(),
            "flags": {name: {"right": right, "wrong": wrong} for name, (right, wrong) in self.raised.items()},
        }


def calibrate(
    predictor: Predictor,
    dataset_dir: str | os.PathLike[str],
    options: CalibrationOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> Calibration:
    """Choose the bounds of a bundle's flags by the data that it was trained and validated on.

    The range of areas is what the middle 98 % of the training masks cover, and the range of each trait what nearly all
    training images span; they are widened where few training images would raise too many false alarms. Below which
    confidence and agreement of mirror images a result is flagged is chosen on the validation images, as high as the
    wanted share of false alarms allows.

    Args:
        predictor: of the bundle; with ``check_flips`` the agreement of mirror images is calibrated too.
        dataset_dir: prepared data set with a training and a validation part.
        options: what is wanted.
        progress: is told the part, how many of its images are done, and how many there are.

    Returns:
        The bounds and how they do.

    Raises:
        DataError: when a part is empty, an image cannot be read, a mask does not fit its image, or the network gives no
            numbers for an image; the sentence names the file.
        InputError: when nothing is marked in the training part, or no validation image is predicted right.
    """
    options = options or CalibrationOptions()
    classes = len(predictor.segments)
    areas, traits, checked = [], [], []
    parts = [(part, load_datalist(dataset_dir, part)) for part in ("training", "validation")]
    for part, items in parts:
        for number, item in enumerate(items):
            with _naming(item["image"]):
                case, mask = _pair(item, classes)
                if part == "training":
                    areas.append(float((mask > 0).mean()))
                    traits.append(predictor.prepare(case, 0)["traits"])
                else:
                    checked.append(_checked(predictor, case, mask))
            progress(part, number + 1, len(items))
    return choose_limits(areas, traits, checked, options)


def choose_limits(
    areas: Sequence[float],
    traits: Sequence[Mapping[str, float]],
    checked: Sequence[Checked],
    options: CalibrationOptions | None = None,
) -> Calibration:
    """Choose bounds by what was measured.

    Args:
        areas: marked share of each training mask; empty masks are left out.
        traits: of each training image.
        checked: the validation images.
        options: what is wanted.

    Raises:
        InputError: when nothing is marked in the training part, or no validation image is predicted right.
    """
    options = options or CalibrationOptions()
    marked = [area for area in areas if area > 0]
    right = [each for each in checked if each.dice >= options.right_dice]
    if not marked or not right:
        raise InputError(
            f"{len(marked)} training masks with something marked and {len(right)} validation images with a Dice of "
            f"{options.right_dice} and more; flags cannot be calibrated before the network works"
        )
    tried = []
    for part, margin in _STEPS:
        share = part * options.false_alarms
        limits = replace(
            _cut_off([each.statistics for each in right], share, options.base),
            area=_share_of_a_frame(_range(marked, 0.01, margin, least_span=0.0)),
            traits=tuple(
                (name, _range([each[name] for each in traits], share / len(TRAITS), margin, _LEAST_SPAN.get(name, 1.0)))
                for name in TRAITS
                if name not in options.leave_out
            ),
        )
        tried.append(_tried(limits, len(traits), checked, options))
        if tried[-1].false_alarm_rate <= options.false_alarms:
            return tried[-1]
    # flags that no bound changes may be too many: then nothing is gained by looser bounds than the first of the best
    return min(tried, key=lambda each: each.false_alarms)


def author_limits(metadata: Mapping[str, Any]) -> QualityLimits:
    """Return the bounds that a bundle's author has given, those that an earlier calibration started from.

    Args:
        metadata: the parsed metadata.json.

    Raises:
        ConfigError: as ``QualityLimits.from_metadata``.
    """
    stored = metadata.get("quality_calibration") or {}
    return QualityLimits.from_metadata({"quality_limits": stored["base"]} if "base" in stored else metadata)


def store_calibration(bundle: str | os.PathLike[str], found: Calibration, dataset: str) -> Path:
    """Write bounds into a bundle's ``metadata.json``: ``quality_limits``, and how they did: ``quality_calibration``.

    Args:
        bundle: its folder.
        found: the calibration.
        dataset: name of the data, for people.

    Returns:
        The file.

    Raises:
        DataError: when the file cannot be read.
        StorageError: when it cannot be written.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    metadata = read_json(path, "give the folder of a bundle")
    metadata["quality_limits"] = found.limits.as_metadata()
    metadata["quality_calibration"] = {"dataset": dataset, **found.as_metadata()}
    write_json(path, metadata)
    return path


@contextmanager
def _naming(image: str) -> Iterator[None]:
    """Put the name of an image before whatever is wrong with it."""
    try:
        yield
    except MsrfError as error:
        raise DataError(f"{image}: {error}") from error


def _checked(predictor: Predictor, case: Case, mask: npt.NDArray[np.uint8]) -> Checked:
    prediction = predictor.predict(case)
    if not np.isfinite(prediction.confidence).all():
        raise DataError("the network gives values that are no numbers; train it again before it is calibrated")
    statistics = measure(case.info, prediction, len(predictor.segments))
    return Checked(statistics, dice_of_classes(prediction.mask[0], mask))


def _pair(item: Mapping[str, str], classes: int) -> tuple[Case, npt.NDArray[np.uint8]]:
    case = open_case(Path(item["image"]))
    mask = np.asarray(LoadMask2D(None if classes == 1 else classes + 1)(item["label"]))[0].T
    if mask.shape != (case.info.rows, case.info.columns):
        raise DataError(
            f"{item['label']}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image {case.info.columns} x "
            f"{case.info.rows}; prepare the data set again"
        )
    return case, mask


def _cut_off(right: Sequence[CaseStatistics], share: float, base: QualityLimits) -> QualityLimits:
    """Return bounds each of which should cut off at most this share of right results, of these and of new images."""
    flips = [min(each.flip_agreement) for each in right if each.flip_agreement]
    return replace(
        base,
        low_confidence=_least([min(each.confidence) for each in right], share, base.low_confidence),
        flip_agreement=_least(flips, share, base.flip_agreement),
        touches_border=max(base.touches_border, -_least([-_most(each, "border_share") for each in right], share, 0.0)),
        many_components=max(
            base.many_components, math.ceil(-_least([-_most(each, "components") for each in right], share, 0.0))
        ),
    )


def _tried(
    limits: QualityLimits, training_images: int, checked: Sequence[Checked], options: CalibrationOptions
) -> Calibration:
    told = []
    for each in checked:
        is_right = each.dice >= options.right_dice
        # an empty mask that is right is no false alarm of any bound
        quiet = {"empty_mask"} if is_right else set[str]()
        told.append((is_right, set(flags_of(each.statistics, limits)) - quiet))
    raised = {
        flag: tuple(sum(flag in flags for is_right, flags in told if is_right is side) for side in (True, False))
        for flag in FLAGS
    }
    right = sum(is_right for is_right, _ in told)
    return Calibration(
        limits=limits,
        training_images=training_images,
        right=right,
        wrong=len(told) - right,
        false_alarms=sum(is_right and bool(flags) for is_right, flags in told),
        caught=sum(not is_right and bool(flags) for is_right, flags in told),
        raised={flag: (counts[0], counts[1]) for flag, counts in raised.items() if any(counts)},
        options=options,
    )


def _least(values: Sequence[float], share: float, usual: float) -> float:
    """Return a bound that at most a share of these values, and of new ones like them, are expected to lie below.

    That is one of the values, counted as in conformal prediction; where there are too few of them for such a share, the
    usual bound, or the lowest value when that is lower.
    """
    ordered = sorted(values)
    place = math.floor(share * (len(ordered) + 1)) - 1
    return _down(ordered[place]) if place >= 0 else min([usual, *(_down(value) for value in ordered[:1])])


def _most(statistics: CaseStatistics, name: str) -> float:
    return max((getattr(region, name) for region in statistics.regions), default=0)


def _range(values: Sequence[float], share: float, margin: float, least_span: float) -> Bounds:
    """Return the range without this share at each end, widened by a part of what it spans, or should span at least.

    Where all values are one, as the size of prepared copies may be, it reaches from half to twice of it.
    """
    low, high = np.quantile(values, (share, 1 - share))
    wider = margin * max(high - low, least_span)
    if min(values) == max(values):
        low, high = sorted((values[0] / 2, values[0] * 2))
    return _down(low - wider), _up(high + wider)


def _share_of_a_frame(bounds: Bounds) -> Bounds:
    smallest, largest = (min(max(bound or 0.0, 0.0), 1.0) for bound in bounds)
    return smallest, largest


def _down(value: float) -> float:
    """Return a short number that is not above the value."""
    return math.floor(float(value) * 1e5) / 1e5


def _up(value: float) -> float:
    """Return a short number that is not below the value."""
    return math.ceil(float(value) * 1e5) / 1e5
