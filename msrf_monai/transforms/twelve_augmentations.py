"""The twelve augmentations of Hi-gMISnet: one for each item at random, or one for each batch in the published order.

T. T. Showrav and M. K. Hasan, Hi-gMISnet, Physics in Medicine & Biology 69, 2024, doi:10.1088/1361-6560/ad3cb3.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.spatial.array import Flip, RandSimulateLowResolution
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.misc import ensure_tuple
from numpy.random import RandomState
from torch.utils.data import get_worker_info

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.degrade import box_blur, cut_out, scale_and_shift, shift_hsv
from msrf_monai.transforms.rows import plain, with_meta
from msrf_monai.transforms.warps import affine_positions, distortion_positions, warp, zoom_matrix

__all__ = ["AUGMENTATION_CYCLE", "RandTwelveAugmentationsd", "augment", "draw_augmentation"]

AUGMENTATION_CYCLE = (
    *("zoom_out", "flip_horizontal", "flip_vertical", "optical_distortion", "box_blur", "cut_out"),
    *("rotate", "none", "low_resolution", "brightness_contrast", "rotate", "hsv"),
)
"""The published order; rotation comes twice."""

_RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "zoom_out": {
        **dict.fromkeys(("scale_x", "scale_y"), (0.2, 0.3)),
        "rotation_deg": (-30, 30),
        **dict.fromkeys(("shear_x_deg", "shear_y_deg"), (-45, 45)),
    },
    "flip_horizontal": {},
    "flip_vertical": {},
    "optical_distortion": {"strength": (-1, 1), **dict.fromkeys(("shift_x_px", "shift_y_px"), (-0.5, 0.5))},
    "box_blur": {"radius_px": (1, 6)},  # rounded down: squares of 3, 5, 7, 9 or 11 pixels
    "cut_out": {f"{axis}_{hole}": (0, 1) for hole in range(8) for axis in "xy"},
    "rotate": {"rotation_deg": (-90, 90)},
    "none": {},
    "low_resolution": {},
    "brightness_contrast": {"brightness": (-0.4, 0.4), "contrast": (0.7, 1.3)},
    "hsv": {"hue": (-0.3, 0.3), "saturation": (-0.4, 0.4), "value": (-0.3, 0.3)},
}
"""What is drawn for each kind, uniformly; these are the published ranges."""

_SHIFT = 0.2
"""By how much of its width and height the small image of "zoom_out" is shifted."""

_HOLE_SHARE = 96 / 256
"""Side of a hole as a share of the image's: the published 96 of 256 pixels, which look the same at other sizes."""

_FLIP_HORIZONTAL, _FLIP_VERTICAL = Flip(0), Flip(1)  # the first axis runs along the rows
_LOW_RESOLUTION = RandSimulateLowResolution(
    prob=1.0, downsample_mode="nearest", upsample_mode="nearest", zoom_range=(0.25, 0.25)
)
_LOW_RESOLUTION.randomize()

Parameters = Mapping[str, float]


def draw_augmentation(kind: str, random: RandomState) -> dict[str, float]:
    """Draw the parameters of an augmentation.

    Args:
        kind: one of ``AUGMENTATION_CYCLE``.
        random: where the numbers come from.

    Returns:
        A number for each name; none for kinds that have nothing to draw.

    Raises:
        ConfigError: when there is no such kind.
    """
    _check_kinds((kind,))
    return {name: float(random.uniform(low, high)) for name, (low, high) in _RANGES[kind].items()}


def augment(img: torch.Tensor, kind: str, parameters: Parameters, *, is_mask: bool = False) -> torch.Tensor:
    """Apply an augmentation to an image or to its mask.

    Args:
        img: ``(C, W, H)``; images have values 0..255 and, for "hsv", three channels.
        kind: "zoom_out": to a fifth or three tenths, turned, sheared, shifted right and down, black around;
            "flip_horizontal", "flip_vertical"; "optical_distortion": a lens with k1 = k2; "box_blur"; "cut_out": eight
            black holes; "rotate": about the middle, mirrored outside; "none"; "low_resolution": every fourth pixel;
            "brightness_contrast"; "hsv".
        parameters: see ``draw_augmentation``.
        is_mask: fetch the nearest pixel, and leave out all that is no geometry.

    Returns:
        A plain tensor of the same shape and dtype.

    Raises:
        ConfigError: when there is no such kind.
        InputError: when the image has not three axes, or an image for "hsv" not three channels.
    """
    _check_kinds((kind,))
    tensor = plain(img)
    if tensor.ndim != 3:
        raise InputError(f"an image (C, W, H) was expected, got the shape {tuple(tensor.shape)}")
    if kind in _GEOMETRY:
        return _GEOMETRY[kind](tensor, parameters, is_mask)
    return tensor if is_mask else _INTENSITY[kind](tensor, parameters)


def _size(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.shape[1], tensor.shape[2]


def _zoom_out(tensor: torch.Tensor, drawn: Parameters, is_mask: bool) -> torch.Tensor:
    matrix = zoom_matrix(
        scale=(drawn["scale_x"], drawn["scale_y"]),
        rotation=float(np.deg2rad(drawn["rotation_deg"])),
        shear=(float(np.deg2rad(drawn["shear_x_deg"])), float(np.deg2rad(drawn["shear_y_deg"]))),
    )
    shift = [_SHIFT * length for length in _size(tensor)]
    positions = affine_positions(_size(tensor), matrix, shift)
    return warp(tensor, positions, mode="nearest" if is_mask else "bilinear", padding_mode="zeros")


def _flip_horizontal(tensor: torch.Tensor, drawn: Parameters, is_mask: bool) -> torch.Tensor:
    return plain(_FLIP_HORIZONTAL(tensor))


def _flip_vertical(tensor: torch.Tensor, drawn: Parameters, is_mask: bool) -> torch.Tensor:
    return plain(_FLIP_VERTICAL(tensor))


def _optical_distortion(tensor: torch.Tensor, drawn: Parameters, is_mask: bool) -> torch.Tensor:
    shift = (drawn["shift_x_px"], drawn["shift_y_px"])
    positions = distortion_positions(_size(tensor), drawn["strength"], shift)
    return warp(tensor, positions, mode="nearest" if is_mask else "bilinear")


def _rotate(tensor: torch.Tensor, drawn: Parameters, is_mask: bool) -> torch.Tensor:
    positions = affine_positions(_size(tensor), zoom_matrix(rotation=float(np.deg2rad(drawn["rotation_deg"]))))
    return warp(tensor, positions, mode="nearest" if is_mask else "bilinear")


def _none(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    return tensor


def _box_blur(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    return box_blur(tensor, 2 * int(drawn["radius_px"]) + 1)


def _cut_out(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    width, height = (round(_HOLE_SHARE * length) for length in _size(tensor))
    boxes = []
    for hole in range(len(drawn) // 2):
        # the middle lies anywhere in the image: holes are cut off by its rim
        left = int(drawn[f"x_{hole}"] * tensor.shape[1]) - width // 2
        top = int(drawn[f"y_{hole}"] * tensor.shape[2]) - height // 2
        boxes.append((left, top, left + width, top + height))
    return cut_out(tensor, boxes)


def _low_resolution(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    return plain(_LOW_RESOLUTION(tensor, randomize=False)).to(tensor.dtype)


def _brightness_contrast(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    return scale_and_shift(tensor, contrast=drawn["contrast"], brightness=drawn["brightness"])


def _hsv(tensor: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    return shift_hsv(tensor, hue=drawn["hue"], saturation=drawn["saturation"], value=drawn["value"])


_GEOMETRY: Mapping[str, Callable[[torch.Tensor, Parameters, bool], torch.Tensor]] = {
    "zoom_out": _zoom_out,
    "flip_horizontal": _flip_horizontal,
    "flip_vertical": _flip_vertical,
    "optical_distortion": _optical_distortion,
    "rotate": _rotate,
}
_INTENSITY: Mapping[str, Callable[[torch.Tensor, Parameters], torch.Tensor]] = {
    "box_blur": _box_blur,
    "cut_out": _cut_out,
    "none": _none,
    "low_resolution": _low_resolution,
    "brightness_contrast": _brightness_contrast,
    "hsv": _hsv,
}


class RandTwelveAugmentationsd(Randomizable, MapTransform):
    """Augment each item in one of twelve ways, or all items of a batch in the one whose turn it is.

    As published (``cyclic``) the batches of an epoch go through the kinds in their order; which numbers a kind draws is
    random for each item. That needs a data loader that hands out batches of ``batch_size`` in turn to its workers, as
    PyTorch's does, and reseeds them before each epoch, as ``msrf_monai.engines.SeedEpochs`` does: reseeding starts the
    cycle anew. By default each item draws its kind for itself, which mixes the kinds within a batch.

    Args:
        keys: images, ``(C, W, H)`` with values 0..255.
        mask_keys: masks that move with them; nearest pixel.
        kinds: the kinds, in order; one that comes twice is twice as likely.
        cyclic: one kind for each batch, in order.
        batch_size: items of a batch, for ``cyclic``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when a kind is unknown, there is none, or ``batch_size`` is below 1.

    Example:
        >>> item = {"image": torch.zeros(3, 32, 24), "label": torch.zeros(1, 32, 24)}
        >>> RandTwelveAugmentationsd("image", cyclic=True, batch_size=2)(item)["image"].shape
        torch.Size([3, 32, 24])
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_keys: KeysCollection = "label",
        *,
        kinds: Sequence[str] = AUGMENTATION_CYCLE,
        cyclic: bool = False,
        batch_size: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        self.mask_keys = ensure_tuple(mask_keys)
        MapTransform.__init__(self, (*ensure_tuple(keys), *self.mask_keys), allow_missing_keys)
        self.kinds = tuple(kinds)
        _check_kinds(self.kinds)
        if not self.kinds or batch_size < 1:
            raise ConfigError(f"one kind or more and a batch_size of 1 or more are needed, got {kinds}, {batch_size}")
        self.cyclic = cyclic
        self.batch_size = batch_size
        self.kind = "none"
        self.drawn: dict[str, float] = {}
        self._seen = 0

    def set_random_state(self, seed: int | None = None, state: RandomState | None = None) -> RandTwelveAugmentationsd:
        """Set the random numbers to come, and start the cycle anew."""
        super().set_random_state(seed, state)
        self._seen = 0
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw the kind, or take the one whose turn it is, and its numbers; ``kind`` and ``drawn`` hold them."""
        chosen = self._step() if self.cyclic else int(self.R.randint(len(self.kinds)))
        self._seen += 1
        self.kind = self.kinds[chosen % len(self.kinds)]
        self.drawn = draw_augmentation(self.kind, self.R)

    def _step(self) -> int:
        """Return the number of the batch in the epoch; workers get batches in turn."""
        own, worker = self._seen // self.batch_size, get_worker_info()
        return own if worker is None else worker.id + own * worker.num_workers

    def __call__(self, data: Mapping[Hashable, torch.Tensor], randomize: bool = True) -> dict[Hashable, torch.Tensor]:
        """Augment one item.

        Args:
            data: the item.
            randomize: draw anew; otherwise use what was drawn last.

        Returns:
            The item with new images and masks of the same shapes and dtypes.

        Raises:
            InputError: when an image has not three axes, or an image for "hsv" not three channels.
        """
        item = dict(data)
        if randomize:
            self.randomize()
        for key in self.key_iterator(item):
            is_mask = key in self.mask_keys
            item[key] = with_meta(augment(item[key], self.kind, self.drawn, is_mask=is_mask), item[key])
        return item


def _check_kinds(kinds: Sequence[str]) -> None:
    unknown = [kind for kind in kinds if kind not in _RANGES]
    if unknown:
        raise ConfigError(f"no augmentation is called {unknown[0]!r}; the kinds are {', '.join(_RANGES)}")
