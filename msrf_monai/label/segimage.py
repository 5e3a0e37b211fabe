"""What MONAI Label calls as ``itkimage2segimage``: DICOM segmentations of 2-D images by our writer, the rest by dcmqi.

MONAI Label has dcmqi write every segmentation, and dcmqi needs the place of each image in the patient, which
photographs, ultrasound and plain radiographs do not have: it ends with "Tag not found" and the server with status 500.
The server looks the program up on the PATH, so ours comes first there, takes the same arguments, and starts dcmqi
itself wherever dcmqi can do the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    Producer,
    build_segmentation,
    check_segmentation,
    encode,
    stored_planes,
    write_verified,
)
from msrf_monai.errors import DataError, EngineError, InputError, MsrfError
from msrf_monai.label.segment_names import described_segments, read_object
from msrf_monai.optional import require

__all__ = ["main", "write_segmentation"]

_PROGRAM = "itkimage2segimage"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a segmentation as MONAI Label asks for it; see the module.

    Args:
        arguments: those of dcmqi's ``itkimage2segimage``; default: those of this process.

    Returns:
        The exit code, 1 after an error; it does not return where dcmqi takes over.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog=_PROGRAM, add_help=False)
    for name in ("inputImageList", "inputDICOMDirectory", "outputDICOM", "inputMetadata"):
        parser.add_argument(f"--{name}")
    asked, others = parser.parse_known_args(given)
    try:
        series = None if others or None in vars(asked).values() else _only_image(Path(asked.inputDICOMDirectory))
        if series is None:
            _hand_over(given)
        else:
            write_segmentation(series, Path(asked.inputImageList), Path(asked.inputMetadata), Path(asked.outputDICOM))
    except MsrfError as error:
        # the server's log shows it; MONAI Label itself looks at the file only
        sys.stdout.write(f"error: {error}\n")
        return 1
    return 0


def write_segmentation(image: Dataset, mask: Path, description: Path, output: Path) -> None:
    """Write the DICOM segmentation of one image.

    Args:
        image: the image's header.
        mask: label numbers, in any format that ITK reads, on the image's own pixels.
        description: JSON file with the segments, in dcmqi's words.
        output: the file to write; it appears when it has been read back and found to be right.

    Raises:
        InputError: when the mask is not on the image's pixels, or the image cannot be referred to.
        DataError: when a file cannot be read.
        StorageError: when the result cannot be written.
    """
    source = DicomSource.of_headers([image])
    labels = _labels(mask)
    expected = (source.frames, source.rows, source.columns)
    if labels.shape != expected:
        raise InputError(
            f"the mask has {_size(labels.shape)} pixels and its image {_size(expected)} (frames x rows x columns); "
            "submit a label that was drawn on this image"
        )
    template = read_object(description)
    app = os.environ.get("MSRF_LABEL_APP")
    numbers, segments, bundle = described_segments(template, Path(app) if app else None)
    classes = np.zeros(labels.shape, np.uint8)
    for segment, number in zip(segments, numbers, strict=True):
        classes[labels == number] = segment.number
    identity = Identity.fresh(Producer(model=bundle.name, version=bundle.version))
    made = build_segmentation(source, classes, segments, identity)
    planes = stored_planes(source, classes, segments)
    write_verified(output, encode(made), lambda content: check_segmentation(content, source, planes))


def _only_image(folder: Path) -> Dataset | None:
    """Return the header of the only image of a series; None for a volume, which is dcmqi's work."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []
    if len(files) != 1:
        return None
    try:
        header = pydicom.dcmread(files[0], stop_before_pixels=True)
        source = DicomSource.of_headers([header])
    except (pydicom.errors.InvalidDicomError, OSError, InputError) as error:
        raise DataError(f"the image of the series cannot be used ({error}); fetch it from the PACS again") from None
    return header if source.frames == 1 or source.layout == "clip" else None


def _labels(path: Path) -> npt.NDArray[Any]:
    itk = require("SimpleITK", "label")
    try:
        pixels = itk.GetArrayFromImage(itk.ReadImage(str(path)))
    except RuntimeError as error:
        raise DataError(f"the mask {path.name} cannot be read as an image; submit it again") from error
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    return np.asarray(pixels[None] if pixels.ndim == 2 else pixels)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _hand_over(arguments: Sequence[str]) -> None:
    """Become dcmqi's program of the same name, without what our own interpreter was given."""
    ours = Path(os.environ["MSRF_LABEL_APP"], "bin").resolve() if "MSRF_LABEL_APP" in os.environ else None
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = Path(folder, _PROGRAM)
        if folder and Path(folder).resolve() != ours and os.access(program, os.X_OK) and program.is_file():
            variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            os.execve(program, [str(program), *arguments], variables)  # noqa: S606 - there is no shell
    raise EngineError(
        f"dcmqi's {_PROGRAM} is not on the PATH, and segmentations of volumes need it; make the environment anew with "
        "msrf-monai label --make-environment"
    )


if __name__ == "__main__":
    raise SystemExit(main())
