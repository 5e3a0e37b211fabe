"""Write what a mask of vessels measures beside the mask: a JSON file an image, and a table of the run."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.data.folder_layout import FolderLayoutBase
from monai.data.meta_tensor import MetaTensor

from msrf_monai.errors import ConfigError, InputError, StorageError
from msrf_monai.files import write_bytes, write_text
from msrf_monai.transforms.layout import SafeFolderLayout
from msrf_monai.transforms.result_saver import ResultSaverd
from msrf_monai.transforms.rows import to_rows
from msrf_monai.vessel_measures import MEASURES, Spacing, VesselMeasures, vessel_measures

__all__ = ["SaveVesselMeasuresd", "add_row", "stated_spacing_um"]

_log = logging.getLogger(__name__)
_COLUMNS = ("measures", "pixel_height_um", "pixel_width_um", *MEASURES, "reasons")
_UM_PER_MM = 1000.0


class SaveVesselMeasuresd(ResultSaverd):
    """Measure masks of vessels and write ``<name>_measures.json`` for each, and one ``measures.csv`` for all.

    The names are those of ``SaveMaskd`` with the same folders. Put it where the mask is decided and of the source's
    size, before ``ToSourceAxesd``. An empty mask gives null values with their reasons. It is a ``SaveImaged``, by which
    MONAI Label knows and removes it. See ``vessel_measures`` for what is measured.

    In ``measures.csv`` the first column is the JSON file's path below ``output_dir``. A second run over the same images
    replaces their rows. Processes may share the folder.

    Args:
        keys: keys of the decided masks, ``(1, W, H)``.
        output_dir: the folder of the results, made when missing.
        fov_key: key of the field of view ``(1, W, H)``; an item without it is measured over the whole image.
        spacing_um: height and width of a pixel in µm, or one number for both. None: as the file states it; PNG, JPEG
            and the like state nothing that can be relied on, and lengths are then in pixels only.
        output_postfix: added to the stem of the name.
        table: name of the table in ``output_dir``; None for no table.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming; it must give names that end in ``.json``.
        image_key: key of the image whose metadata names a result that brings none.
        meta_keys: keys of metadata for results that bring none.
        meta_key_postfix: default of ``meta_keys``: ``{key}_{meta_key_postfix}``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when the spacing is not positive.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = "./",
        *,
        fov_key: str | None = "fov",
        spacing_um: float | tuple[float, float] | None = None,
        output_postfix: str = "measures",
        table: str | None = "measures.csv",
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            image_key=image_key,
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            allow_missing_keys=allow_missing_keys,
        )
        self.output_dir = Path(output_dir)
        self.fov_key = fov_key
        self.spacing_um = _given_spacing(spacing_um)
        self.table = table
        self.folder_layout = folder_layout or SafeFolderLayout(
            output_dir, output_postfix, ".json", data_root_dir, parent=separate_folder
        )
        self._count = 0

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Measure the masks of one item and write the results.

        Args:
            data: the item; nothing in it is changed.

        Returns:
            A copy of the dictionary.

        Raises:
            InputError: when a mask is not decided, or of another size than its field of view.
            StorageError: when a file cannot be written; no half-written file or row stays.
            MissingExtraError: when scikit-image is not installed.
        """
        d = dict(data)
        fov = d.get(self.fov_key) if self.fov_key is not None else None
        for key, given in self._results(d):
            own: Any = d[key].meta if isinstance(d[key], MetaTensor) else {}
            meta: Mapping[str, Any] = own if "filename_or_obj" in own else {**given, **own}
            mask = _plane(d[key], key)
            spacing = self.spacing_um or stated_spacing_um(meta, mask.shape)
            found = vessel_measures(mask, None if fov is None else _plane(fov, str(self.fov_key)), spacing_um=spacing)
            self._write(found, spacing, meta, has_fov=fov is not None)
        return d

    def _write(self, found: VesselMeasures, spacing: Spacing | None, meta: Mapping[str, Any], *, has_fov: bool) -> None:
        subject = meta.get("filename_or_obj", f"{self._count:05d}")
        self._count += 1
        path = Path(self.folder_layout.filename(subject=subject, idx=meta.get("patch_index")))
        values = found.as_dict()
        reasons, fits = values.pop("reasons"), values.pop("fits")
        content = {
            "file": Path(subject).name,
            "region": "field of view" if has_fov else "whole image: no field of view was given",
            "spacing_um": None if spacing is None else {"pixel_height": spacing[0], "pixel_width": spacing[1]},
            "measures": values,
            "reasons": reasons,
            "fits": fits,
        }
        write_text(path, json.dumps(content, indent=4, allow_nan=False, ensure_ascii=False) + "\n")
        if self.table is not None:
            name = path.relative_to(self.output_dir) if path.is_relative_to(self.output_dir) else path
            height, width = spacing or (None, None)
            row = {"measures": name.as_posix(), "pixel_height_um": height, "pixel_width_um": width, **values}
            reason = "; ".join(sorted(set(reasons.values())))
            add_row(self.output_dir / self.table, _COLUMNS, {**row, "reasons": reason})
        _log.debug("wrote %s", path.name)


def add_row(path: Path, columns: tuple[str, ...], row: Mapping[str, Any]) -> None:
    """Add a row to a table, whole or not at all; a row of the same first column is replaced.

    A new row is appended by one write, which is taken back when it fails, and what a power cut left of a row is removed
    by the next call. Processes that share the folder wait for each other, where the system and the drive know locks.

    Args:
        path: the CSV file, made with its header when missing.
        columns: the columns; the first one tells rows apart.
        row: value by column; None is an empty cell.

    Raises:
        StorageError: when the file cannot be read or written, or is a table of other columns.
    """
    header, line = _line(columns), _line([row.get(column) for column in columns])
    with _folder_lock(path.parent):
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"cannot add a row to {path}: {error}; move the file away, then run again") from error
        if text and not text.startswith(header):
            raise StorageError(f"{path} is a table of other columns; move it away, then run again")
        key = str(row[columns[0]])
        is_known = f"\n{_line([key])[:-1]}," in text
        if text.endswith("\n") and not is_known:
            _append(path, line.encode("utf-8"))
            return
        whole = text[: text.rfind("\n") + 1] or header
        rows = [cells for cells in csv.reader(io.StringIO(whole)) if cells and cells[0] != key]
        write_bytes(path, "".join([*map(_line, rows), line]).encode("utf-8"))


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab", buffering=0) as handle:
            before = handle.tell()
            try:
                if handle.write(line) != len(line):
                    raise OSError("the row was written in part only")
                os.fsync(handle.fileno())
            except OSError:
                handle.truncate(before)
                raise
    except OSError as error:
        raise StorageError(
            f"cannot add a row to {path}: {error.strerror or error}; nothing was added. Free some space, then run again"
        ) from error


def stated_spacing_um(meta: Mapping[str, Any], shape: tuple[int, ...]) -> Spacing | None:
    """Return the size of a pixel where the file states it.

    Only a NIfTI file's own affine counts, and not one of exactly 1 mm along both axes: that is what programs write
    that know nothing. MONAI gives pictures without any affine the identity, which is no statement either.

    Args:
        meta: metadata of the image.
        shape: (H, W) of what is measured; another size than the file's has other pixels.

    Returns:
        Height and width of a pixel in µm, or None.
    """
    affine = meta.get("original_affine")
    size = [int(each) for each in meta.get("spatial_shape", ())][:2]
    if affine is None or size != list(shape)[::-1]:
        return None
    columns = np.asarray(affine, dtype=np.float64)[:3, :2]
    width, height = (float(length) for length in np.linalg.norm(columns, axis=0))
    if not (math.isfinite(width * height) and width * height > 0) or (width == 1 and height == 1):
        return None
    return height * _UM_PER_MM, width * _UM_PER_MM


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: one process at a time must do
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"cannot write into {folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a drive that knows no locks
            _log.debug("no lock on %s", folder.name)
        yield
    finally:
        os.close(descriptor)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _plane(planes: Any, name: Hashable) -> Any:
    rows = to_rows(planes)
    if rows.shape[2] != 1:
        raise InputError(
            f"{name} has {rows.shape[2]} planes; a mask has one, (1, W, H): decide it before it is measured"
        )
    return rows[..., 0]


def _given_spacing(spacing: float | tuple[float, float] | None) -> Spacing | None:
    if spacing is None:
        return None
    pair = (spacing, spacing) if isinstance(spacing, (int, float)) else tuple(spacing)
    if len(pair) != 2 or not all(math.isfinite(each) and each > 0 for each in pair):
        raise ConfigError(f"spacing_um is {spacing}; expected height and width of a pixel in µm, or one number above 0")
    return float(pair[0]), float(pair[1])
