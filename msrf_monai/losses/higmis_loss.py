"""Losses of Hi-gMISnet's generators and discriminators: deep supervision and adversarial terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from msrf_monai.errors import InputError
from msrf_monai.losses.msrf_loss import clipped_cross_entropy
from msrf_monai.networks.nets.higmis_net_generator import HiGMISNetGeneratorOutput
from msrf_monai.networks.padding import pad_to_multiple

__all__ = [
    "Branch",
    "HiGMISDiscriminatorLoss",
    "HiGMISGeneratorLoss",
    "SupervisionTargets",
    "supervision_targets",
]

Branch = Literal["lesion", "background"]
"""Which of the two generators: of the mask, or of its complement."""

SupervisionTargets = Literal["released", "uniform"]
"""What the attention maps are held to, see ``supervision_targets``."""


def supervision_targets(
    mask: torch.Tensor, branch: Branch = "lesion", kind: SupervisionTargets = "released"
) -> HiGMISNetGeneratorOutput:
    """Make the target of each of a generator's seven maps.

    Smaller targets are halved and quartered bilinearly without antialiasing, so they take values between 0 and 1; odd
    sizes are first filled up by repeating the last row and column.

    Args:
        mask: true foreground in [0, 1], float ``(B, 1, H, W)``.
        branch: "lesion", whose own target T is the mask, or "background", whose own is 1 - mask.
        kind: "uniform" holds every map to T; "released" does what the authors' code does: the same except that for
            both generators alpha2 is held to the mask and beta2 to 1 - mask, which looks like a slip.

    Returns:
        The targets by the names and with the shapes of ``HiGMISNetGeneratorOutput``.

    Raises:
        InputError: when an option is unknown or the mask has another shape.
    """
    _check_choice("branch", branch, get_args(Branch))
    _check_choice("kind", kind, get_args(SupervisionTargets))
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise InputError(f"the mask has shape {tuple(mask.shape)}; expected (B, 1, H, W)")
    own = mask if branch == "lesion" else 1.0 - mask
    half, quarter = _shrink(own, 2), _shrink(own, 4)
    alpha2, beta2 = half, half
    if kind == "released":
        alpha2 = _shrink(mask, 2)
        beta2 = 1.0 - alpha2
    return HiGMISNetGeneratorOutput(own, own, own, alpha2, beta2, quarter, quarter)


def _shrink(target: torch.Tensor, factor: int) -> torch.Tensor:
    shrunk = F.interpolate(pad_to_multiple(target, factor), scale_factor=1.0 / factor, mode="bilinear")
    return shrunk  # ceil(H / factor), ceil(W / factor)


class HiGMISGeneratorLoss(_Loss):
    """Loss of one generator of Hi-gMISnet without the reciprocal term, as the authors' code computes it.

    Showrav and Hasan, Physics in Medicine and Biology 69 (2024) 115019, doi:10.1088/1361-6560/ad3cb3: the sum of binary
    cross-entropies of the mask (weight 25), of the attention maps at full, half and quarter size (5, 5 and 3 for each
    alpha and beta), and of the discriminator's scores against 1. Probabilities are clipped to [1e-7, 1 - 1e-7], and
    everything is computed in float32 under autocast.

    Args:
        branch: which generator.
        targets: "released" or "uniform", see ``supervision_targets``.
        weights: of the seven maps in their order; ``(25, 0, 0, 0, 0, 0, 0)`` is without deep supervision.
        adversarial_weight: of the discriminator's scores.

    Raises:
        InputError: when an option is unknown or a weight negative.

    Example:
        >>> import torch
        >>> from msrf_monai.networks import HiGMISNetGenerator
        >>> mask = torch.zeros(1, 1, 32, 64)
        >>> mask[:, :, 8:20, 10:30] = 1
        >>> output = HiGMISNetGenerator(features=4, backbones=())(torch.rand(1, 3, 32, 64))
        >>> bool(HiGMISGeneratorLoss()(output, mask, scores=torch.full((1, 1, 2, 4), 0.5)) > 0)
        True
    """

    def __init__(
        self,
        branch: Branch = "lesion",
        targets: SupervisionTargets = "released",
        weights: Sequence[float] = (25.0, 5.0, 5.0, 5.0, 5.0, 3.0, 3.0),
        adversarial_weight: float = 1.0,
    ) -> None:
        super().__init__()
        _check_choice("branch", branch, get_args(Branch))
        _check_choice("targets", targets, get_args(SupervisionTargets))
        names = HiGMISNetGeneratorOutput._fields
        if len(weights) != len(names) or any(w < 0 or not math.isfinite(w) for w in (*weights, adversarial_weight)):
            raise InputError(
                f"weights is {tuple(weights)} and adversarial_weight {adversarial_weight}; expected {len(names)} "
                f"numbers of at least 0 (of {', '.join(names)}), and one"
            )
        self.branch: Branch = branch
        self.targets: SupervisionTargets = targets
        self.weights = dict(zip(names, map(float, weights), strict=True)) | {"adversarial": float(adversarial_weight)}

    def forward(
        self, input: HiGMISNetGeneratorOutput, target: torch.Tensor, scores: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the weighted sum.

        Args:
            input: the generator's seven maps.
            target: true foreground in [0, 1], ``(B, 1, H, W)``, for the background's generator too.
            scores: what the frozen discriminator says about the generator's mask, any shape, in [0, 1]; None leaves
                the adversarial term out.

        Returns:
            A scalar in float32 (float64 when the maps are).

        Raises:
            InputError: when ``input`` is not the seven maps, or the shapes do not fit.
        """
        terms = self.terms(input, target, scores)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def terms(
        self, input: HiGMISNetGeneratorOutput, target: torch.Tensor, scores: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Compute the terms, not weighted; arguments and errors as for ``forward``.

        Returns:
            Scalars by the names of the maps, and "adversarial" when there are scores.
        """
        if not isinstance(input, tuple) or len(input) != len(HiGMISNetGeneratorOutput._fields):
            raise InputError(
                f"the loss got a {type(input).__name__}; expected the seven maps of a generator in training mode "
                "(in evaluation mode the network returns only the mask: call net.forward_all)"
            )
        maps = HiGMISNetGeneratorOutput(*(_at_least_float32(m) for m in input))
        truth = target.as_subclass(torch.Tensor).to(maps.mask.dtype)
        if truth.shape != maps.mask.shape:
            raise InputError(
                f"the target has shape {tuple(truth.shape)}; expected that of the mask, {tuple(maps.mask.shape)}"
            )
        with torch.autocast(device_type=truth.device.type, enabled=False):
            goals = supervision_targets(truth, self.branch, self.targets)
            terms = {
                name: clipped_cross_entropy(found, goal)
                for name, found, goal in zip(maps._fields, maps, goals, strict=True)
            }
            if scores is not None:
                judged = _at_least_float32(scores)
                terms["adversarial"] = clipped_cross_entropy(judged, torch.ones_like(judged))
            return terms


class HiGMISDiscriminatorLoss(_Loss):
    """Loss of a discriminator of Hi-gMISnet: the mean absolute difference of its scores from 1 or from 0.

    The authors' code takes one step on true masks and one on predicted ones.

    Args:
        weight: factor of the result; 0.5 in the released training.

    Raises:
        InputError: when the weight is negative.

    Example:
        >>> import torch
        >>> HiGMISDiscriminatorLoss()(torch.full((2, 1, 4, 6), 0.75), is_real=True).item()
        0.125
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        if weight < 0 or not math.isfinite(weight):
            raise InputError(f"weight is {weight}; expected a number of at least 0")
        self.weight = float(weight)

    def forward(self, scores: torch.Tensor, is_real: bool) -> torch.Tensor:
        """Compute the loss of scores in [0, 1], of any shape, for true (1) or predicted (0) masks; a scalar."""
        judged = _at_least_float32(scores)
        return self.weight * (judged - float(is_real)).abs().mean()


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    plain = x.as_subclass(torch.Tensor)
    return plain.to(torch.promote_types(plain.dtype, torch.float32))


def _check_choice(name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise InputError(f"{name} is {given!r}; expected one of {', '.join(map(repr, allowed))}")
