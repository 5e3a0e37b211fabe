"""Pictures of a prepared data set as one test set, of which no picture is copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrf_monai.data.folder import DATALIST_NAME
from msrf_monai.data.splits import PARTS
from msrf_monai.errors import DataError, InputError
from msrf_monai.experiments.pictures import PREPARE_AGAIN, find_dataset
from msrf_monai.files import sha256_of
from msrf_monai.json_files import read_json, write_json

__all__ = ["PreparedSet", "open_set"]

_PATHS = ("image", "label", "fov", "label2")


@dataclass(frozen=True)
class PreparedSet:
    """A prepared data set, as far as an evaluation needs it.

    Attributes:
        name: the data set's name.
        folder: its folder, absolute.
        sha256: digest of its dataset.json, which holds those of the pictures.
        content: of dataset.json.
    """

    name: str
    folder: Path
    sha256: str
    content: Mapping[str, Any]

    def count(self, parts: Sequence[str]) -> int:
        """Return the number of pictures of some parts together."""
        return sum(len(self.content.get(part) or ()) for part in parts)

    def write_test_set(self, folder: Path, parts: Sequence[str]) -> None:
        """Write the pictures of some parts as the test part of a data set of their own, with absolute paths.

        Args:
            folder: folder of the new dataset.json.
            parts: the parts whose pictures are taken.

        Raises:
            StorageError: when the file cannot be written.
        """
        items = [self._absolute(item) for part in parts for item in self.content.get(part) or ()]
        digests = self.content.get("sha256")
        known = digests if isinstance(digests, dict) else {}
        content = {
            **{key: value for key, value in self.content.items() if key not in (*PARTS, "sha256")},
            "split": f"all of {', '.join(parts)}",
            "numTraining": 0,
            "numValidation": 0,
            "numTest": len(items),
            "training": [],
            "validation": [],
            "test": sorted(items, key=lambda item: str(item["image"])),
            "sha256": {self._path(name): digest for name, digest in sorted(known.items())},
        }
        write_json(folder / DATALIST_NAME, content, indent=2, ascii_only=False)

    def _absolute(self, item: Mapping[str, Any]) -> dict[str, Any]:
        paths = {key: self._path(item[key]) for key in _PATHS if isinstance(item.get(key), str)}
        return {**item, **paths}

    def _path(self, name: str) -> str:
        return str(self.folder / name)


def open_set(name_or_dir: str | os.PathLike[str], bundle: Path) -> PreparedSet:
    """Open a prepared data set.

    Args:
        name_or_dir: its folder, or its name, which is looked for in ``data/`` here and in the bundle.
        bundle: folder of the bundle.

    Raises:
        DataError: when it is missing or its dataset.json cannot be used.
        InputError: when its name cannot be that of a folder.
    """
    folder = find_dataset(name_or_dir, bundle)
    path = folder / DATALIST_NAME
    content = read_json(path, PREPARE_AGAIN)
    is_whole = isinstance(content, dict) and all(
        isinstance(item, dict) and isinstance(item.get("image"), str) and isinstance(item.get("label"), str)
        for part in PARTS
        for item in content.get(part) or ()
    )
    if not is_whole:
        raise DataError(f"{path}: expected lists of pictures with image and label; {PREPARE_AGAIN}")
    name = str(content.get("name") or folder.name)
    if name in (".", "..") or any(character in name for character in '/\\:*?"<>|\0'):
        raise InputError(f"{path}: the data set's name {name!r} cannot be that of a folder; rename it there")
    return PreparedSet(name, folder, sha256_of(path), content)
