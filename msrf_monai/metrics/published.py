"""Can published scores all be true? Sensitivity, specificity, F1 and accuracy of one table row, checked for agreement.

With the share of positives p (the prevalence), sensitivity Se and specificity Sp,

    accuracy = p Se + (1 - p) Sp
    F1 = 2 p Se / (p Se + p + (1 - p) (1 - Sp))

Each equation gives a p. Scores of the same pixels have only one, so the two must agree up to rounding. Means over
images need not: where images differ much they drift apart, by .009 for the second observer of CHASE_DB1 and by .023 for
that of STARE, inside the field of view. So a disagreement says that a number is something else **or** that the row is a
mean over very different images; the re-derived scores help to tell. A frequent cause is the negative predictive value
under the name of specificity.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from msrf_monai.errors import InputError

__all__ = ["ScoreConsistency", "accuracy_and_f1_at", "published_scores_consistency"]

_NAN = float("nan")
_SAME = 5e-4  # means of images lift the NPV by about 2e-4, rounding moves it by 5e-5


@dataclass(frozen=True)
class ScoreConsistency:
    """What published sensitivity, specificity, F1 and accuracy imply.

    Args:
        agree: whether the four can be scores of the same pixels, or means close to them.
        prevalence_from_accuracy: share of positives that follows from sensitivity, specificity and accuracy.
        prevalence_from_f1: share of positives that follows from sensitivity, specificity and F1.
        f1_from_accuracy: F1 that sensitivity, specificity and accuracy mean together.
        prevalence: share of positives that follows from sensitivity, F1 and accuracy, without the specificity.
        specificity: re-derived from these three.
        npv: negative predictive value, re-derived.
        ppv: positive predictive value (precision), re-derived.
        mcc: Matthews correlation coefficient, re-derived.
        specificity_is_npv: whether they disagree and the printed specificity is the re-derived NPV.
        verdict: all this in words.

    Values that do not exist are NaN. A share of positives outside [0, 1], or infinite, is impossible and shown as it
    comes out.
    """

    agree: bool
    prevalence_from_accuracy: float
    prevalence_from_f1: float
    f1_from_accuracy: float
    prevalence: float
    specificity: float
    npv: float
    ppv: float
    mcc: float
    specificity_is_npv: bool
    verdict: str


def accuracy_and_f1_at(prevalence: float, sensitivity: float, specificity: float) -> tuple[float, float]:
    """Return the accuracy and the F1 that a sensitivity and a specificity mean at a share of positives.

    Args:
        prevalence: share of positives, as are the others in [0, 1].
        sensitivity: of the positives, the share that is found.
        specificity: of the negatives, the share that is left.

    Returns:
        Accuracy and F1 in [0, 1]; F1 is NaN where there is no positive and none is found.
    """
    tp, fp = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    return tp + 1 - prevalence - fp, _divide(2 * tp, tp + prevalence + fp)


def published_scores_consistency(
    sensitivity: float,
    specificity: float,
    f1: float,
    accuracy: float,
    *,
    tolerance: float = 0.01,
    decimals: int = 4,
) -> ScoreConsistency:
    """Check whether four published scores can be of the same pixels, and re-derive the others without specificity.

    Args:
        sensitivity: in [0, 1], as are the others.
        specificity: as printed.
        f1: F1 or Dice.
        accuracy: as printed.
        tolerance: how far the two implied shares of positives may be apart beyond rounding. The default leaves room
            for means over images; 0 is right for scores of all pixels together.
        decimals: digits after the point that were printed, from 0.1234 on 4.

    Returns:
        Implied shares of positives, re-derived scores and the verdict.

    Raises:
        InputError: when a score is outside [0, 1], tolerance is negative or decimals are below 1.

    Example:
        >>> row = published_scores_consistency(0.8575, 0.9860, 0.7977, 0.9621)
        >>> row.agree, round(row.prevalence_from_accuracy, 3), round(row.prevalence_from_f1, 3)
        (False, 0.186, 0.046)
        >>> row.specificity_is_npv, round(row.specificity, 3)
        (True, 0.972)
    """
    printed = {"sensitivity": sensitivity, "specificity": specificity, "f1": f1, "accuracy": accuracy}
    for name, value in printed.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; expected a share in [0, 1]: divide per cent by 100")
    if tolerance < 0 or decimals < 1:
        raise InputError(f"tolerance must be 0 or more and decimals 1 or more, got {tolerance} and {decimals}")
    sensitivity, specificity, f1, accuracy = (float(value) for value in printed.values())
    half = 0.5 * 10**-decimals
    p_accuracy = _from_accuracy(sensitivity, specificity, accuracy)
    p_f1 = _from_f1(sensitivity, specificity, f1)
    ranges = (
        _rounded(_from_accuracy, (sensitivity, specificity, accuracy), half),
        _rounded(_from_f1, (sensitivity, specificity, f1), half),
        (0.0, 1.0),
    )
    gap = max(low for low, _ in ranges) - min(high for _, high in ranges)
    between = min(sensitivity, specificity) - 2 * half <= accuracy <= max(sensitivity, specificity) + 2 * half
    agree = between and gap <= tolerance
    derived = _without_specificity(sensitivity, f1, accuracy)
    result = ScoreConsistency(
        agree=agree,
        prevalence_from_accuracy=p_accuracy,
        prevalence_from_f1=p_f1,
        f1_from_accuracy=accuracy_and_f1_at(p_accuracy, sensitivity, specificity)[1],
        **derived,
        specificity_is_npv=not agree and abs(specificity - derived["npv"]) <= _SAME,
        verdict="",
    )
    return dataclasses.replace(result, verdict=_verdict(result, specificity))


def _from_accuracy(sensitivity: float, specificity: float, accuracy: float) -> float:
    """Return the share of positives; NaN where sensitivity and specificity are the same, so that it has no effect."""
    return _divide(specificity - accuracy, specificity - sensitivity)


def _from_f1(sensitivity: float, specificity: float, f1: float) -> float:
    """Return the share of positives; infinite where no share makes F1 so high, NaN where it has no effect."""
    below = 2 * sensitivity - f1 * (sensitivity + specificity)
    above = f1 * (1 - specificity)
    return math.inf if below < 0 or below == 0 < above else _divide(above, below)


def _rounded(
    formula: Callable[[float, float, float], float], values: tuple[float, float, float], half: float
) -> tuple[float, float]:
    """Return the smallest and the largest result for values that rounding made those given."""
    ends = [(max(0.0, value - half), min(1.0, value + half)) for value in values]
    results = [formula(*corner) for corner in itertools.product(*ends)]
    swapped = formula is _from_accuracy and abs(values[0] - values[1]) <= 2 * half
    if swapped or any(math.isnan(result) for result in results):
        return -math.inf, math.inf
    return min(results), max(results)


def _without_specificity(sensitivity: float, f1: float, accuracy: float) -> dict[str, float]:
    """Solve sensitivity, F1 and accuracy for the rest; NaN where no table of counts has these three."""
    derived = dict.fromkeys(("prevalence", "specificity", "npv", "ppv", "mcc"), _NAN)
    ppv = _divide(f1 * sensitivity, 2 * sensitivity - f1)
    if not 0 < ppv <= 1:
        return derived
    derived["ppv"] = ppv
    false_positives = sensitivity * (1 - ppv) / ppv  # for each positive
    p = _divide(1 - accuracy, false_positives + 1 - sensitivity)
    tp, fp, fn = p * sensitivity, p * false_positives, p * (1 - sensitivity)
    tn = 1 - tp - fp - fn
    if not (0 < p < 1 and tn > 0):
        return derived
    margins = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return derived | {
        "prevalence": p,
        "specificity": tn / (tn + fp),
        "npv": tn / (tn + fn),
        "mcc": (tp * tn - fp * fn) / margins,
    }


def _verdict(row: ScoreConsistency, specificity: float) -> str:
    shares = f"{row.prevalence_from_accuracy:.3f} by accuracy and {row.prevalence_from_f1:.3f} by F1"
    if row.agree:
        return f"The four scores agree: with the printed specificity the share of positives is {shares}."
    said = (
        f"The four scores cannot be of the same pixels: with the printed specificity the positives' share is {shares}."
    )
    if math.isnan(row.specificity):
        return f"{said} Sensitivity, F1 and accuracy alone cannot be either."
    derived = f"sensitivity, F1 and accuracy mean a share of {row.prevalence:.3f} and a specificity of"
    if row.specificity_is_npv:
        return (
            f"{said} The printed specificity, {specificity:.4f}, is the negative predictive value ({row.npv:.4f}): "
            f"{derived} {row.specificity:.4f}."
        )
    return (
        f"{said} Either F1 is wrong (the other three mean {row.f1_from_accuracy:.4f}) or another score is: "
        f"{derived} {row.specificity:.4f} instead of {specificity:.4f}."
    )


def _divide(above: float, below: float) -> float:
    return above / below if below != 0 else _NAN
