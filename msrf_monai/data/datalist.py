"""What a configuration asks for: the pictures of a part or a fold of a prepared data set, or of any folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msrf_monai.data.folder import DATALIST_NAME
from msrf_monai.data.pictures import PICTURE_SUFFIXES
from msrf_monai.data.splits import PARTS, cross_validation_part
from msrf_monai.errors import DataError, InputError
from msrf_monai.files import sha256_of
from msrf_monai.json_files import read_json

__all__ = ["list_images", "load_datalist", "verify_dataset"]

INPUT_SUFFIXES = (*sorted(PICTURE_SUFFIXES - {".gif", ".webp"}), ".dcm", ".nii", ".nii.gz")
_PATH_KEYS = ("image", "label")
_OPTIONAL_PATH_KEYS = ("fov", "label2")
_EVERYTHING = "all"


def load_datalist(
    dataset_dir: str | os.PathLike[str], split: str, *, fold: int | None = None, limit: int | None = None
) -> list[dict[str, str]]:
    """Return the pictures and masks of one part of a prepared data set.

    Args:
        dataset_dir: folder that ``msrf-monai data prepare`` or ``synthesize`` made.
        split: "training", "validation", "test", or "all" for the pictures of all three.
        fold: None for the parts as prepared. Otherwise "validation" is this fold of the training and validation
            pictures and "training" all others of them; "test" stays what it is. In a data set prepared with a split
            that is a cross-validation ("5fold" of STARE) "test" is this fold, "validation" the next one or the next
            ones (see ``cross_validation_part``), "training" the others.
        limit: return at most so many, the first ones.

    Returns:
        A dictionary with absolute paths under "image" and "label" for each picture, ordered by name. Where every
        picture of the part has them, also the mask of the field of view under "fov", the second observer's mask under
        "label2" and the class of the picture under "stratum".

    Raises:
        DataError: when the folder, dataset.json or a file that it lists is missing, an item of the part has no image
            or label, or the part is empty.
        InputError: when ``split``, ``fold`` or ``limit`` is out of range.
    """
    folder = Path(dataset_dir)
    if split not in (*PARTS, _EVERYTHING):
        raise InputError(f"split is {split!r}; expected one of {', '.join(PARTS)}, {_EVERYTHING}")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected 1 or more, or none")
    content = _read_datalist(folder)
    path = folder / DATALIST_NAME
    items = _chosen(path, content, split, fold)
    if not items:
        raise DataError(f"{path}: the {split} part is empty; prepare the data set with another split")
    root = folder.resolve()
    # all or none, since a batch needs equal keys
    keys = [*_PATH_KEYS, *(key for key in _OPTIONAL_PATH_KEYS if all(key in item for item in items))]
    has_strata = all(isinstance(item.get("stratum"), str) for item in items)
    items = items[:limit]
    chosen = [{key: str(root / item[key]) for key in keys} for item in items]
    missing = [file for item in chosen for file in item.values() if not Path(file).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}: listed in {DATALIST_NAME}, missing on disk; prepare the data set again")
    if has_strata:
        chosen = [paths | {"stratum": item["stratum"]} for paths, item in zip(chosen, items, strict=True)]
    return chosen


def list_images(
    folder: str | os.PathLike[str], *, recursive: bool = True, exclude: str | os.PathLike[str] | None = None
) -> list[dict[str, str]]:
    """Return the pictures of a folder for inference.

    Args:
        folder: a folder, or a single picture.
        recursive: look into the folders inside as well.
        exclude: a folder inside whose pictures are left out, such as that of the results of an earlier run; one that
            is not inside changes nothing.

    Returns:
        A dictionary ``{"image": path}`` with an absolute path for each file whose suffix is that of PNG, JPEG, TIFF,
        BMP, PPM, DICOM or NIfTI, ordered by path; hidden files are left out.

    Raises:
        DataError: when there is no such folder, no picture in it, or when it is the folder to leave out.
    """
    # not resolve(): results are named by where a picture lies below this folder, which may be a link
    root = Path(os.path.abspath(folder))  # noqa: PTH100
    if root.is_file():
        return [{"image": str(root)}]
    if not root.is_dir():
        raise DataError(f"{root}: this folder of pictures does not exist")
    left_out = _inside(root, exclude)
    found = root.rglob("*") if recursive else root.iterdir()
    files = sorted(path for path in found if _is_input(path, root) and not (left_out and path.is_relative_to(left_out)))
    if not files:
        raise DataError(f"{root}: no picture in this folder; expected files that end in {', '.join(INPUT_SUFFIXES)}")
    return [{"image": str(path)} for path in files]


def verify_dataset(dataset_dir: str | os.PathLike[str]) -> int:
    """Check that every file of a prepared data set is there and has the bytes that it had when it was prepared.

    Args:
        dataset_dir: folder of the data set.

    Returns:
        The number of files that were checked.

    Raises:
        DataError: when files are missing, changed or have no digest; one message lists them all.
    """
    folder = Path(dataset_dir)
    content = _read_datalist(folder)
    digests = content.get("sha256")
    if not isinstance(digests, dict):
        raise DataError(f"{folder / DATALIST_NAME}: has no sha256 sums; prepare the data set again")
    path = folder / DATALIST_NAME
    keys = (*_PATH_KEYS, *_OPTIONAL_PATH_KEYS)
    listed = {item[key] for part in PARTS for item in _part(path, content, part) for key in keys if key in item}
    problems = [f"{file}: has no sha256 sum" for file in listed - digests.keys()]
    problems += [problem for file, digest in digests.items() if (problem := _file_problem(folder, file, digest))]
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in sorted(problems))
        raise DataError(f"{folder}: {len(problems)} of {len(digests)} files are not what was prepared:{lines}")
    return len(digests)


def _read_datalist(folder: Path) -> dict[str, Any]:
    path = folder / DATALIST_NAME
    if not folder.is_dir():
        raise DataError(f"{folder}: the data set folder does not exist; make it with: {_how_to(folder)}")
    if not path.is_file():
        raise DataError(f"{path}: is missing, so that this is no prepared data set; make one with: {_how_to(folder)}")
    content = read_json(path, f"make it again with: {_how_to(folder)}")
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected an object with training, validation, test")
    return content


def _how_to(folder: Path) -> str:
    return f"msrf-monai data prepare NAME --source DOWNLOADED --out {folder}"


def _part(path: Path, content: dict[str, Any], split: str) -> list[dict[str, Any]]:
    items = content.get(split, [])
    if not isinstance(items, list):
        raise DataError(f"{path}: {split!r} is a {type(items).__name__}; expected a list; prepare the data set again")
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in _PATH_KEYS):
            raise DataError(
                f"{path}: item {number} of {split!r} is {item!r:.120}; expected an object whose image and label are "
                "paths; prepare the data set again"
            )
        for key in _OPTIONAL_PATH_KEYS:
            if not isinstance(item.get(key, ""), str):
                raise DataError(
                    f"{path}: item {number} of {split!r} has {item[key]!r:.40} as {key!r}; expected a path; prepare "
                    "the data set again"
                )
        if not isinstance(item.get("fold", 0), int):
            raise DataError(
                f"{path}: item {number} of {split!r} has the fold {item['fold']!r:.40}; expected a whole number; "
                "prepare the data set again"
            )
    return items


def _chosen(path: Path, content: dict[str, Any], split: str, fold: int | None) -> list[dict[str, Any]]:
    """Return the items of a part or of all, as prepared or with a fold."""
    is_cross_validation = content.get("crossValidation") is True
    if split == _EVERYTHING:
        return _together(path, content, PARTS)
    if fold is None or (split == "test" and not is_cross_validation):
        return _part(path, content, split)
    items = _together(path, content, PARTS if is_cross_validation else PARTS[:2])
    folds = sorted({item["fold"] for item in items if "fold" in item})
    if fold not in folds:
        known = f"from {folds[0]} to {folds[-1]}" if folds else "none: this data set was prepared without folds"
        raise InputError(f"fold is {fold}; expected {known}")
    if is_cross_validation:
        return [item for item in items if _part_in(item, fold, len(folds)) == split]
    return [item for item in items if (item.get("fold") == fold) == (split == "validation")]


def _part_in(item: dict[str, Any], fold: int, folds: int) -> str | None:
    return cross_validation_part(item["fold"], fold, folds) if "fold" in item else None


def _together(path: Path, content: dict[str, Any], parts: Sequence[str]) -> list[dict[str, Any]]:
    return sorted((item for part in parts for item in _part(path, content, part)), key=lambda item: str(item["image"]))


def _inside(root: Path, exclude: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder to leave out as a path below ``root``, or None when it does not lie there."""
    real, other = root.resolve(), Path(exclude).resolve() if exclude is not None else None
    if other == real:
        raise DataError(
            f"{root}: is the folder of the pictures and that of the results; choose another output folder, so that "
            "results are not taken for pictures"
        )
    return root / other.relative_to(real) if other is not None and other.is_relative_to(real) else None


def _is_input(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.name.lower().endswith(INPUT_SUFFIXES) and path.is_file()


def _file_problem(folder: Path, path: str, digest: str) -> str:
    try:
        return "" if sha256_of(folder / path) == digest else f"{path}: has changed (another sha256 sum)"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
