"""One bad input of each kind, and the code that it must be refused with."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian

from msrf_monai.clinical.reading import Limits
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series, scan_values

__all__ = ["LIMITS", "make_bad_inputs"]


LIMITS = Limits(inflated_bytes=1_000_000)
"""To be read with, so that the bombs may be small."""


def make_bad_inputs(folder: Path) -> dict[str, str]:
    """Make one bad input of each kind.

    Returns:
        The name of each, or of the folder of a series, with its code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (content, code) in {**_pictures(), **_dicom()}.items():
        (folder / name).write_bytes(content)
        found[name] = code
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "outside.png").symlink_to(os.devnull)
    found |= {"pipe.png": "not_regular_file", "dangling.png": "missing", "loop.png": "link_loop"}
    found |= {"outside.png": "link_outside"}
    save_dicom_series(folder / "gap", scan_values(), heights_mm=(0, 3, 6, 12))
    found["gap"] = "not_a_volume"
    for number in (1, 2):
        dataset = image_dataset(pattern(peak=50 * number))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.99"
        (folder / "same_uid").mkdir(exist_ok=True)
        (folder / "same_uid" / f"{number}.dcm").write_bytes(as_bytes(dataset))
    found["same_uid"] = "duplicate_uid"
    return found


def _pictures() -> dict[str, tuple[bytes, str]]:
    png = _saved(Image.fromarray(pattern(40, 60)), "PNG")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../../evil.png", png)
    pages = io.BytesIO()
    page = Image.fromarray(pattern())
    page.save(pages, "TIFF", save_all=True, append_images=[page])
    nifti = bytearray(352)
    nifti[0:4] = struct.pack("<i", 348)
    nifti[40:56] = struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)
    nifti[70:74] = struct.pack("<2h", 16, 32)
    nifti[108:112] = struct.pack("<f", 352)
    nifti[344:348] = b"n+1\0"
    return {
        "zero.png": (b"", "empty_file"),
        "text.png": (b"this is no picture", "unknown_format"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "bomb.png": (_png_header(60000, 60000), "too_many_pixels"),
        "alpha.png": (_saved(Image.new("LA", (6, 4)), "PNG"), "has_alpha"),
        "cmyk.jpg": (_saved(Image.new("CMYK", (6, 4)), "JPEG"), "cmyk"),
        "pages.tif": (pages.getvalue(), "unsupported"),
        "archive.png": (zipped.getvalue(), "archive"),
        "huge.nii": (bytes(nifti), "too_many_pixels"),
    }


def _dicom() -> dict[str, tuple[bytes, str]]:
    good = as_bytes(image_dataset(pattern()))
    deflated = image_dataset(np.zeros((1100, 1000), np.uint8))
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    syntax = image_dataset(pattern())
    syntax.file_meta.TransferSyntaxUID = JPEG2000
    syntax.PixelData = encapsulate([_j2k_header(20000, 20000)])
    syntax["PixelData"].is_undefined_length = True
    return {
        "text.dcm": (b"no DICOM at all", "not_dicom"),
        "headless.dcm": (good[132:], "not_dicom"),
        "cut.dcm": (good[:-20], "truncated"),
        "deflate.dcm": (as_bytes(deflated), "inflate_bomb"),
        "codestream.dcm": (as_bytes(syntax), "codestream_size"),
        "wide.dcm": (as_bytes(_changed(Rows=60000, Columns=60000)), "too_many_pixels"),
        "frames.dcm": (as_bytes(_changed(NumberOfFrames=1000000)), "too_many_frames"),
        "bits.dcm": (as_bytes(_changed(BitsAllocated=12)), "bad_header"),
        "colour.dcm": (as_bytes(_changed(PhotometricInterpretation="RGB")), "bad_header"),
        "long.dcm": (as_bytes(_changed(PixelData=bytes(200))), "length_mismatch"),
    }


def _changed(**attributes: Any) -> Any:
    dataset = image_dataset(pattern())
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def _saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _png_header(columns: int, rows: int) -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def _j2k_header(rows: int, columns: int) -> bytes:
    size = b"".join(number.to_bytes(4, "big") for number in (columns, rows, 0, 0, columns, rows, 0, 0))
    return b"\xff\x4f\xff\x51" + (41).to_bytes(2, "big") + b"\0\0" + size + b"\0\x01\x07\x01\x01"
