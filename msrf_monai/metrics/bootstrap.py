"""Confidence intervals over images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from msrf_monai.errors import InputError

__all__ = ["bootstrap_interval"]

_BATCH_VALUES = 2_000_000  # resampled numbers held at once: 16 MB for each sample
_SEED_NAME = "rng" if "rng" in inspect.signature(scipy.stats.bootstrap).parameters else "random_state"  # SciPy < 1.15


def bootstrap_interval(
    values: ArrayLike | Sequence[ArrayLike],
    *,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a confidence interval by resampling images with SciPy's percentile bootstrap.

    Args:
        values: one number an image, shape (N,); or several arrays of shape (N,) that belong together, such as the
            images' TP, FP and FN, for a pooled statistic. An image with a NaN in any of them is left out.
        statistic: called with one array for each given, of shape (..., N), and ``axis=-1``.
        confidence: share of the resampled statistics inside, in (0, 1).
        samples: number of resamples.
        seed: seed of the resampling.

    Returns:
        Lower and upper end. With one image, or images that are all alike, both are the statistic itself; without any
        image both are NaN.

    Raises:
        InputError: when the arrays have different lengths, or confidence or samples are out of range.
    """
    if not 0 < confidence < 1 or samples < 1:
        raise InputError(f"confidence must be in (0, 1) and samples 1 or more, got {confidence} and {samples}")
    data = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if data.ndim != 2:
        raise InputError(f"values must be one or more arrays (N,), got shape {data.shape}")
    data = data[:, np.isfinite(data).all(0)]
    if data.shape[1] == 0:
        return float("nan"), float("nan")
    if np.all(data == data[:, :1]):
        alone = float(statistic(*data, axis=-1))
        return alone, alone
    result = scipy.stats.bootstrap(
        tuple(data),
        statistic,
        n_resamples=samples,
        batch=max(1, _BATCH_VALUES // data.shape[1]),
        vectorized=True,
        paired=True,
        axis=-1,
        confidence_level=confidence,
        method="percentile",  # BCa is undefined where leaving out one image changes nothing
        **{_SEED_NAME: np.random.default_rng(seed)},
    )
    interval: NDArray[np.float64] = np.asarray(result.confidence_interval)
    return float(interval[0]), float(interval[1])
