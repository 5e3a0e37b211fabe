"""A folder of mixed files: each regular file below it is a case, a part of a volume, a copy, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.metaimage import voxel_file
from msrf_monai.clinical.reading.opening import FileKind, kind_of, open_case
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import check_inside, read_head
from msrf_monai.clinical.reading.series import Opened, Refused, open_series

__all__ = ["open_folder"]


def open_folder(
    folder: str | os.PathLike[str],
    limits: Limits | None = None,
    *,
    slice_by_slice: bool = False,
    convert_unusual: bool = False,
) -> Opened:
    """Open everything below a folder.

    Args:
        folder: the input folder; links to folders are not followed, and links to files only within it.
        limits: bounds for each file; default ``Limits()``.
        slice_by_slice: see ``open_series``.
        convert_unusual: see ``open_raster``.

    Returns:
        Every file, in one of the three lists; pictures and volume files first, then DICOM, each sorted by path. No
        pixel is decoded and no file kept in memory.

    Raises:
        RefusedInput: ``missing`` when there is no such folder.
    """
    root, limits = Path(folder), limits or Limits()
    if not root.is_dir():
        raise RefusedInput(RefusalCode.MISSING, "there is no such input folder; check the path")
    refused: list[Refused] = []
    kinds: dict[Path, FileKind] = {}
    voxels: dict[Path, Path] = {}
    for path in _files_below(root, refused):
        try:
            check_inside(path, root)
            kind = kind_of(read_head(path, limits))
            data = voxel_file(path, limits) if kind == "metaimage" else None
        except RefusedInput as refusal:
            refused.append(Refused((path,), refusal))
            continue
        kinds[path] = kind
        if data is not None:
            voxels[path] = data
    # what a header names as its voxels is no input of its own, unless it could be one by its content
    owned = {path for path in voxels.values() if kinds.get(path) in ("unknown", "raster", "gzip", "archive")}
    cases: list[Case] = []
    for path in (path for path, kind in kinds.items() if kind != "dicom" and path not in owned):
        try:
            cases.append(open_case(path, limits, convert_unusual=convert_unusual, keep=False))
        except RefusedInput as refusal:
            parts = (path, voxels[path]) if voxels.get(path) in owned else (path,)
            refused.append(Refused(parts, refusal))
    dicom = [path for path, kind in kinds.items() if kind == "dicom"]
    opened = open_series(dicom, limits, slice_by_slice=slice_by_slice)
    return Opened((*cases, *opened.cases), (*refused, *opened.refused), opened.duplicates)


def _files_below(root: Path, refused: list[Refused]) -> list[Path]:
    """Return every file and every link below a folder; folders that cannot be listed go to ``refused``."""

    def note(error: OSError) -> None:
        reason = RefusedInput(
            RefusalCode.PERMISSION_DENIED, "the folder cannot be listed; give this user the right to read it"
        )
        refused.append(Refused((Path(os.fsdecode(error.filename)),), reason))

    found: list[Path] = []
    for name, folders, files in os.walk(root, onerror=note, followlinks=False):
        links = [folder for folder in folders if (Path(name) / folder).is_symlink()]
        found += [Path(name) / entry for entry in (*files, *links)]
    return sorted(found, key=os.fsencode)
