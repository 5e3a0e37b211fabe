"""The losses of the singularity-strength and multifractal networks: cross-entropy and Dice in equal parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch.nn.modules.loss import _Loss

from msrf_monai.errors import InputError
from msrf_monai.losses.msrf_loss import Activation

__all__ = ["BatchDiceBCELoss", "ImageDiceBCELoss"]

_SMOOTHING = 1e-12


class _DiceBCELoss(_Loss):
    """Half the cross-entropy and half the Dice loss; the subclass says what the sums of the Dice loss run over."""

    batch: ClassVar[bool]

    def __init__(
        self, activation: Activation = "sigmoid", *, clip: float | None = None, include_background: bool = True
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise InputError(f"activation is {activation!r}; expected one of {get_args(Activation)}")
        if clip is not None and not 0 < clip < 0.5:
            raise InputError(f"clip is {clip}; expected a number between 0 and 0.5, such as 1e-7, or None")
        self.activation = activation
        self.clip = clip
        self.dice: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = DiceLoss(
            smooth_nr=_SMOOTHING, smooth_dr=_SMOOTHING, batch=self.batch, include_background=include_background
        )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute half the cross-entropy plus half the Dice loss.

        Args:
            input: logits, float, (B, K, *spatial).
            target: mask of the same shape, in [0, 1]; one channel a class with ``"softmax"``.

        Returns:
            A scalar in float32 (float64 when the logits are).

        Raises:
            InputError: when the shapes differ, or there are no spatial axes.
        """
        terms = self.terms(input, target)
        return 0.5 * terms["cross_entropy"] + 0.5 * terms["dice"]

    def terms(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the two terms, not weighted; arguments and errors as for ``forward``.

        Returns:
            Scalars ``cross_entropy`` and ``dice`` (the loss, 1 - Dice).
        """
        if input.ndim < 3 or input.shape != target.shape:
            raise InputError(
                f"the logits have shape {tuple(input.shape)} and the target {tuple(target.shape)}; "
                "expected one shape (B, K, ...) for both"
            )
        with torch.autocast(device_type=input.device.type, enabled=False):
            logits = input.as_subclass(torch.Tensor).to(torch.promote_types(input.dtype, torch.float32))
            truth = target.as_subclass(torch.Tensor).to(logits.dtype)
            if self.activation == "softmax":
                probabilities, entropy = torch.softmax(logits, dim=1), self._softmax_entropy(logits, truth)
            else:
                probabilities, entropy = torch.sigmoid(logits), self._sigmoid_entropy(logits, truth)
            return {"cross_entropy": entropy, "dice": self.dice(probabilities, truth)}

    def _sigmoid_entropy(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self.clip is not None:
            # Clipping the logit is clipping the probability, without the loss of digits near 1.
            limit = math.log((1.0 - self.clip) / self.clip)
            logits = logits.clamp(-limit, limit)
        return F.binary_cross_entropy_with_logits(logits, truth)

    def _softmax_entropy(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        log_probabilities = torch.log_softmax(logits, dim=1)
        if self.clip is not None:
            log_probabilities = log_probabilities.clamp(math.log(self.clip), math.log1p(-self.clip))
        return -(truth * log_probabilities).sum(dim=1).mean()


class BatchDiceBCELoss(_DiceBCELoss):
    """Training loss of SSR-U-Net (Martins, Coimbra, Renna, EUSIPCO 2024, IEEE 10714969).

    ``0.5 · BCE + 0.5 · (1 - Dice)``, where the soft Dice ``(2Σpy + ε) / (Σp + Σy + ε)``, ε = 1e-12, takes its sums over
    the pixels of the **whole batch**: large lesions weigh more than small ones, and the loss depends on how images are
    batched. Under distributed training each process therefore computes another loss than one process would; use
    ``ImageDiceBCELoss`` there. Under autocast everything is computed in float32.

    We depart from the authors' code in one thing: it computes the cross-entropy from probabilities, clipped to
    [1e-7, 1 - 1e-7]. A clipped pixel has no gradient, so a network that is surely wrong is not corrected by it, and in
    float32 a probability near 1 has few digits left. By default the cross-entropy is computed from the logits, which
    has neither fault and is the same where nothing would be clipped; ``clip=1e-7`` is the authors' way.

    Args:
        activation: of the network's logits. ``"softmax"`` takes exclusive classes: cross-entropy over the classes, and
            the Dice loss of each class, averaged.
        clip: distance from 0 and 1 at which the probabilities in the cross-entropy are clipped, in (0, 0.5); None for
            no clipping.
        include_background: with several channels, let the first one count in the Dice loss. The authors' code for
            several classes leaves it out.

    Raises:
        InputError: when ``activation`` is unknown or ``clip`` out of range.

    Example:
        >>> import torch
        >>> mask = torch.zeros(2, 1, 32, 48)
        >>> mask[:, :, 8:20, 10:30] = 1
        >>> round(BatchDiceBCELoss()(torch.zeros(2, 1, 32, 48), mask).item(), 4)
        0.7275
    """

    batch = True


class ImageDiceBCELoss(_DiceBCELoss):
    """Training loss of the multifractal successor (Martins, Coimbra, Renna, arXiv 2512.02198).

    As ``BatchDiceBCELoss``, but Dice is computed **for each image** and then averaged, so that every image counts the
    same and the loss of a batch is the mean over its parts. An image without foreground costs 0.5 from this term
    unless its probabilities sum up to far less than 1e-12, that is, next to always and next to without a gradient: the
    cross-entropy alone teaches such images.

    Args:
        activation: of the network's logits, ``"sigmoid"`` or ``"softmax"``, as for ``BatchDiceBCELoss``.
        clip: the authors' clipping of probabilities in the cross-entropy, 1e-7, or None; see ``BatchDiceBCELoss``.
        include_background: as for ``BatchDiceBCELoss``.

    Raises:
        InputError: as ``BatchDiceBCELoss``.

    Example:
        A network that is surely right about both images; the second one is empty.

        >>> import torch
        >>> mask = torch.zeros(2, 1, 32, 48)
        >>> mask[0, :, 8:20, 10:30] = 1
        >>> [round(loss(40 * mask - 20, mask).item(), 4) for loss in (ImageDiceBCELoss(), BatchDiceBCELoss())]
        [0.25, 0.0]
    """

    batch = False
