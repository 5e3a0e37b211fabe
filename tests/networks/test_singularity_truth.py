"""The singularity strength against closed forms and theory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msrf_monai.data.synthetic import CascadeTruth, fractional_brownian_surface, multiplicative_cascade
from msrf_monai.errors import InputError
from msrf_monai.networks.blocks import (
    LocalSingularityStrength,
    box_sums,
    rescale_range,
    singularity_exponent,
)
from support.singularity import QUICK, as_map, boxes_by_convolution, boxes_by_integral_image

CASCADE = (0.49, 0.21, 0.21, 0.09)


MARGIN = 8  # pixels at the border that the largest of the default boxes may leave


NOISE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "uniform": lambda normal: 0.5 + 0.5 * torch.erf(normal / math.sqrt(2)),
    "absolute": torch.abs,
    "rectified": torch.relu,
    "normal": lambda normal: normal,
}


def interior(alpha: torch.Tensor, margin: int = MARGIN) -> torch.Tensor:
    return alpha[..., margin:-margin, margin:-margin]


def nested_masses(masses: torch.Tensor) -> torch.Tensor:
    """Make a density ``(n, 1, K, K)`` for each row of masses ``(n, scales)``: its boxes around pixel K/2 - 1 hold them.

    So the slope is tested through the public function, together with the boxes' common centre, and not by itself.
    """
    scales = masses.shape[1]
    size = 2**scales
    density = torch.zeros(len(masses), 1, size, size, dtype=masses.dtype)
    for j in range(scales):
        corner = size // 2 - 2**j  # the upper left pixel of box j, which no smaller box has
        inner = masses[:, j - 1] if j else torch.zeros_like(masses[:, 0])
        density[:, 0, corner, corner] = masses[:, j] - inner
    return density


def central(alpha: torch.Tensor) -> torch.Tensor:
    """Return the exponents at the pixel around which ``nested_masses`` puts its boxes."""
    place = alpha.shape[-1] // 2 - 1
    return alpha[:, 0, place, place]


# ---- the slope alone


@pytest.mark.parametrize("max_scale", [2, 3, 4, 5])
@pytest.mark.parametrize(("dtype", "constant", "tolerance"), [(torch.float32, 3.0, 1e-5), (torch.float64, 1e7, 1e-12)])
def test_masses_that_grow_as_a_power_of_the_box_have_that_power_as_exponent(
    max_scale: int, dtype: torch.dtype, constant: float, tolerance: float
) -> None:
    powers = torch.tensor([0.0, 0.5, 2.0, 3.7, 6.0], dtype=dtype)
    sizes = 2.0 ** torch.arange(1, max_scale + 1, dtype=dtype)
    density = nested_masses(constant * sizes ** powers[:, None])

    alpha = central(singularity_exponent(density, max_scale, "none"))

    assert alpha.dtype == dtype
    torch.testing.assert_close(alpha, powers, rtol=0, atol=tolerance)


@pytest.mark.parametrize("max_scale", [2, 3, 4, 5])
def test_exponents_are_the_slopes_of_a_straight_line_fit(max_scale: int) -> None:
    x = torch.randn(2, 3, 37, 50)

    alpha = singularity_exponent(x, max_scale)

    masses = boxes_by_convolution(rescale_range(x.double()), max_scale)
    sizes = 2.0 ** np.arange(1, max_scale + 1)
    logs = np.log(np.stack([m.numpy().ravel() for m in masses]) + 1e-7)
    slopes = np.polyfit(np.log(sizes), logs, 1)[0]
    np.testing.assert_allclose(alpha.numpy().ravel(), slopes, rtol=0, atol=5e-6)


@pytest.mark.parametrize("max_scale", [2, 3, 4, 5])
def test_equal_scale_weights_give_least_squares(max_scale: int) -> None:
    x = torch.randn(1, 2, 20, 30, dtype=torch.float64)
    weights = torch.full((max_scale,), 0.37, dtype=torch.float64)
    weighted = singularity_exponent(x, max_scale, scale_weights=weights)
    torch.testing.assert_close(weighted, singularity_exponent(x, max_scale), rtol=0, atol=1e-12)


def test_scale_weights_enter_as_the_paper_s_code_has_them() -> None:
    x = torch.randn(1, 2, 20, 30, dtype=torch.float64)
    weights = np.array([0.2, 0.9, 0.6, 0.35])
    alpha = singularity_exponent(x, 4, scale_weights=torch.from_numpy(weights))

    masses = boxes_by_integral_image(rescale_range(x), 4)
    logs = np.log(np.stack([m.numpy() for m in masses]) + 1e-7)
    sizes = np.log(2.0 ** np.arange(1, 5))
    from_mean = sizes - sizes.mean()
    rise = np.tensordot(weights * from_mean, logs - logs.mean(axis=0), 1)  # both means without weights
    np.testing.assert_allclose(alpha.numpy(), rise / (weights * from_mean**2).sum(), rtol=0, atol=1e-9)


def test_the_middle_of_three_scales_gets_no_gradient() -> None:
    layer = LocalSingularityStrength(2, weighted=True)
    assert layer.scale_logits is not None
    layer.exponent(torch.randn(1, 2, 16, 20)).square().sum().backward()
    assert layer.scale_logits.grad is not None
    first, middle, last = layer.scale_logits.grad.tolist()
    assert middle == pytest.approx(0.0, abs=1e-4 * abs(first))
    assert abs(first) > 1e-3
    assert abs(last) > 1e-3


# ---- constant maps and borders


@pytest.mark.parametrize("max_scale", [2, 3, 4])
@pytest.mark.parametrize("value", [-3.0, 0.0, 250.0])
def test_a_constant_plane_is_as_strong_as_a_plane(max_scale: int, value: float) -> None:
    alpha = singularity_exponent(torch.full((1, 2, 40, 53), value), max_scale)
    assert (interior(alpha, 2**max_scale) - 2).abs().max().item() <= 1e-6


def test_a_constant_plane_ends_in_the_known_corners() -> None:
    alpha = singularity_exponent(torch.ones(1, 1, 40, 53))[0, 0]
    assert alpha[0, 0].item() == pytest.approx(0.5 * math.log2(25 / 4), abs=1e-6)
    assert alpha[0, 0].item() == pytest.approx(1.3219, abs=5e-5)
    assert alpha[-1, -1].item() == pytest.approx(2.0, abs=1e-6)
    # Three rows above and four below lack a part of the large box; in the last one the small box lacks as much.
    rows = (alpha[:, 26] - 2).abs() > 1e-6
    assert rows.nonzero().flatten().tolist() == [0, 1, 2, 36, 37, 38]


@pytest.mark.parametrize(("size", "mean"), [(224, 1.9885), (112, 1.9770), (56, 1.9541), (28, 1.9082)])
def test_zero_padding_lowers_the_mean_of_a_constant_plane_by_its_size(size: int, mean: float) -> None:
    alpha = singularity_exponent(torch.ones(1, 1, size, size))
    assert alpha.mean().item() == pytest.approx(mean, abs=1e-4)


def test_a_constant_volume_is_as_strong_as_a_volume() -> None:
    alpha = LocalSingularityStrength(1, spatial_dims=3).exponent(torch.ones(1, 1, 18, 20, 22))
    assert (alpha[..., 8:-8, 8:-8, 8:-8] - 3).abs().max().item() <= 1e-6
    assert alpha[0, 0, 0, 0, 0].item() == pytest.approx(0.5 * math.log2(125 / 8), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 64), (4, 6, 5)])
@pytest.mark.parametrize("scope", ["sample", "batch", "none"])
def test_borders_that_are_made_up_for_leave_a_constant_map_constant(size: tuple[int, ...], scope: str) -> None:
    alpha = singularity_exponent(torch.full((2, 1, *size), 7.0), norm_scope=scope, normalize_borders=True)
    assert (alpha - len(size)).abs().max().item() <= 1e-6


def test_borders_that_are_made_up_for_let_the_mean_not_depend_on_the_size() -> None:
    noise = torch.rand(1, 64, 112, 112)

    def mean(size: int, made_up: bool) -> float:
        return singularity_exponent(noise[..., :size, :size], normalize_borders=made_up).mean().item()

    assert mean(28, False) < mean(112, False) - 0.05
    assert mean(28, True) == pytest.approx(mean(112, True), abs=0.01)


@pytest.mark.parametrize("max_scale", [-1, 0, 1])
def test_one_box_size_is_refused(max_scale: int) -> None:
    with pytest.raises(InputError, match=rf"max_scale is {max_scale}; expected at least 2"):
        singularity_exponent(torch.ones(1, 1, 8, 8), max_scale)
    with pytest.raises(InputError, match=rf"max_scale is {max_scale}; expected at least 2"):
        LocalSingularityStrength(1, max_scale=max_scale)


@pytest.mark.parametrize("max_scale", [6, 8])
def test_boxes_larger_than_the_map_are_allowed(max_scale: int) -> None:
    x = torch.rand(1, 1, 5, 7, dtype=torch.float64)
    for box, expected in zip(box_sums(x, max_scale), boxes_by_integral_image(x, max_scale), strict=True):
        torch.testing.assert_close(box, expected)
    assert torch.isfinite(singularity_exponent(x, max_scale)).all()


def corner_density(power: float, size: int = 224) -> np.ndarray:
    """Integrate |x|^a |y|^a over the pixels of a map whose centre is the origin."""
    edges = np.arange(size + 1) - size / 2
    primitive = np.sign(edges) * np.abs(edges) ** (power + 1) / (power + 1)
    line = np.diff(primitive)
    return np.asarray(np.outer(line, line))


# ---- densities of known exponents


@pytest.mark.parametrize("power", [-0.4, -0.25, -0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("max_scale", [3, 5])
def test_a_corner_singularity_has_the_exponent_of_theory(power: float, max_scale: int) -> None:
    alpha = singularity_exponent(as_map(corner_density(power)), max_scale, "none")
    assert alpha[0, 0, 111, 111].item() == pytest.approx(2 + 2 * power, abs=1e-5)


@pytest.mark.parametrize(
    ("power", "stretched"),
    [(-0.4, 1.1935), (-0.25, 1.461), (-0.1, 1.687), (0.25, 4.06), (0.5, 3.01), (1.0, 2.05)],
)
def test_the_stretch_to_256_moves_a_corner_singularity_as_in_the_original(power: float, stretched: float) -> None:
    alpha = singularity_exponent(as_map(corner_density(power)))
    assert alpha[0, 0, 111, 111].item() == pytest.approx(stretched, abs=0.006)


@pytest.mark.parametrize("weights", [CASCADE, (0.35, 0.3, 0.2, 0.15), (0.64, 0.16, 0.16, 0.04)])
@pytest.mark.parametrize("max_scale", [3, 5])
def test_a_cascade_in_its_own_cells_has_the_exponents_of_theory(weights: tuple[float, ...], max_scale: int) -> None:
    measure = multiplicative_cascade(weights, 6, seed=1)
    by_scale = []
    for size in (2 ** (j + 1) for j in range(max_scale)):
        cells = measure.reshape(64 // size, size, 64 // size, size).sum(axis=(1, 3))
        by_scale.append(np.kron(cells, np.ones((size // 2, size // 2))).ravel())  # the cell of size k over each 2-cell
    masses = torch.from_numpy(np.stack(by_scale, axis=1))

    alpha = central(singularity_exponent(nested_masses(masses * 1e9), max_scale, "none"))

    truth = CascadeTruth(weights)
    assert alpha.mean().item() == pytest.approx(truth.typical_exponent, abs=1e-4)
    assert (alpha * masses[:, 0]).sum().item() == pytest.approx(truth.mass_typical_exponent, abs=1e-4)
    low, high = truth.exponent_range
    assert low - 1e-9 <= alpha.min().item() <= alpha.max().item() <= high + 1e-9


def test_a_cascade_under_sliding_boxes_has_the_known_means() -> None:
    cascades = [multiplicative_cascade(CASCADE, 8, seed=seed) * 4.0**8 for seed in range(10)]
    x = torch.stack([torch.from_numpy(c).float() for c in cascades])[:, None]
    raw = interior(singularity_exponent(x, norm_scope="none")).mean().item()
    stretched = interior(singularity_exponent(x)).mean().item()
    assert 2.27 <= raw <= 2.31
    assert 2.045 <= stretched <= 2.065


def test_brownian_surfaces_keep_the_mean_of_a_plane_and_only_their_spread_tells_roughness() -> None:
    means, spreads = [], []
    for hurst in (0.2, 0.5, 0.8):
        surfaces = [fractional_brownian_surface((224, 224), hurst, seed=seed) for seed in range(5)]
        x = torch.stack([torch.from_numpy(s).float() for s in surfaces])[:, None]
        alpha = interior(singularity_exponent(x))
        means.append(alpha.mean().item())
        spreads.append(alpha.flatten(1).std(dim=1).mean().item())
    assert means == pytest.approx([2.0, 2.0, 2.0], abs=0.01)
    assert spreads[0] > spreads[1] > spreads[2]


@pytest.mark.parametrize(
    ("noise", "mean"), [("rectified", 2.265), ("uniform", 2.032), ("absolute", 2.051), ("normal", 2.004)]
)
def test_noise_has_the_known_mean(noise: str, mean: float) -> None:
    x = NOISE[noise](torch.randn(8, 1, 224, 224))
    alpha = interior(singularity_exponent(x))
    assert alpha.mean().item() == pytest.approx(mean, abs=0.02 if noise == "rectified" else 0.01)


def test_one_bright_box_and_one_dark_box_are_the_extremes() -> None:
    x = torch.zeros(1, 1, 24, 24)
    x[..., 11:13, 11:13] = 1.0
    assert singularity_exponent(x)[0, 0, 11, 11].item() == pytest.approx(0.5 * math.log2(1084 / 1024), abs=1e-6)
    assert singularity_exponent(-x)[0, 0, 11, 11].item() == pytest.approx(0.5 * math.log2(15364 / 4), abs=1e-6)


@QUICK
@given(st.integers(0, 2**32 - 1), st.floats(-4, 4))
def test_no_interior_exponent_leaves_the_closed_range(seed: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 2, 24, 24, generator=generator).mul(sharpness).exp()
    alpha = interior(singularity_exponent(x))
    assert alpha.min().item() >= 0.041
    assert alpha.max().item() <= 5.954
