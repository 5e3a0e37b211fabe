"""Fractals whose exponents are known: surfaces of any roughness, and measures with a whole spectrum of exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from msrf_monai.errors import InputError

__all__ = ["CascadeTruth", "fractional_brownian_surface", "multiplicative_cascade"]

Doubles = NDArray[np.float64]

MOST_CELLS = 2**28  # 2 GiB of float64
_ROUNDING = 1e-9  # eigenvalues this far below 0, relative to the largest, are rounding and not a wrong embedding


def fractional_brownian_surface(
    size: tuple[int, int], hurst: float, *, seed: int | np.random.Generator = 0
) -> NDArray[np.float64]:
    """Draw an exact fractional Brownian surface by Stein's circulant embedding.

    M. L. Stein, "Fast and exact simulation of fractional Brownian surfaces", J. Comput. Graph. Stat. 11 (2002), with
    the covariance continued smoothly to twice the distance where ``hurst`` exceeds 0.75 (Gneiting and others, J.
    Comput. Graph. Stat. 15 (2006)).

    The surface is normalised by its increments: X is Gaussian with mean 0, X[0, 0] = 0, and for any two pixels p and q,
    E (X(p) - X(q))² = |p - q|^(2 hurst), distances in pixels. So neighbours differ by a standard deviation of 1, and a
    larger surface is higher, not rougher. Nothing is rescaled by what was drawn, since that would bend the law.

    Args:
        size: height and width in pixels, 2 or more each. What is transformed is a square of twice the diagonal, above
            a ``hurst`` of 0.75 of four times the diagonal: then each of a few arrays takes 13 MB for 224 x 224, and
            270 MB for 1024 x 1024.
        hurst: Hölder exponent of the surface, in (0, 1): near 0 rough, near 1 smooth.
        seed: number that chooses the surface, or the generator to draw from.

    Returns:
        float64, (H, W).

    Raises:
        InputError: when an argument is out of range, or the embedding has a negative eigenvalue, so that no surface
            with these increments can be drawn this way.

    Example:
        >>> surface = fractional_brownian_surface((48, 64), hurst=0.5, seed=3)
        >>> surface.shape, float(surface[0, 0])
        ((48, 64), 0.0)
    """
    if len(size) != 2 or min(size) < 2:
        raise InputError(f"size is {size}; expected height and width of 2 pixels or more")
    if not 0 < hurst < 1:
        raise InputError(f"hurst is {hurst}; expected a number between 0 and 1")
    rng = _generator(seed)
    height, width = size
    unit_px = math.hypot(height - 1, width - 1)  # the law holds up to this distance: the whole picture
    stein = _SteinCovariance.of(hurst)
    side = int(scipy.fft.next_fast_len(math.ceil(2 * stein.reach * unit_px), real=True))
    steps = np.arange(side)
    offset = np.minimum(steps, side - steps) / unit_px
    eigenvalues = _eigenvalues(stein(np.hypot(offset[:, None], offset)), hurst)

    noise: NDArray[np.complex128] = scipy.fft.rfft2(rng.standard_normal((side, side)))
    stationary: Doubles = scipy.fft.irfft2(noise * np.sqrt(eigenvalues), s=(side, side))[:height, :width]
    slopes = rng.standard_normal(2) * (math.sqrt(2 * stein.square) / unit_px)
    plane = slopes[0] * np.arange(height)[:, None] + slopes[1] * np.arange(width)
    # E (X(p) - X(q))² is now 2 (|p - q| / unit_px)^(2 hurst)
    return np.asarray((stationary - stationary[0, 0] + plane) * (unit_px**hurst / math.sqrt(2)))


@dataclass(frozen=True)
class _SteinCovariance:
    """Covariance c - h^a + s·h² up to distance 1, tapering off to 0 at the distance ``reach``."""

    exponent: float
    reach: float
    taper: float
    square: float
    constant: float

    @classmethod
    def of(cls, hurst: float) -> _SteinCovariance:
        a = 2 * hurst
        if a <= 1.5:
            return cls(a, 1.0, 0.0, a / 2, 1 - a / 2)
        reach = 2.0
        taper = a * (2 - a) / (3 * reach * (reach**2 - 1))
        square = (a - taper * (reach - 1) ** 2 * (reach + 2)) / 2
        return cls(a, reach, taper, square, taper * (reach - 1) ** 3 + 1 - square)

    def __call__(self, distance: Doubles) -> Doubles:
        near = self.constant - distance**self.exponent + self.square * distance**2
        beyond = np.clip(self.reach - distance, 0, None) ** 3 * self.taper / np.maximum(distance, 1)
        return np.where(distance <= 1, near, beyond)


def _eigenvalues(covariance: Doubles, hurst: float) -> Doubles:
    """Return the eigenvalues, half of the symmetric spectrum, of a covariance on a torus, none below 0."""
    eigenvalues: Doubles = scipy.fft.rfft2(covariance).real
    lowest = float(eigenvalues.min() / eigenvalues.max())
    if lowest < -_ROUNDING:
        raise InputError(
            f"the circulant embedding for hurst {hurst} on {covariance.shape} points has a negative eigenvalue "
            f"({lowest:.1e} of the largest), so the surface cannot be drawn exactly: change hurst or size a little"
        )
    return np.clip(eigenvalues, 0, None)


@dataclass(frozen=True)
class CascadeTruth:
    """What is known in closed form of a cascade, shuffled or not.

    The mass of a cube of side r around a point goes as r^alpha; alpha differs from point to point.

    Args:
        weights: shares of the 2^d children, as for ``multiplicative_cascade``.

    Raises:
        InputError: when the weights are not those of a cascade.

    Example:
        >>> truth = CascadeTruth((0.4, 0.3, 0.2, 0.1))
        >>> round(truth.typical_exponent, 4), round(truth.mass_typical_exponent, 4), truth.mass_exponent(0.0)
        (2.1757, 1.8464, -2.0)
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _checked(self.weights))

    @property
    def spatial_dims(self) -> int:
        """Dimension d of the space: 2 for four children, 3 for eight."""
        return len(self.weights).bit_length() - 1

    @property
    def typical_exponent(self) -> float:
        """alpha_0 = -mean(log2 w): the exponent at a point drawn uniformly."""
        return -sum(math.log2(weight) for weight in self.weights) / len(self.weights)

    @property
    def mass_typical_exponent(self) -> float:
        """D_1 = -sum(w log2 w): the exponent at a point drawn by the measure, the information dimension."""
        return -sum(weight * math.log2(weight) for weight in self.weights)

    @property
    def exponent_range(self) -> tuple[float, float]:
        """Smallest and largest exponent, -log2 of the largest and of the smallest weight."""
        return -math.log2(max(self.weights)), -math.log2(min(self.weights))

    def mass_exponent(self, q: float) -> float:
        """Return tau(q) = -log2 sum(w^q): over cells of side r, the sum of mass^q goes as r^tau(q)."""
        return -math.log2(sum(weight**q for weight in self.weights))


def multiplicative_cascade(
    weights: Sequence[float], levels: int, *, seed: int | np.random.Generator = 0, shuffle: bool = True
) -> NDArray[np.float64]:
    """Share out a mass of 1 among the children of each cell, again and again.

    Args:
        weights: shares of the children, above 0, sum 1: four for a plane, eight for a volume. In order, the last
            axis changes fastest: upper left, upper right, lower left, lower right.
        levels: how often each cell is divided, 1 or more.
        seed: number that chooses the cascade, or the generator to draw from; of no effect without ``shuffle``.
        shuffle: hand the shares to the children of each cell in an order of its own. Otherwise all have one order, and
            the measure is the product of the axes' digits, the same for every seed.

    Returns:
        The mass of each cell, float64, (2^levels, 2^levels), or with a third axis; its sum is 1 but for rounding.

    Raises:
        InputError: when the weights are not four or eight shares of 1, or there would be no cell or more than 2^28.

    Example:
        >>> multiplicative_cascade([0.4, 0.3, 0.2, 0.1], 1, shuffle=False)
        array([[0.4, 0.3],
               [0.2, 0.1]])
    """
    shares = np.array(_checked(weights))
    dims = len(shares).bit_length() - 1
    if levels < 1 or 2 ** (dims * levels) > MOST_CELLS:
        raise InputError(f"levels is {levels}; expected 1 to {(MOST_CELLS.bit_length() - 1) // dims} in {dims}-D")
    rng = _generator(seed)
    measure = np.ones((1,) * dims)
    for _ in range(levels):
        children = np.broadcast_to(shares, (measure.size, len(shares)))
        if shuffle:
            children = rng.permuted(children, axis=1)
        masses = (measure.reshape(-1, 1) * children).reshape(measure.shape + (2,) * dims)
        beside_parent = [axis for pair in zip(range(dims), range(dims, 2 * dims), strict=True) for axis in pair]
        measure = masses.transpose(beside_parent).reshape([2 * length for length in measure.shape])
    return measure


def _checked(weights: Sequence[float]) -> tuple[float, ...]:
    """Return the weights with a sum of 1 to the last digit, which many levels would otherwise multiply."""
    if len(weights) not in (4, 8):
        raise InputError(f"there are {len(weights)} weights; expected 4 children in a plane or 8 in a volume")
    total = math.fsum(weights)
    if not min(weights) > 0 or not math.isclose(total, 1, abs_tol=1e-9):
        raise InputError(f"weights are {tuple(weights)}, sum {total}; expected numbers above 0 whose sum is 1")
    return tuple(float(weight) / total for weight in weights)


def _generator(seed: int | np.random.Generator) -> np.random.Generator:
    if isinstance(seed, int) and seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")
    return np.random.default_rng(seed)
