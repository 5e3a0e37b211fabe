"""Pictures of every kind that annotators have: not square, asymmetric, of different sizes; and what a mask must be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from support.predictor_bundles import picture

__all__ = ["DICOM_SAMPLES", "PICTURES", "write_pictures"]

DICOM_SAMPLES = {"fundus.dcm": "fundus_op8.dcm", "chest.dcm": "cxr_dx_mono1.dcm"}
"""Names here, and those of the samples that they are: a colour photograph, and a radiograph where 0 is white."""
PICTURES = ("colour.png", "grey.png", "alpha.png", "photo.jpg", "upper.JPEG", "scan.tif", "old.bmp", *DICOM_SAMPLES)


def write_pictures(folder: Path, samples: Path | None) -> list[Path]:
    """Write one picture of each kind.

    Args:
        folder: where.
        samples: the folder of real DICOM files; None leaves these out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(53, 87)
    alpha = np.dstack([picture(49, 66, seed=2), np.full((49, 66), 200, np.uint8)])
    alpha[:20, :30, 3] = 0
    Image.fromarray(pixels).save(folder / "colour.png")
    Image.fromarray(picture(47, 71, seed=1)[..., 1]).save(folder / "grey.png")
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(picture(61, 45, seed=3)).save(folder / "photo.jpg", quality=85)
    Image.fromarray(picture(52, 77, seed=4)).save(folder / "upper.JPEG", quality=85)
    Image.fromarray(picture(58, 43, seed=5)).save(folder / "scan.tif")
    Image.fromarray(picture(44, 69, seed=6)).save(folder / "old.bmp")
    for name, sample in DICOM_SAMPLES.items() if samples else ():
        shutil.copyfile(samples / sample, folder / name)
    return sorted(path for path in folder.iterdir() if path.is_file())
