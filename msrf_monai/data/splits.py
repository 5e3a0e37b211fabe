"""Training, validation and test parts, and folds: seeded, whole groups only, the same on every machine."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msrf_monai.data.pictures import PICTURE_SUFFIXES
from msrf_monai.errors import DataError, InputError
from msrf_monai.json_files import read_json

__all__ = [
    "PARTS",
    "assign_folds",
    "cross_validation_part",
    "hold_out",
    "hold_out_last",
    "random_split",
    "read_groups",
    "read_splits",
    "sized_split",
]

PARTS = ("training", "validation", "test")
TEST_SHARE = VALIDATION_SHARE = 0.1

_PART_NAMES = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NAME_COLUMNS = ("id", "image", "frame_id", "name")
_GROUP_COLUMNS = ("group", "patient", "patient_id", "sequence", "sequence_id")


def random_split(
    groups: Mapping[str, str | None], *, seed: int, strata: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Divide pictures 80/10/10 at random, whole groups at a time.

    The order is that of the SHA-256 digests of seed and name, so that it depends on neither the order of the files nor
    on the version of a library. A group joins the test part, then the validation part, when that brings the part
    nearer to a tenth of the pictures; where every group is too large for that, the smallest one is the part.

    Args:
        groups: the group of each picture by name; a picture whose group is None stands alone.
        seed: number that chooses among the splits.
        strata: the class of each picture by name; every class is divided for itself, so that all parts hold the same
            shares. A group that has several classes counts as the most frequent one.

    Returns:
        "training", "validation" or "test" for each name. With fewer than three groups (of a class) the test part is
        empty, with one group the validation part, too.
    """
    members = _members(groups)
    parts: dict[str, str] = {}
    for stratum in _strata(members, strata):
        order = sorted(stratum, key=lambda group: _rank(seed, group))
        count = sum(len(members[group]) for group in order)
        test, order = _take(order, members, TEST_SHARE * count) if len(order) >= 3 else ([], order)
        validation, order = _take(order, members, VALIDATION_SHARE * count) if len(order) >= 2 else ([], order)
        parts |= dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
        parts |= dict.fromkeys(order, "training")
    return {name: parts[group] for group, names in members.items() for name in names}


def sized_split(names: Collection[str], sizes: tuple[int, int, int], *, seed: int) -> dict[str, str]:
    """Draw training, validation and test pictures one by one, as articles do that divide a set "8:1:1 at random".

    Args:
        names: the pictures.
        sizes: published numbers of training, validation and test pictures. Where there are more or fewer pictures
            than their sum, validation and test get the same shares, rounded, and at least one each if their size is
            not 0 and there are three pictures or more.
        seed: number that chooses among the splits, as in ``random_split``.

    Returns:
        "training", "validation" or "test" for each name.

    Example:
        >>> parts = sized_split([f"{number}" for number in range(40)], (517, 65, 65), seed=0)
        >>> [list(parts.values()).count(part) for part in PARTS]
        [32, 4, 4]
    """
    order = sorted(names, key=lambda name: _rank(seed, f"one:{name}"))
    fewest = 1 if len(order) >= len(PARTS) else 0
    validation, test = (max(round(len(order) * size / sum(sizes)), min(fewest, size)) for size in sizes[1:])
    parts = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + validation], "validation")
    return {name: parts.get(name, "training") for name in names}


def hold_out(
    groups: Mapping[str, str | None],
    *,
    seed: int,
    strata: Mapping[str, str | None] | None = None,
    share: float = VALIDATION_SHARE,
) -> set[str]:
    """Return the names of about a tenth of the pictures, whole groups, for a split that has no validation part.

    Args:
        groups: the group of each training picture by name, None for a picture that stands alone.
        seed: number that chooses among the possibilities.
        strata: as in ``random_split``.
        share: another share than a tenth.

    Returns:
        The names; of a class that is one group, none.
    """
    members = _members(groups)
    names: set[str] = set()
    for stratum in _strata(members, strata):
        order = sorted(stratum, key=lambda group: _rank(seed, group))
        if len(order) >= 2:
            chosen, _ = _take(order, members, share * sum(len(members[group]) for group in order))
            names.update(name for group in chosen for name in members[group])
    return names


def hold_out_last(groups: Mapping[str, str | None]) -> set[str]:
    """Return the names of the last fifth of the pictures by name, whole groups: a validation part that needs no seed.

    For 20 training pictures of DRIVE these are the last four, as in A. Galdran et al., State-of-the-art retinal vessel
    segmentation with minimalistic models, Scientific Reports 12, 2022, doi:10.1038/s41598-022-09675-y.

    Args:
        groups: the group of each training picture by name, None for a picture that stands alone.

    Returns:
        The names: a fifth or a little more; of pictures that are one group, none.

    Example:
        >>> sorted(hold_out_last({str(number): None for number in range(21, 41)}))
        ['37', '38', '39', '40']
    """
    members = _members(groups)
    order = sorted(members, key=lambda group: members[group][-1])
    wanted = len(groups) - 4 * len(groups) // 5
    names: set[str] = set()
    for group in reversed(order[1:]):
        if len(names) < wanted:
            names.update(members[group])
    return names


def cross_validation_part(own: int, tested: int, folds: int) -> str:
    """Return the part of a picture in a cross-validation in which nothing is chosen on what is tested.

    One fold is the test part. The folds after it, a fifth of all and one at least, are the validation part, on which
    epoch and threshold are chosen; after the last fold comes the first. All others are for training.

    Args:
        own: fold of the picture, from 0.
        tested: fold that is tested.
        folds: number of folds, three or more.

    Returns:
        "training", "validation" or "test".

    Example:
        >>> [cross_validation_part(own, tested=3, folds=5) for own in range(5)]
        ['training', 'training', 'training', 'test', 'validation']
    """
    distance = (own - tested) % folds
    if distance == 0:
        return "test"
    return "validation" if distance <= max(1, round(folds / 5)) else "training"


def assign_folds(
    groups: Mapping[str, str | None], *, folds: int, seed: int, strata: Mapping[str, str | None] | None = None
) -> dict[str, int]:
    """Spread pictures over folds of nearly equal size, whole groups at a time.

    The largest group goes first, each to the fold that is smallest so far. With classes, each goes to the fold that has
    the fewest pictures of its class.

    Args:
        groups: the group of each picture by name, None for a picture that stands alone.
        folds: number of folds, at most the number of groups.
        seed: number that chooses among the possibilities.
        strata: as in ``random_split``.

    Returns:
        The fold of each name, from 0 to ``folds - 1``.

    Raises:
        InputError: when there are fewer groups than folds, or fewer than two folds.
    """
    members = _members(groups)
    if not 2 <= folds <= len(members):
        raise InputError(f"{folds} folds were asked for; expected from 2 to {len(members)}, the number of groups")
    sizes = [0] * folds
    assigned: dict[str, int] = {}
    for stratum in _strata(members, strata):
        of_class = [0] * folds
        for group in sorted(stratum, key=lambda group: (-len(members[group]), _rank(seed, group))):
            fold = min(range(folds), key=lambda fold: (of_class[fold], sizes[fold]))
            sizes[fold] += len(members[group])
            of_class[fold] += len(members[group])
            assigned.update(dict.fromkeys(members[group], fold))
    return assigned


def read_splits(path: Path) -> dict[str, dict[str, str]]:
    """Read the splits of a splits.json.

    Two forms are known: ``{"split": {"train": [names], "val": [names], "test": [names]}}`` (also "training",
    "valid", "validation", …) and ``{"split": {name: "train", …}}``. Entries of another form, notes for instance, are
    left out, as is an empty one.

    Args:
        path: the file.

    Returns:
        For each split the part ("training", "validation", "test") of each name.

    Raises:
        DataError: when the file cannot be read, or a split has a name in two parts.
    """
    content = read_json(path, "mend it, or move it away")
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected an object with a split under each name")
    splits = {name: _parts_of(entry, f"{path}: split {name!r}") for name, entry in content.items()}
    return {name: parts for name, parts in splits.items() if parts}


def read_groups(source: Path) -> dict[str, str]:
    """Read the group of each picture from groups.csv or metadata.csv where the source has one.

    Args:
        source: folder of the data set. The table has a column id, image, frame_id or name and a column group, patient,
            patient_id, sequence or sequence_id; other columns do not matter.

    Returns:
        Group by name without suffix; empty when there is no such file or it has no such columns.

    Raises:
        DataError: when groups.csv, which says by its name what it is for, lacks the columns or cannot be read.
    """
    for name in ("groups.csv", "metadata.csv"):
        path = source / name
        if not path.is_file():
            continue
        try:
            with path.open(newline="", encoding="utf-8-sig") as handle:
                rows = list(csv.DictReader(handle))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as a table ({error})") from error
        columns = list(rows[0]) if rows else []
        identity = next((column for column in _NAME_COLUMNS if column in columns), None)
        group = next((column for column in _GROUP_COLUMNS if column in columns), None)
        if identity and group:
            return {_name(row[identity]): row[group] for row in rows if row[identity] and row[group]}
        if name == "groups.csv":
            raise DataError(
                f"{path}: has the columns {', '.join(map(str, columns)) or 'none'}; expected one of "
                f"{', '.join(_NAME_COLUMNS)} and one of {', '.join(_GROUP_COLUMNS)}"
            )
    return {}


def _parts_of(entry: Any, where: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        return {}
    if all(isinstance(part, str) for part in entry.values()):
        return {_name(name): _PART_NAMES[part] for name, part in entry.items() if part in _PART_NAMES}
    parts: dict[str, str] = {}
    for key, names in entry.items():
        part = _PART_NAMES.get(key.lower())
        if part is None or not _is_name_list(names):
            continue
        for name in map(_name, names):
            if parts.setdefault(name, part) != part:
                raise DataError(f"{where} has {name!r} in {parts[name]} and in {part}; expected it once")
    return parts


def _name(name: str) -> str:
    """Return a name without the suffix of a picture, with which some lists write it."""
    path = Path(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def _is_name_list(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _members(groups: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Return the names of each group, in order; the keys of groups and of single pictures cannot meet."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(groups):
        group = groups[name]
        members[f"one:{name}" if group is None else f"group:{group}"].append(name)
    return dict(members)


def _strata(members: Mapping[str, list[str]], strata: Mapping[str, str | None] | None) -> list[list[str]]:
    """Return the groups of each class, the classes in the order of their names; without classes, all groups."""
    of_class: dict[str, list[str]] = defaultdict(list)
    for group, names in members.items():
        counts = Counter((strata or {}).get(name) or "" for name in names)
        of_class[min(counts, key=lambda stratum: (-counts[stratum], stratum))].append(group)
    return [of_class[stratum] for stratum in sorted(of_class)]


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def _take(order: Sequence[str], members: Mapping[str, list[str]], wanted: float) -> tuple[list[str], list[str]]:
    """Return groups that together come near the wanted number of pictures, and the others, both in order.

    Each group in turn is taken when it brings the number nearer. When none does, because all are large, the smallest is
    taken; one group is always left.
    """
    taken: list[str] = []
    count = 0
    for group in order:
        larger = count + len(members[group])
        if len(taken) < len(order) - 1 and abs(larger - wanted) < abs(count - wanted):
            taken.append(group)
            count = larger
    if not taken:
        taken = [min(order, key=lambda group: len(members[group]))]
    chosen = set(taken)
    return taken, [group for group in order if group not in chosen]
