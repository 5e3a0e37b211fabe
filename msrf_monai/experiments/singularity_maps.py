"""A picture of what the singularity strength sees in one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.utils import convert_to_numpy

from msrf_monai.errors import InputError
from msrf_monai.files import atomic_write
from msrf_monai.networks import RecalibratedUNet
from msrf_monai.networks.blocks import LocalSingularityStrength, singularity_exponent
from msrf_monai.optional import require

__all__ = ["draw_singularity_maps", "singularity_maps"]


def singularity_maps(net: RecalibratedUNet, image: torch.Tensor, stage: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of an encoder stage before their recalibration, and the singularity strength of each.

    The strength is the layer's own when the network has one (with its weights of the box sizes and its scope), else
    that of the published layer, so that networks with another recalibration can be compared.

    Args:
        net: the network; its mode is not changed, and nothing is trained.
        image: float image ``(1, in_channels, *spatial)`` in [0, 1].
        stage: number of the encoder stage, 0 for the finest.

    Returns:
        Features and exponents, both ``(1, channels, *spatial)`` of that stage, float32.

    Raises:
        InputError: when the network has no such stage.
    """
    if not 0 <= stage < len(net.encoder):
        raise InputError(f"stage is {stage}; expected 0 to {len(net.encoder) - 1}, the encoder stages of this network")
    kept: list[torch.Tensor] = []
    encoder_stage = net.encoder[stage]
    hook = encoder_stage.get_submodule("convs").register_forward_hook(lambda *call: kept.append(call[2]))
    mode = net.training
    try:
        with torch.no_grad():
            net.eval()(image)
    finally:
        hook.remove()
        net.train(mode)
    features = kept[0].float()
    layers = [m for m in encoder_stage.modules() if isinstance(m, LocalSingularityStrength)]
    with torch.no_grad():
        return features, layers[0].exponent(features) if layers else singularity_exponent(features)


def draw_singularity_maps(
    net: RecalibratedUNet, image: torch.Tensor, path: str | Path, *, stage: int = 0, channels: int = 4
) -> None:
    """Draw an image, the features of a stage and their singularity strength into a PNG file.

    The channels are those whose strength varies most over the image. Blue is below the number of axes (peaks of the
    feature), red above it (holes), white where the feature is flat or linear.

    Args:
        net: the network.
        image: float image ``(1, 1 or 3, H, W)`` in [0, 1].
        path: the file to write.
        stage: number of the encoder stage, 0 for the finest.
        channels: how many channels to draw.

    Raises:
        InputError: when the network has no such stage, or the image is not a single 2-D one.
        MissingExtraError: when matplotlib is not installed.
        StorageError: when the file cannot be written.
    """
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise InputError(f"the image has the shape {tuple(image.shape)}; expected (1, 1 or 3, height, width)")
    features, exponents = singularity_maps(net, image, stage)
    chosen = exponents[0].flatten(1).std(dim=1).argsort(descending=True)[:channels].tolist()
    limit = max(0.1, float((exponents[0, chosen] - 2.0).abs().flatten().quantile(0.99)))
    figure = require("matplotlib.figure", "train").Figure(
        figsize=(2.4 * (len(chosen) + 1), 5.2), dpi=110, layout="constrained"
    )
    axes = figure.subplots(2, len(chosen) + 1, squeeze=False)
    picture = convert_to_numpy(image[0].movedim(0, -1).clamp(0, 1))
    _show(axes[0, 0], picture, "image", cmap="gray")
    shown = _show(axes[1, 0], exponents[0].mean(dim=0), "mean strength", cmap="RdBu_r", vmin=2 - limit, vmax=2 + limit)
    for column, channel in enumerate(chosen, start=1):
        _show(axes[0, column], features[0, channel], f"channel {channel}", cmap="gray")
        _show(axes[1, column], exponents[0, channel], "strength", cmap="RdBu_r", vmin=2 - limit, vmax=2 + limit)
    figure.colorbar(shown, ax=axes[1, :].tolist(), label="exponent", shrink=0.9)
    figure.suptitle(f"Singularity strength, encoder stage {stage}")
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png")


def _show(axes: Any, values: Any, title: str, **options: Any) -> Any:
    axes.set_title(title, fontsize="medium")
    axes.set_axis_off()
    return axes.imshow(convert_to_numpy(values), interpolation="nearest", **options)
