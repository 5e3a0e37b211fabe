"""Clinical cases for MONAI: the reader that bundles and MONAI Label name, on the same code as batch inference.

MONAI's own loader tries one reader after the other until one gives pixels, whichever they are: a refused picture bomb
was decoded by the next one. This reader therefore refuses where nothing is tried any more, in ``get_data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from monai.utils.misc import ensure_tuple

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.reading import Limits, Opened, RefusedInput, kind_of, open_case, open_folder, open_series
from msrf_monai.clinical.reading.regular import read_head
from msrf_monai.errors import ConfigError, DataError

__all__ = ["ClinicalImageReader", "affine_of_case", "to_monai"]

_READ_BY_CONTENT = ("dicom", "raster", "nifti", "metaimage", "gzip")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Asked:
    """What is to be read, not yet touched."""

    paths: tuple[Path, ...]


class ClinicalImageReader(ImageReader):
    """MONAI reader of any input of ``msrf_monai.clinical``: DICOM, pictures, NIfTI and MetaImage, told by content.

    A path of one file, of a folder that holds one image or volume, or a list of the files of one DICOM series. The
    values are those of ``Case.frame``; nothing is windowed or scaled. To be named in a bundle or in Python as
    ``LoadImaged(keys="image", reader="msrf_monai.clinical.ClinicalImageReader")``; what it refuses, no other reader of
    that loader gets to see.

    Args:
        limits: bounds that differ from those of ``clinical.reading.Limits``, by name, such as ``{"frames": 500}``.
        convert_unusual: take grey with alpha as grey, and CMYK by the plain formula, instead of refusing them.

    Raises:
        ConfigError: when there is no such limit, or it is not a whole number above 0.
    """

    def __init__(self, limits: Mapping[str, int] | Limits | None = None, convert_unusual: bool = False) -> None:
        super().__init__()
        self.limits = _limits(limits)
        self.convert_unusual = convert_unusual

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Say whether every file's first bytes are of a format that can be read; names do not count."""
        return all(self._is_readable(Path(name).expanduser()) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> _Asked:
        """Take note of what is to be read; ``get_data`` reads it, and refuses it where it must."""
        return _Asked(tuple(Path(name) for name in ensure_tuple(data)))

    def get_data(self, img: _Asked) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Read what ``read`` took note of.

        Args:
            img: from ``read``.

        Returns:
            ``(W, H)`` for one frame, ``(W, H, D)`` for several (slices or moments), colour with a last axis of 3, of
            the case's type; and the metadata that ``to_monai`` names.

        Raises:
            DataError: when it is refused; the message names the file, the code and the reason, and the cause is the
                ``RefusedInput``.
        """
        name = str(img.paths[0]) if img.paths else "nothing"
        try:
            pixels, meta = to_monai(self._case(img.paths))
        except RefusedInput as refusal:
            raise DataError(f"{name}: {refusal}") from refusal
        return pixels, {**meta, "filename_or_obj": name}

    def _is_readable(self, path: Path) -> bool:
        try:
            return path.is_dir() or kind_of(read_head(path, self.limits)) in _READ_BY_CONTENT
        except RefusedInput:
            return False

    def _case(self, paths: Sequence[Path]) -> Case:
        paths = [path.expanduser() for path in paths]
        if len(paths) == 1 and not paths[0].is_dir():
            return open_case(paths[0], self.limits, convert_unusual=self.convert_unusual)
        if len(paths) == 1:
            return _only_one(open_folder(paths[0], self.limits, convert_unusual=self.convert_unusual), paths[0])
        if not paths:
            raise DataError("no file was named; expected a path, or the files of one series")
        return _only_one(open_series(paths, self.limits), paths[0])


def to_monai(case: Case) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode all frames of a case as MONAI's readers give images.

    Args:
        case: any case.

    Returns:
        ``(W, H)``, ``(W, H, D)`` for several frames, colour with a last axis of 3, of ``case.info.dtype``; and its
        metadata: the affine (see ``affine_of_case``), ``spatial_shape``, ``original_channel_dim``, ``filename_or_obj``
        (the first file), ``modality``, ``spacing_is_real``, and, where they are known, ``white`` and ``spacing``
        (millimetres along W, H and D).

    Raises:
        RefusedInput: when a frame is damaged.
    """
    info = case.info
    colour = (3,) if info.samples == 3 else ()
    frames = np.empty((info.frames, info.rows, info.columns, *colour), info.dtype)
    for index, frame in enumerate(case.iter_frames()):
        frames[index] = frame
    pixels = frames.transpose(2, 1, 0, 3) if colour else frames.transpose(2, 1, 0)
    if info.frames == 1:
        pixels = pixels[:, :, 0]
    affine = affine_of_case(info)
    meta: dict[str, Any] = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(pixels.shape[:-1] if colour else pixels.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if colour else float("nan"),
        "filename_or_obj": str(case.sources[0]),
        "modality": info.modality,
        "spacing_is_real": info.spacing_is_real,
    }
    if info.white is not None:
        meta["white"] = info.white
    if info.spacing_mm is not None:
        between_slices = () if info.slice_spacing_mm is None else (info.slice_spacing_mm,)
        meta["spacing"] = np.asarray((*info.spacing_mm[::-1], *between_slices))
    return pixels, meta


def affine_of_case(info: ImageInfo) -> npt.NDArray[np.float64]:
    """Return where the pixels lie, as MONAI and NIfTI have it.

    Args:
        info: what is known about a case.

    Returns:
        ``(4, 4)``, from (column, row, frame) to millimetres to the right, front and head: NIfTI's and MetaImage's own
        matrix, DICOM's place in the patient, without a place its spacing from the origin to the left and back (as
        ``clinical.writing.affine_of`` has it), and the identity for pictures, as MONAI has it.
    """
    if info.affine is not None:
        return np.array(info.affine, np.float64)
    affine = np.eye(4)
    if info.kind == "raster":
        return affine
    rows_mm, columns_mm = info.spacing_mm or (1.0, 1.0)
    affine[1, 1], affine[0, 0] = rows_mm, columns_mm
    if info.orientation is not None and info.positions_mm is not None:
        along_row, along_column = (np.array(direction) for direction in info.orientation)
        places = np.array(info.positions_mm)
        step = np.cross(along_row, along_column) * (info.slice_spacing_mm or 1.0)
        if len(places) > 1:
            step = (places[-1] - places[0]) / (len(places) - 1)
        affine[:3] = np.stack([along_row * columns_mm, along_column * rows_mm, step, places[0]], axis=1)
    return np.asarray(_LPS_TO_RAS @ affine)


def _limits(limits: Mapping[str, int] | Limits | None) -> Limits:
    if isinstance(limits, Limits):
        return limits
    known = Limits.__dataclass_fields__
    unknown = [name for name in limits or () if name not in known]
    if unknown:
        raise ConfigError(f"there is no limit {unknown[0]!r}; expected one of {', '.join(known)}")
    return Limits(**dict(limits or {}))


def _only_one(opened: Opened, path: Path) -> Case:
    for refused in opened.refused:
        raise DataError(f"{refused.paths[0]}: {refused.refusal}") from refused.refusal
    if len(opened.cases) != 1:
        raise DataError(
            f"{path}: {len(opened.cases)} images or volumes were found; expected one: name the wanted file, or put it "
            "into a folder of its own"
        )
    return opened.cases[0]
