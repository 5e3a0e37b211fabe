"""The OHIF that MONAI Label brings along, in headless Chromium."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from support.browser import in_browser

__all__ = ["Labelmap", "PanelResult", "run_panel"]


@dataclass(frozen=True)
class Labelmap:
    """What the viewer holds and draws.

    Attributes:
        values: ``(slices, rows, columns)``.
        origin: place of the first voxel in the patient, in mm.
        spacing: between columns, rows and slices, in mm.
        direction: of a step along columns, rows and slices, each a row.
    """

    values: npt.NDArray[np.uint8]
    origin: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]
    direction: npt.NDArray[np.float64]

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Self:
        """Read what the script wrote."""
        columns, rows, slices = shown["dimensions"]
        values = np.frombuffer(base64.b64decode(shown["values"]), np.uint8).reshape(slices, rows, columns)
        direction = np.array(shown["direction"], float).reshape(3, 3)
        return cls(values, np.array(shown["origin"], float), np.array(shown["spacing"], float), direction)


@dataclass(frozen=True)
class PanelResult:
    """What the page did.

    Attributes:
        bundles: that the panel lists once it has connected.
        status: of the answer to its request for a mask; 0 when none came.
        labelmap: None when the viewer has none.
        problems: errors that the page logged or raised.
        elsewhere: addresses outside this computer that it asked for.
    """

    bundles: tuple[str, ...]
    status: int
    labelmap: Labelmap | None
    problems: tuple[str, ...]
    elsewhere: tuple[str, ...]


def run_panel(
    server: str, study: str, bundle: str, picture: Path, *, patience: float = 5, answer_within: float = 180
) -> PanelResult:
    """Open a study, connect the panel, run a bundle, and write a picture of the window; skip without a browser.

    Args:
        server: address of MONAI Label.
        study: its UID.
        bundle: name of the bundle; an empty one only opens the study.
        picture: the PNG file.
        patience: seconds for the first images.
        answer_within: seconds to wait for the mask.
    """
    job = {
        "server": server,
        "study": study,
        "bundle": bundle,
        "picture": str(picture),
        "patience": patience * 1000,
        "answer_within": answer_within * 1000,
    }
    found = in_browser("ohif_label_shot.js", job, (1500, 900))
    labelmap = Labelmap.of(found["shown"]) if found["shown"] else None
    return PanelResult(
        tuple(found["bundles"]), found["status"], labelmap, tuple(found["problems"]), tuple(found["elsewhere"])
    )
