"""The pictures of a prepared data set with their groups and strata, and folds of them as data sets of their own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from msrf_monai.data.datalist import load_datalist
from msrf_monai.data.folder import DATALIST_NAME, Entry, write_datalist
from msrf_monai.data.splits import PARTS
from msrf_monai.errors import DataError, InputError
from msrf_monai.experiments.folds import FoldSplit
from msrf_monai.files import sha256_of
from msrf_monai.json_files import read_json

__all__ = ["Picture", "PreparedPictures", "check_parts", "find_dataset", "read_pictures", "write_fold"]

PREPARE_AGAIN = "prepare the data set again"
_HEADER_KEYS = ("name", "description", "reference", "licence", "citation", "modality", "labels")


@dataclass(frozen=True)
class Picture:
    """One picture of a prepared data set.

    Attributes:
        identity: its name, unique in the data set.
        image: absolute path.
        label: absolute path of its mask.
        group: patient, sequence, … or None.
        stratum: class such as "benign", or None.
        digests: SHA-256 of image and mask, None where the data set has none.
    """

    identity: str
    image: str
    label: str
    group: str | None = None
    stratum: str | None = None
    digests: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class PreparedPictures:
    """What a cross-validation takes from a prepared data set.

    Attributes:
        name: the data set's name.
        folder: its folder.
        sha256: digest of its dataset.json.
        parts: the parts whose pictures are taken.
        pictures: ordered by name.
        header: licence, citation, …: what a fold's dataset.json repeats.
    """

    name: str
    folder: Path
    sha256: str
    parts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    header: Mapping[str, Any]

    @property
    def groups(self) -> dict[str, str | None]:
        """The group of each picture by name."""
        return {picture.identity: picture.group for picture in self.pictures}

    @property
    def strata(self) -> dict[str, str] | None:
        """The stratum of each picture by name; None unless every picture has one and there are two at least."""
        strata = {picture.identity: picture.stratum for picture in self.pictures if picture.stratum is not None}
        return strata if len(strata) == len(self.pictures) and len(set(strata.values())) > 1 else None

    def copies(self) -> dict[str, list[str]]:
        """Return the names of pictures that are byte for byte the same, by their digest."""
        same: dict[str, list[str]] = defaultdict(list)
        for picture in self.pictures:
            if picture.digests[0] is not None:
                same[picture.digests[0]].append(picture.identity)
        return {digest: names for digest, names in same.items() if len(names) > 1}


def find_dataset(name_or_dir: str | os.PathLike[str], bundle: Path) -> Path:
    """Return the folder of a prepared data set.

    Args:
        name_or_dir: the folder, or a name, which is looked for in ``data/`` here and in the bundle.
        bundle: folder of the bundle.

    Raises:
        DataError: when there is no such folder; the message says where it was looked for.
    """
    given = Path(name_or_dir).expanduser()
    places = [given]
    if given.name == str(name_or_dir):
        places += [Path("data") / given, bundle / "data" / given]
    for place in places:
        if (place / DATALIST_NAME).is_file():
            return place.resolve()
    looked = " or ".join(str(place) for place in places)
    raise DataError(
        f"there is no prepared data set {str(name_or_dir)!r}: no {DATALIST_NAME} in {looked}; make one with: "
        f"msrf-monai data prepare NAME --source DOWNLOADED --out data/{given.name}"
    )


def check_parts(parts: Sequence[str]) -> None:
    """Refuse a part that no data set has.

    Args:
        parts: names of parts.

    Raises:
        InputError: when one of them is unknown.
    """
    wrong = sorted(set(parts) - set(PARTS))
    if wrong:
        raise InputError(f"there is no part {wrong[0]!r}; expected some of {', '.join(PARTS)}")


def read_pictures(dataset_dir: Path, *, parts: Sequence[str] | None = None) -> PreparedPictures:
    """Read which pictures a prepared data set offers for cross-validation.

    Args:
        dataset_dir: folder that ``msrf-monai data prepare`` or ``synthesize`` made.
        parts: the parts whose pictures are taken. None: all of them where the parts were drawn at random, so that they
            mean nothing; else training and validation, so that an official test part stays untouched.

    Raises:
        DataError: when the folder or a file is missing, no part has a picture, or a name occurs twice.
        InputError: when there is no part of that name.
    """
    check_parts(parts or ())
    path = dataset_dir / DATALIST_NAME
    content = _read(path)
    wanted = parts or (PARTS if content.get("split") == "random" else PARTS[:2])
    chosen = tuple(part for part in PARTS if part in wanted and content.get(part))
    if not chosen:
        raise DataError(f"{path}: has no picture in {' and '.join(wanted)}; choose other parts")
    pictures: dict[str, Picture] = {}
    digests = content.get("sha256")
    for part in chosen:
        # load_datalist checks the entries and the files; without a fold it keeps the order of the list
        for item, paths in zip(content[part], load_datalist(dataset_dir, part), strict=True):
            picture = _picture(item, paths, digests if isinstance(digests, dict) else {})
            if picture.identity in pictures:
                raise DataError(f"{path}: two pictures are called {picture.identity!r}; names must be unique")
            pictures[picture.identity] = picture
    ordered = tuple(pictures[name] for name in sorted(pictures))
    header = {key: content[key] for key in _HEADER_KEYS if key in content}
    return PreparedPictures(
        str(content.get("name", dataset_dir.name)), dataset_dir, sha256_of(path), chosen, ordered, header
    )


def write_fold(folder: Path, prepared: PreparedPictures, split: FoldSplit) -> None:
    """Write one fold as a data set: a dataset.json whose paths lead to the prepared files, of which none is copied.

    Args:
        folder: folder of the new data set.
        prepared: the pictures.
        split: which picture is in which part.

    Raises:
        StorageError: when the file cannot be written.
    """
    part_of = {name: part for part, names in zip(PARTS, _names(split), strict=True) for name in names}
    entries, digests = [], {}
    for picture in prepared.pictures:
        part = part_of[picture.identity]
        entries.append(
            Entry(picture.identity, picture.image, picture.label, part, group=picture.group, stratum=picture.stratum)
        )
        for file, digest in zip((picture.image, picture.label), picture.digests, strict=True):
            if digest is not None:
                digests[file] = digest
    header = {**prepared.header, "split": f"fold {split.index}"}
    write_datalist(folder, header, entries, digests)


def match_file(file: str, pictures: Sequence[Picture]) -> Picture | None:
    """Return the picture whose path ends as an evaluation names it; None when none or several do."""
    parts = PurePath(file).parts
    found = [picture for picture in pictures if PurePath(picture.image).parts[-len(parts) :] == parts]
    return found[0] if len(found) == 1 else None


def _names(split: FoldSplit) -> tuple[tuple[str, ...], ...]:
    return split.training, split.validation, split.test


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path, PREPARE_AGAIN)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected an object; {PREPARE_AGAIN}")
    return content


def _picture(item: Mapping[str, Any], paths: Mapping[str, str], digests: Mapping[str, Any]) -> Picture:
    return Picture(
        identity=str(item.get("id") or Path(item["image"]).stem),
        image=paths["image"],
        label=paths["label"],
        group=_text(item.get("group")),
        stratum=_text(item.get("stratum")),
        digests=(_text(digests.get(item["image"])), _text(digests.get(item["label"]))),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
