"""The loss for retinal vessels: cross-entropy, Dice, and the Dice of centre lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, SoftclDiceLoss
from torch.nn.modules.loss import _Loss

from msrf_monai.errors import ConfigError, InputError

__all__ = ["VesselLoss"]


class VesselLoss(_Loss):
    """``bce_weight · BCE + dice_weight · (1 - Dice) + cldice_weight · (1 - clDice)`` from logits.

    The sums of Dice, ``(2Σpy + 1) / (Σp + Σy + 1)``, run over the pixels of the whole batch: a crop without a vessel
    would otherwise weigh as much as one that is full of them. With ``batch=False`` they run over each image alone, so
    that the loss is the same however a batch is divided among processes. Soft clDice (Shit et al., "clDice - a Novel
    Topology-Preserving Loss Function for Tubular Structure Segmentation", CVPR 2021, arXiv:2003.07311), MONAI's,
    rewards centre lines without gaps; it is meant to be added when the vessels are found already, see
    ``set_cldice_weight``. The published training of IMFF-Net takes a Dice loss alone: ``bce_weight=0, dice_weight=1``.
    Everything is computed in float32.

    Args:
        bce_weight: weight of the cross-entropy, not negative.
        dice_weight: weight of the Dice loss, not negative.
        cldice_weight: weight of the soft clDice loss, not negative; 0 leaves it out.
        batch: whether Dice is that of the batch or the mean over its images.
        iterations: erosions of the soft skeleton, at least half of the widest vessel in pixels.

    Raises:
        ConfigError: when a weight is negative or all are 0, or ``iterations`` is below 1.

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 1, 16, 16)
        >>> mask[..., 7:9, :] = 1
        >>> round(VesselLoss()(torch.zeros(1, 1, 16, 16), mask).item(), 4)
        0.7441
    """

    def __init__(
        self,
        bce_weight: float = 0.5,
        dice_weight: float = 0.5,
        cldice_weight: float = 0.0,
        *,
        batch: bool = True,
        iterations: int = 10,
    ) -> None:
        super().__init__()
        if min(bce_weight, dice_weight, cldice_weight) < 0 or bce_weight + dice_weight + cldice_weight == 0:
            raise ConfigError(
                f"the weights are {bce_weight}, {dice_weight}, {cldice_weight}; expected none below 0 and one above"
            )
        if iterations < 1:
            raise ConfigError(f"iterations is {iterations}; expected 1 or more")
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.cldice_weight = cldice_weight
        self.dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=batch)
        self.cldice = SoftclDiceLoss(iter_=iterations)

    def set_cldice_weight(self, weight: float) -> None:
        """Change the weight of the soft clDice loss, as ``monai.handlers.ParamSchedulerHandler`` does by epochs.

        Args:
            weight: the new weight, not negative.

        Raises:
            ConfigError: when it is negative.
        """
        if weight < 0:
            raise ConfigError(f"the weight of the clDice loss is {weight}; expected 0 or more")
        self.cldice_weight = float(weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            input: logits ``(B, 1, H, W)``.
            target: mask of the same shape, in [0, 1].

        Returns:
            A scalar, float32.

        Raises:
            InputError: when the shapes differ or are none of the above.
        """
        if input.shape != target.shape or input.dim() != 4 or input.shape[1] != 1:
            raise InputError(
                f"the logits have shape {tuple(input.shape)} and the target {tuple(target.shape)}; "
                "expected (B, 1, H, W) for both"
            )
        with torch.autocast(device_type=input.device.type, enabled=False):
            logits, truth = (each.as_subclass(torch.Tensor).float() for each in (input, target))
            probability = torch.sigmoid(logits)
            loss: torch.Tensor = self.dice_weight * self.dice(probability, truth)
            if self.bce_weight:
                loss = loss + self.bce_weight * F.binary_cross_entropy_with_logits(logits, truth)
            if self.cldice_weight:
                loss = loss + self.cldice_weight * self.cldice(probability, truth)
            return loss
