"""The loss of MSRF-Net: cross-entropy and Dice on three masks, cross-entropy on the edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch.nn.modules.loss import _Loss

from msrf_monai.edges import mask_edge_target
from msrf_monai.errors import InputError
from msrf_monai.networks.nets.msrf_net import MSRFNetOutput

__all__ = ["MSRFLoss", "clipped_cross_entropy"]

Activation = Literal["sigmoid", "softmax"]

_CLIP = 1e-7


def clipped_cross_entropy(probabilities: torch.Tensor, target: torch.Tensor, clip: float = _CLIP) -> torch.Tensor:
    """Mean binary cross-entropy of probabilities that are first clipped to ``[clip, 1 - clip]``, as Keras does.

    Args:
        probabilities: float, any shape, in [0, 1].
        target: the same shape, in [0, 1].
        clip: distance from 0 and 1 within which the value is constant and the gradient zero.

    Returns:
        A scalar.
    """
    p = probabilities.clamp(clip, 1.0 - clip)
    # Written out, since PyTorch's own refuses NaN, which must come through for a guard to name the batch.
    return -(target * p.log() + (1.0 - target) * (1.0 - p).log()).mean()


class MSRFLoss(_Loss):
    """Training loss of MSRF-Net (Srivastava et al., IEEE JBHI 2022), as the authors' code computes it.

    ``L = w0·S(mask) + w1·E(edge) + w2·S(half) + w3·S(quarter)``, where S is the mean binary cross-entropy plus
    ``1 - (2Σpy + 1) / (Σp + Σy + 1)`` and E the mean binary cross-entropy. Probabilities are clipped to
    [1e-7, 1 - 1e-7] in the cross-entropies. Under autocast everything is computed in float32.

    With ``activation="softmax"`` (exclusive classes, our extension) S is the cross-entropy plus the Dice term averaged
    over the classes.

    Args:
        weights: of the mask, the edges, the map at 1/2 and the map at 1/4. The code says 2, 1, 1, 1; the paper's equal
            weights are ``(1, 1, 1, 1)``.
        batch: take the sums of the Dice term over the whole batch (the reference), or over each image and average.
            Over the whole batch, the loss depends on how the batch is split, so distributed training wants False.
        activation: of the network's mask logits and auxiliary maps.

    Raises:
        InputError: when ``weights`` are not four numbers of which none is negative, or ``activation`` is unknown.

    Example:
        >>> import torch
        >>> from msrf_monai.networks import MSRFNet
        >>> mask = torch.zeros(2, 1, 32, 48)
        >>> mask[:, :, 8:20, 10:30] = 1
        >>> loss = MSRFLoss()(MSRFNet(features=2)(torch.rand(2, 4, 32, 48)), mask)
        >>> bool(loss > 0)
        True
    """

    def __init__(
        self,
        weights: Sequence[float] = (2.0, 1.0, 1.0, 1.0),
        batch: bool = True,
        activation: Activation = "sigmoid",
    ) -> None:
        super().__init__()
        if len(weights) != 4 or any(w < 0 or not math.isfinite(w) for w in weights):
            raise InputError(
                f"weights is {tuple(weights)}; expected four numbers of at least 0: mask, edges, 1/2 and 1/4 maps"
            )
        if activation not in get_args(Activation):
            raise InputError(f"activation is {activation!r}; expected one of {get_args(Activation)}")
        self.weights = tuple(float(w) for w in weights)
        self.activation = activation
        self.dice: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = DiceLoss(
            smooth_nr=1.0, smooth_dr=1.0, batch=batch
        )

    def forward(self, input: MSRFNetOutput, target: torch.Tensor) -> torch.Tensor:
        """Compute the weighted sum.

        Args:
            input: the network's four outputs in training mode, K classes.
            target: mask in {0, 1}, ``(B, K, H, W)``, from which the edges are computed here; or ``(B, K + 1, H, W)``
                with the edge map of the mask as the last channel (the transform ``EdgeTargetd`` appends it).

        Returns:
            A scalar in float32 (float64 when the outputs are).

        Raises:
            InputError: when ``input`` is not the four outputs, or the shapes do not fit.
        """
        total = sum(w * term for w, term in zip(self.weights, self.terms(input, target).values(), strict=True))
        return torch.as_tensor(total)

    def terms(self, input: MSRFNetOutput, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the four terms, not weighted; arguments and errors as for ``forward``.

        Returns:
            Scalars under the names of the outputs: mask, edge, half, quarter.
        """
        if not isinstance(input, tuple) or len(input) != 4:
            raise InputError(
                f"the loss got a {type(input).__name__}; expected the four outputs of MSRFNet in training mode "
                "(in evaluation mode the network returns only the mask: call net.forward_all)"
            )
        with torch.autocast(device_type=input[0].device.type, enabled=False):
            mask, edge, half, quarter = (_at_least_float32(t) for t in input)
            truth, true_edge = self._split(target.to(mask.dtype), mask)
            return {
                "mask": self._segmentation_from_logits(mask, truth),
                "edge": clipped_cross_entropy(edge, true_edge),
                "half": self._segmentation(half, truth),
                "quarter": self._segmentation(quarter, truth),
            }

    def _split(self, target: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        target = target.as_subclass(torch.Tensor)
        classes = mask.shape[1]
        if target.ndim != 4 or target.shape[1] not in (classes, classes + 1) or target.shape[2:] != mask.shape[2:]:
            raise InputError(
                f"the target has shape {tuple(target.shape)}; expected {tuple(mask.shape)}, "
                "or one more channel with the edges of the mask last"
            )
        truth = target[:, :classes]
        return truth, target[:, classes:] if target.shape[1] > classes else mask_edge_target(truth)

    def _segmentation_from_logits(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self.activation == "softmax":
            return F.cross_entropy(logits, truth) + self.dice(torch.softmax(logits, dim=1), truth)
        # Clipping the logit is clipping the probability, without the loss of digits near 1.
        limit = math.log((1.0 - _CLIP) / _CLIP)
        entropy = F.binary_cross_entropy_with_logits(logits.clamp(-limit, limit), truth)
        return entropy + self.dice(torch.sigmoid(logits), truth)

    def _segmentation(self, probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self.activation == "softmax":
            entropy = -(truth * probabilities.clamp(_CLIP, 1.0).log()).sum(dim=1).mean()
        else:
            entropy = clipped_cross_entropy(probabilities, truth)
        return entropy + self.dice(probabilities, truth)


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    plain = x.as_subclass(torch.Tensor)
    return plain.float() if plain.dtype in (torch.float16, torch.bfloat16) else plain
