"""Paired comparison of two variants over the images and the folds of a cross-validation.

The folds of a cross-validation are not independent: each two training parts share most of their images. A plain paired
t-test over folds, as articles use it, takes their scores for independent and finds too many differences. The default
here is the corrected resampled t-test of Nadeau and Bengio (Machine Learning 52, 2003, doi:10.1023/A:1024068626366):
the variance of the mean is (1/K + n_test/n_train) s² in place of s²/K.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from msrf_monai.errors import InputError
from msrf_monai.metrics.bootstrap import bootstrap_interval

__all__ = [
    "Comparison",
    "MeanTest",
    "clustered_interval",
    "compare",
    "corrected_resampled_t",
    "holm",
    "paired_t",
]

Key = tuple[int, str]
"""Fold and name of an image."""


@dataclass(frozen=True)
class MeanTest:
    """A test of a mean against zero.

    Attributes:
        mean: the mean.
        interval: its confidence interval.
        t: the statistic.
        df: degrees of freedom.
        p: two-sided p.
    """

    mean: float
    interval: tuple[float, float]
    t: float
    df: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """A variant minus the baseline, one score.

    Attributes:
        images: number of images that both have.
        folds: number of folds that both have.
        mean: mean difference over images.
        interval_folds: bootstrap interval of it that draws folds.
        interval_images: bootstrap interval of it that draws images, or groups of images.
        fold_differences: difference of the fold's means, by fold.
        better: number of images with a higher score than the baseline's.
        worse: number of images with a lower one.
        corrected: Nadeau and Bengio's test over folds; None with fewer than two folds.
        uncorrected: the articles' plain paired t-test over folds.
    """

    images: int
    folds: int
    mean: float
    interval_folds: tuple[float, float]
    interval_images: tuple[float, float]
    fold_differences: Mapping[int, float]
    better: int
    worse: int
    corrected: MeanTest | None
    uncorrected: MeanTest | None


def paired_t(differences: ArrayLike, *, confidence: float = 0.95) -> MeanTest:
    """Test with the plain paired t-test over folds, as ``scipy.stats.ttest_rel`` does.

    Args:
        differences: one for each fold, shape (K,), K at least 2.
        confidence: of the interval.

    Returns:
        The test. Differences that are all zero give p = 1.

    Raises:
        InputError: when there are fewer than two differences, or one is not finite.
    """
    return _t_test(differences, 0.0, confidence)


def corrected_resampled_t(differences: ArrayLike, *, ratio: float, confidence: float = 0.95) -> MeanTest:
    """Test with Nadeau and Bengio's corrected resampled t-test.

    Args:
        differences: one for each fold, shape (K,), K at least 2.
        ratio: number of test images divided by that of training images, above 0.
        confidence: of the interval.

    Returns:
        The test. Differences that are all zero give p = 1.

    Raises:
        InputError: when there are fewer than two differences, one is not finite, or the ratio is not above 0.

    Example:
        >>> corrected_resampled_t([0.01, 0.03, 0.02], ratio=0.5).df
        2
    """
    if not ratio > 0:
        raise InputError(f"the ratio of test to training images is {ratio}; expected a number above 0")
    return _t_test(differences, ratio, confidence)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number by Holm's step-down method, which keeps the family-wise error rate.

    Args:
        p_values: in [0, 1]; None for a test that could not be made, which does not count.

    Returns:
        The corrected values in the same order, at most 1, None where there was none.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return corrected


def clustered_interval(
    values: ArrayLike, clusters: Sequence[Hashable], *, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval of a mean that draws whole clusters of values, since those are not independent.

    Args:
        values: shape (N,).
        clusters: the cluster of each value: its fold, its patient, or its own name.
        confidence: share of the resampled means inside.
        samples: number of resamples.
        seed: seed of the resampling.

    Returns:
        Lower and upper end, as ``msrf_monai.metrics.bootstrap_interval`` gives them.

    Raises:
        InputError: when there are not as many clusters as values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(clusters),):
        raise InputError(
            f"there are values of shape {numbers.shape} and {len(clusters)} clusters; expected one for each"
        )
    sums: dict[Hashable, float] = defaultdict(float)
    counts: dict[Hashable, int] = defaultdict(int)
    for value, cluster in zip(numbers, clusters, strict=True):
        sums[cluster] += float(value)
        counts[cluster] += 1
    order = list(sums)
    return bootstrap_interval(
        np.array([[sums[cluster] for cluster in order], [counts[cluster] for cluster in order]]),
        statistic=_ratio_of_sums,
        confidence=confidence,
        samples=samples,
        seed=seed,
    )


def compare(
    variant: Mapping[Key, float],
    baseline: Mapping[Key, float],
    *,
    ratio: float,
    groups: Mapping[str, str | None] | None = None,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare a variant with the baseline on the images that both were tested on.

    Args:
        variant: score by fold and name of the image.
        baseline: the same of the baseline.
        ratio: number of test images divided by that of training images.
        groups: group of each image by name; images of one group are drawn together.
        confidence: of all intervals.
        samples: resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        The comparison; positive numbers mean that the variant is higher.

    Raises:
        InputError: when they have no image in common.
    """
    keys = sorted(key for key in variant.keys() & baseline.keys() if _both_finite(variant[key], baseline[key]))
    if not keys:
        raise InputError("the variant and the baseline have no image in common; nothing can be compared")
    differences = np.array([variant[key] - baseline[key] for key in keys])
    by_fold: dict[int, list[float]] = defaultdict(list)
    for (fold, _), difference in zip(keys, differences, strict=True):
        by_fold[fold].append(float(difference))
    means = {fold: float(np.mean(found)) for fold, found in by_fold.items()}
    own = groups or {}
    units = [("group", group) if (group := own.get(name)) is not None else ("image", name) for _, name in keys]
    settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    enough = len(means) > 1
    return Comparison(
        images=len(keys),
        folds=len(means),
        mean=float(differences.mean()),
        interval_folds=clustered_interval(differences, [fold for fold, _ in keys], **settings),
        interval_images=clustered_interval(differences, units, **settings),
        fold_differences=means,
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        corrected=corrected_resampled_t(list(means.values()), ratio=ratio, confidence=confidence) if enough else None,
        uncorrected=paired_t(list(means.values()), confidence=confidence) if enough else None,
    )


def _t_test(differences: ArrayLike, ratio: float, confidence: float) -> MeanTest:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(f"a t-test needs two or more finite differences, got {values.tolist()}")
    mean, count = float(values.mean()), len(values)
    error = math.sqrt((1 / count + ratio) * float(values.var(ddof=1)))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    if error > 0:
        t = mean / error
        p = float(2 * scipy.stats.t.sf(abs(t), count - 1))
    else:
        t, p = (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    return MeanTest(mean, (mean - half, mean + half), t, count - 1, p)


def _ratio_of_sums(sums: NDArray[Any], counts: NDArray[Any], *, axis: int = -1) -> NDArray[Any]:
    ratio: NDArray[Any] = sums.sum(axis=axis) / counts.sum(axis=axis)
    return ratio


def _both_finite(one: float, other: float) -> bool:
    return math.isfinite(one) and math.isfinite(other)
