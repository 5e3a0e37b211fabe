"""Change the colours of an RGB image at random, as one affine map of its three channels."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, RandomizableTransform
from numpy.random import RandomState

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["RandColorJitter", "RandColorJitterd", "colour_matrix", "shift_colours"]

Matrix = npt.NDArray[np.float64]

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def colour_matrix(brightness: float, saturation: float, hue: float) -> Matrix:
    """Return the matrix that multiplies RGB columns.

    Args:
        brightness: factor on all channels.
        saturation: factor on the distance from grey: 0 gives grey, 1 changes nothing.
        hue: turn of the colours about the grey axis of YIQ, in full turns; luma and greys stay.

    Returns:
        ``(3, 3)``.
    """
    angle = 2 * math.pi * hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    to_grey = np.ones((3, 1)) * _LUMA
    saturate = saturation * np.eye(3) + (1 - saturation) * to_grey
    matrix: Matrix = brightness * (saturate @ np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ)
    return matrix


def shift_colours(
    img: torch.Tensor, *, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> torch.Tensor:
    """Change the colours of one RGB image.

    Args:
        img: ``(3, W, H)``, values 0..255.
        brightness: factor on all channels.
        contrast: factor on the distance from the mean luma of the image.
        saturation: factor on the distance of each pixel from its grey.
        hue: turn of the colours, in full turns.

    Returns:
        A plain tensor of the same shape, clipped to 0..255; uint8, rounded, for uint8, else float32.

    Raises:
        InputError: when ``img`` has not three channels.
    """
    tensor = plain(img)
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise InputError(f"an RGB image (3, W, H) was expected, got the shape {tuple(tensor.shape)}")
    values = tensor.to(torch.float32)
    matrix = contrast * colour_matrix(brightness, saturation, hue)
    # saturation and hue leave luma alone, so the mean luma after them is brightness times the one before
    mean = values.mean(dim=(1, 2)).to(torch.float64).numpy(force=True) @ _LUMA
    offset = (1 - contrast) * brightness * float(mean)
    weights = torch.as_tensor(matrix, dtype=torch.float32, device=values.device)
    # one multiplication for all pixels, in whatever order the memory holds them
    shifted = torch.tensordot(weights, values, dims=1).add_(offset).clamp_(0, 255)
    result: torch.Tensor = shifted.round_().to(torch.uint8) if tensor.dtype == torch.uint8 else shifted
    return result


class RandColorJitter(RandomizableTransform):
    """Change brightness, contrast, saturation and hue of an RGB image at random.

    Args:
        prob: probability of a change.
        brightness: half-width of the uniform range of the factor around 1.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: largest turn either way, in full turns, 0..0.5.

    Raises:
        ConfigError: when a width lies outside [0, 1], or ``hue`` outside [0, 0.5].
    """

    def __init__(
        self,
        prob: float = 0.5,
        *,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
    ) -> None:
        super().__init__(prob)
        widths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        wrong = [f"{name}={width}" for name, width in widths.items() if not 0 <= width <= 1]
        if wrong or not 0 <= hue <= 0.5:
            raise ConfigError(f"widths must lie in [0, 1] and hue in [0, 0.5]; got {', '.join([*wrong, f'hue={hue}'])}")
        self.widths = widths
        self.hue = hue
        self.drawn: dict[str, float] = {}

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change, and by how much; ``drawn`` holds the factors for a second image."""
        super().randomize(None)
        self.drawn = {name: self.R.uniform(1 - width, 1 + width) for name, width in self.widths.items()}
        self.drawn["hue"] = self.R.uniform(-self.hue, self.hue)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Change one image.

        Args:
            img: ``(3, W, H)``, values 0..255.
            randomize: draw anew; otherwise use what was drawn last.

        Returns:
            The same shape; uint8 for uint8, else float32; values 0..255, with the metadata of ``img``.

        Raises:
            InputError: when ``img`` has not three channels.
        """
        if randomize:
            self.randomize()
        return with_meta(shift_colours(img, **self.drawn), img) if self._do_transform else img


class RandColorJitterd(RandomizableTransform, MapTransform):
    """Dictionary form of ``RandColorJitter``; all keys of an item get the same change.

    Args:
        keys: keys of the images.
        prob: probability of a change.
        brightness: half-width of the uniform range of the factor around 1.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: largest turn either way, in full turns, 0..0.5.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when a width lies outside [0, 1], or ``hue`` outside [0, 0.5].
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        *,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.jitter = RandColorJitter(prob, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)

    def set_random_state(self, seed: int | None = None, state: RandomState | None = None) -> RandColorJitterd:
        """Seed this transform and the one inside it."""
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change the images of one item; see ``RandColorJitter.__call__``."""
        d = dict(data)
        self.jitter.randomize()
        for key in self.key_iterator(d):
            d[key] = self.jitter(d[key], randomize=False)
        return d
