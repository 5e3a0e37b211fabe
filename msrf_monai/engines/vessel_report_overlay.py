"""Pictures of vessel maps coloured by what is right, wrong and missing, and small ones that show thin vessels too."""

from __future__ import annotations

import io
import logging
import math
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from msrf_monai.errors import InputError, MsrfError
from msrf_monai.transforms import read_picture
from msrf_monai.transforms.picture import to_channels, to_intensity

__all__ = [
    "FALSE_NEGATIVE",
    "FALSE_POSITIVE",
    "LEGEND",
    "TRUE_POSITIVE",
    "background_picture",
    "draw_vessel_overlay",
    "thumbnail_of",
    "with_legend",
]

_LOGGER = logging.getLogger(__name__)

TRUE_POSITIVE = (240, 240, 240)
FALSE_POSITIVE = (255, 140, 0)
FALSE_NEGATIVE = (0, 170, 255)
"""RGB. White, orange and blue differ for every kind of colour blindness, and in brightness too."""

LEGEND = (
    (TRUE_POSITIVE, "vessel, found"),
    (FALSE_POSITIVE, "no vessel, but found"),
    (FALSE_NEGATIVE, "vessel, missed"),
)
_BACKGROUND = (24, 24, 24)
_INSIDE, _OUTSIDE = 110, 40  # grey of what is bright in the image, in the field of view and outside it
_LEGEND_PX = 26
_THIN_GAIN = 2.5  # of a thumbnail: colours that cover 40 % of a pixel are drawn in full

_Picture = NDArray[np.uint8]
_Mask = NDArray[np.bool_]


def draw_vessel_overlay(picture: _Picture | None, pred: _Mask, label: _Mask, fov: _Mask | None = None) -> _Picture:
    """Return a dimmed grey image with each pixel of the field of view coloured by what was found.

    Found vessels are white, false ones orange, missed ones blue; the background stays grey, and darker outside the
    field of view, where nothing is coloured. No pixel is widened or smoothed.

    Args:
        picture: RGB (H, W, 3), or None for black.
        pred: decided mask, boolean (H, W).
        label: true mask, same shape.
        fov: field of view, same shape; the whole image by default.

    Returns:
        RGB (H, W, 3).

    Raises:
        InputError: when sizes differ.
    """
    region = np.ones_like(label) if fov is None else fov
    sizes = {each.shape[:2] for each in (pred, label, region, *([] if picture is None else [picture]))}
    if len(sizes) > 1:
        raise InputError(f"image and masks have different sizes (H, W): {sorted(sizes)}; restore them to one geometry")
    grey = np.zeros(label.shape, np.uint8) if picture is None else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    bright = max(float(np.percentile(grey[region], 99)) if region.any() else 255.0, 1.0)
    relative = np.minimum(grey / bright, 1.0)
    dimmed = np.where(region, relative * _INSIDE, relative * _OUTSIDE).round().astype(np.uint8)
    drawn = np.repeat(dimmed[..., None], 3, axis=2)
    for colour, mask in (
        (TRUE_POSITIVE, pred & label),
        (FALSE_POSITIVE, pred & ~label),
        (FALSE_NEGATIVE, label & ~pred),
    ):
        drawn[mask & region] = colour
    return drawn


def with_legend(overlay: _Picture, caption: str) -> _Picture:
    """Return the picture with a strip below it: what the colours mean, and a caption.

    Args:
        overlay: RGB (H, W, 3).
        caption: one line, such as the name and the score.
    """
    font = ImageFont.load_default(size=13)
    entries = [(f"{text}   ", colour) for colour, text in LEGEND]
    widths = [int(font.getlength(text)) + 18 for text, _ in entries]
    lines = 1 if sum(widths) + font.getlength(caption) + 16 <= overlay.shape[1] else 2
    lines = lines if sum(widths) + 8 <= overlay.shape[1] else len(entries) + 1
    strip = Image.new("RGB", (overlay.shape[1], _LEGEND_PX * lines), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    left, top = 8, 0
    for (text, colour), width in zip(entries, widths, strict=True):
        draw.rectangle((left, top + 8, left + 10, top + 18), fill=colour)
        draw.text((left + 16, top + 5), text, fill=(255, 255, 255), font=font)
        left, top = (8, top + _LEGEND_PX) if lines > 2 else (left + width, top)
    place = (8, _LEGEND_PX * (lines - 1)) if lines > 1 else (left + 8, 0)
    draw.text((place[0], place[1] + 5), caption, fill=(255, 255, 255), font=font)
    return np.concatenate([overlay, np.asarray(strip)], axis=0)


def thumbnail_of(overlay: _Picture, *, longest_px: int = 460) -> bytes:
    """Return a small JPEG of a picture of ``draw_vessel_overlay`` on which vessels of one pixel can still be seen.

    Plain averaging would dim them. So colours and background are made smaller on their own. Where the coloured pixels
    cover 40 % of a small one or more, it shows nothing but the mean of their colours.

    Args:
        overlay: RGB (H, W, 3), without the legend.
        longest_px: of the longer side of the result; smaller pictures keep their size.
    """
    height, width = overlay.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    masks = [(overlay == colour).all(axis=2) for colour, _ in LEGEND]
    background = overlay.copy()
    background[np.any(masks, axis=0)] = 0
    grey = cv2.resize(background, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    shares = [cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None] for mask in masks]
    covered = sum(shares)
    mixed = sum(share * np.array(colour, np.float32) for share, (colour, _) in zip(shares, LEGEND, strict=True))
    opacity = np.minimum(1.0, (_THIN_GAIN if scale < 1 else 1.0) * covered)
    drawn = (1 - opacity) * grey + opacity * mixed / np.maximum(covered, 1e-6)
    content = io.BytesIO()
    Image.fromarray(drawn.round().astype(np.uint8)).save(content, "JPEG", quality=88, subsampling=0)
    return content.getvalue()


def background_picture(path: str, image: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return what an overlay is drawn on: the source picture, or else the network's input, of the masks' size.

    Args:
        path: the source picture.
        image: the network's input (C, columns, rows) with any intensities, or None.
        shape: (rows, columns) of the masks.

    Returns:
        RGB (rows, columns, 3); None when neither has that size.
    """
    try:
        source = read_picture(path)
        rows = to_channels(to_intensity(source, "full_range", path), 3)
        if rows.shape[:2] == shape:
            return np.asarray(rows).round().astype(np.uint8)
    except MsrfError:
        _LOGGER.debug("no source picture for an overlay")
    planes = None if image is None else image.detach().cpu().as_subclass(Tensor).float()
    if planes is None or tuple(planes.shape[1:]) != shape[::-1]:
        return None
    grey = planes[:3].mean(0).T
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) / (high - low) if math.isfinite(high - low) and high > low else torch.zeros_like(grey)
    return np.repeat((scaled * 255).round().to(torch.uint8).numpy()[..., None], 3, axis=2)
