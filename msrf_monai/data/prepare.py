"""From a downloaded data set to a folder that training reads, every file checked, everything wrong listed at once."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from msrf_monai.data.catalogue import DatasetInfo, get_dataset_info
from msrf_monai.data.checking import CheckedItem, ImageMode, Progress, check_items
from msrf_monai.data.folder import Entry, new_dataset_folder, write_datalist
from msrf_monai.data.layouts import Listing, SourceItem
from msrf_monai.data.splits import PARTS, assign_folds, hold_out, random_split, read_groups, read_splits
from msrf_monai.errors import DataError, InputError

__all__ = ["PreparedDataset", "prepare_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedDataset:
    """A data set that is ready for training.

    Attributes:
        name: name in the catalogue.
        folder: where it lies.
        split: which split was made: "official", "random" or a name from splits.json.
        counts: number of pictures in "training", "validation" and "test".
        folds: number of folds, 0 when there are none.
        notes: what the user should know: a subset, leaks, pictures that were rewritten, ….
    """

    name: str
    folder: Path
    split: str
    counts: Mapping[str, int]
    folds: int
    notes: tuple[str, ...]


def prepare_dataset(
    name: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    folds: int = 5,
    seed: int = 0,
    images: ImageMode = "copy",
    strict: bool = False,
    overwrite: bool = False,
    include: Sequence[str] = (),
    progress: Progress | None = None,
) -> PreparedDataset:
    """Check a data set and write the folder that ``load_datalist`` and MONAI's decathlon functions read.

    Every picture and every mask is decoded completely. Masks become 8-bit PNG of 0 and 255; the masks of single objects
    are merged. Pictures keep their bytes, except those that programs would read differently: an EXIF orientation other
    than upright, CMYK and other colour models. Those become PNG without a change of intensity (see ``read_picture``),
    in every mode of ``images``.

    Args:
        name: name in the catalogue, such as "kvasir_seg", or a generic layout, "folders" or "paired".
        source: folder of the downloaded data set. It may hold splits.json and groups.csv (see ``read_splits`` and
            ``read_groups``).
        out: folder to make.
        split: "official", "random" (80/10/10, whole groups, each class for itself) or a name from splits.json. None:
            the official one where the folders tell training from test or validation, else a random one. A split
            without validation gets a tenth of its training pictures.
        folds: number of folds over training and validation pictures, 0 for none.
        seed: number that chooses the random split and the folds.
        images: "copy" the pictures, "link" to them (symbolic links), or only "reference" their absolute paths.
        strict: treat another number of pictures than the official one as an error, not as a note.
        overwrite: replace ``out`` when it holds a prepared data set.
        include: classes to take although the data set's entry leaves them out, such as "normal" of BUSI.
        progress: called with the number of pictures done and the number of all.

    Returns:
        Where the data set is, how it was divided and what the user should know.

    Raises:
        DataError: when files are missing, broken, inconsistent or in the wrong place: one message lists them all.
        InputError: when an argument is not one of the allowed values.
        StorageError: when the folder cannot be written. In all cases ``out`` is as it was before.
    """
    info = get_dataset_info(name)
    source, out = Path(source).expanduser().resolve(), Path(out).expanduser().resolve()
    _check_arguments(source, out, images=images, folds=folds)
    listing = _with_groups(info, source, _list_source(info, source))
    listing, left_out = _with_strata(info, listing, include)
    division = _divide(info, source, listing.items, split, seed, left_out)
    with new_dataset_folder(out, overwrite=overwrite) as folder:
        problems = [*listing.problems, *_name_problems(listing.items), *_split_problems(division, listing.items)]
        problems += _count_notes(info, listing.items) if strict else []
        checked = check_items(_distinct(listing.items), folder, images, progress)
        _raise_problems(info, source, problems + [problem for item in checked for problem in item.problems])
        used = [item for item in checked if item.item.identity in division.parts]
        _drop_unused(folder, [item for item in checked if item.item.identity not in division.parts])
        fold_of = _folds(division, listing.items, folds, seed)
        notes = tuple(
            _count_notes(info, listing.items) + listing.notes + division.notes + _content_notes(used, division)
        )
        fold_count = len(set(fold_of.values()))
        header = _header(info, division.name, seed, fold_count, notes)
        digests = {path: digest for item in used for path, digest in item.digests}
        counts = write_datalist(folder, header, [_entry(item, division, fold_of) for item in used], digests)
    logger.info("prepared %s: %d pictures in %s", info.name, sum(counts.values()), out)
    return PreparedDataset(info.name, out, division.name, counts, fold_count, notes)


def _check_arguments(source: Path, out: Path, *, images: str, folds: int) -> None:
    if images not in get_args(ImageMode):
        raise InputError(f"images is {images!r}; expected one of {', '.join(get_args(ImageMode))}")
    if folds < 0 or folds == 1:
        raise InputError(f"folds is {folds}; expected 0 for none, or 2 and more")
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise DataError(f"{source}: the source folder {what}; give the folder of the downloaded data set")
    if out == source or out in source.parents:
        raise DataError(f"{out}: the source lies in this folder, which would be replaced; choose another one")


def _list_source(info: DatasetInfo, source: Path) -> Listing:
    for layout in info.layouts:
        listing = layout.read(source)
        if listing is not None:
            return listing
    expected = " or ".join(dict.fromkeys(layout.expected for layout in info.layouts))
    found = sorted(child.name + "/" * child.is_dir() for child in source.iterdir())
    shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") or "nothing: the folder is empty"
    where = f"; get the data set at {info.url}" if info.url else ""
    raise DataError(f"{source}: does not look like {info.title}: expected {expected}; found {shown}{where}")


def _with_groups(info: DatasetInfo, source: Path, listing: Listing) -> Listing:
    """Give each item its group: from the table that lies in the source, else by the rule of the data set.

    The table may name pictures as their files are called, even where their identity had to be made distinct.
    """
    table = read_groups(source)
    rule = info.group_of
    items = []
    for item in listing.items:
        named = table.get(item.identity) or table.get(item.image.stem)
        group = named or (rule(item.identity) if rule and not table else None)
        items.append(replace(item, group=group))
    if table and items and all(item.group is None for item in items):
        examples = f"{next(iter(table))!r}, a picture {items[0].image.stem!r}"
        raise DataError(
            f"{source}: its table of groups names none of the {len(items)} pictures (it says {examples}); write the "
            "names of the pictures into it, or take it away to split them one by one"
        )
    alone = sum(item.group is None for item in items)
    if alone and (table or info.grouping):
        listing.notes.append(
            f"{alone} of {len(items)} pictures have no known {info.grouping or 'group'}: they are split one by one, so "
            "that near-copies may lie in training and test; a groups.csv in the source mends that"
        )
    return replace(listing, items=items)


def _with_strata(info: DatasetInfo, listing: Listing, include: Sequence[str]) -> tuple[Listing, frozenset[str]]:
    """Give each item its class where the data set has classes, and take away those that are left out.

    Returns:
        The listing, and the names that were taken away.
    """
    wrong = sorted(set(include) - set(info.left_out))
    if wrong:
        known = f"expected {' or '.join(info.left_out)}" if info.left_out else "it leaves no class out"
        raise InputError(f"{info.name} leaves out no class {wrong[0]!r} that could be included; {known}")
    if info.stratum_of is None:
        return listing, frozenset()
    items = [replace(item, stratum=item.stratum or info.stratum_of(item.identity)) for item in listing.items]
    alone = sum(item.stratum is None for item in items)
    if alone:
        listing.notes.append(f"{alone} of {len(items)} pictures have no known class ({', '.join(info.counts)})")
    unwanted = set(info.left_out) - set(include)
    left_out = Counter(item.stratum for item in items if item.stratum in unwanted)
    listing.notes += [
        f"{count} {name} pictures were left out; include {name!r} to take them" for name, count in left_out.items()
    ]
    names = frozenset(item.identity for item in items if item.stratum in unwanted)
    return replace(listing, items=[item for item in items if item.identity not in names]), names


def _name_problems(items: Sequence[SourceItem]) -> list[str]:
    names: dict[str, list[SourceItem]] = defaultdict(list)
    for item in items:
        names[item.identity.casefold()].append(item)
    return [
        f"{same[1].image}: its name {same[1].identity!r} is also that of {same[0].image}; names must be unique"
        for same in names.values()
        if len(same) > 1
    ]


def _raise_problems(info: DatasetInfo, source: Path, problems: Sequence[str]) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = "".join(f"\n  - {problem}" for problem in sorted(problems))
        raise DataError(f"{info.title} in {source} has {count}; mend or remove these files, then run again:{lines}")


def _distinct(items: Sequence[SourceItem]) -> list[SourceItem]:
    """Return the items without those whose name came before, which are reported: two must not write one file."""
    return list({item.identity.casefold(): item for item in reversed(items)}.values())[::-1]


@dataclass(frozen=True)
class _Division:
    """A split: its name, the part of each picture, and what to say of it."""

    name: str
    parts: dict[str, str]
    notes: list[str]


def _divide(
    info: DatasetInfo,
    source: Path,
    items: Sequence[SourceItem],
    split: str | None,
    seed: int,
    left_out: frozenset[str],
) -> _Division:
    """Make the split that was asked for, or the standard one; it may name pictures that are left out."""
    official = {item.identity: item.part for item in items if item.part is not None}
    offered = read_splits(source / "splits.json") if (source / "splits.json").is_file() else {}
    choices = [*(("official",) if official else ()), "random", *offered]
    name = split or ("official" if len(set(official.values())) > 1 else "random")
    if name not in choices:
        raise DataError(f"{source}: has no split {name!r}; it offers {', '.join(choices)}")
    notes = []
    if split is None and offered:
        notes.append(f"splits.json in the source offers {', '.join(offered)}; the {name} split was made")
    groups = {item.identity: item.group for item in items}
    strata = {item.identity: item.stratum for item in items}
    given = {identity: part for identity, part in offered.get(name, official).items() if identity not in left_out}
    parts = random_split(groups, seed=seed, strata=strata) if name == "random" else given
    if "validation" not in parts.values() and name != "random":
        training = {identity: groups.get(identity) for identity, part in parts.items() if part == "training"}
        taken = hold_out(training, seed=seed, strata=strata)
        parts.update(dict.fromkeys(taken, "validation"))
        notes.append(
            f"the {name} split has no validation part: {len(taken)} training pictures were taken (seed {seed})"
        )
    if len(groups.keys() - parts.keys()):
        notes.append(f"{len(groups.keys() - parts.keys())} pictures are not in the {name} split and were left out")
    torn = _torn_groups(groups, parts)
    if torn:
        notes.append(
            f"{torn} groups ({info.grouping or 'group'}) have pictures in more than one part of the {name} split"
        )
    return _Division(name, parts, notes)


def _torn_groups(groups: Mapping[str, str | None], parts: Mapping[str, str]) -> int:
    parts_of: dict[str, set[str]] = defaultdict(set)
    for identity, group in groups.items():
        if group is not None and identity in parts:
            parts_of[group].add(parts[identity])
    return sum(len(found) > 1 for found in parts_of.values())


def _split_problems(division: _Division, items: Sequence[SourceItem]) -> list[str]:
    known = {item.identity for item in items}
    return [
        f"{name}: is in the {division.name} split, no picture is called so" for name in division.parts.keys() - known
    ]


def _folds(division: _Division, items: Sequence[SourceItem], folds: int, seed: int) -> dict[str, int]:
    """Give each training and validation picture a fold; fewer folds than asked for when there are too few groups."""
    kept = {item.identity: item.group for item in items if division.parts.get(item.identity) in PARTS[:2]}
    units = len({(identity if group is None else None, group) for identity, group in kept.items()})
    if min(folds, units) < 2:
        return {}
    if units < folds:
        division.notes.append(f"{units} folds instead of {folds}: there are only so many groups outside the test part")
    strata = {item.identity: item.stratum for item in items}
    return assign_folds(kept, folds=min(folds, units), seed=seed, strata=strata)


def _entry(item: CheckedItem, division: _Division, fold_of: Mapping[str, int]) -> Entry:
    found, identity = item.item, item.item.identity
    part, fold = division.parts[identity], fold_of.get(identity)
    return Entry(identity, item.image, item.label, part, fold, found.group, found.stratum)


def _count_notes(info: DatasetInfo, items: Sequence[SourceItem]) -> list[str]:
    """Compare the number of pictures with the official one, part by part or class by class where those are known."""
    parts = Counter(item.part if info.stratum_of is None else item.stratum for item in items)
    if not info.counts:
        return []
    if None in parts:
        given, expected = {"all": len(items)}, {"all": sum(info.counts.values())}
    else:
        given, expected = {str(part): count for part, count in parts.items()}, dict(info.counts)
    hint = f" ({info.count_note})" if info.count_note else ""
    return [
        f"{given[part]} pictures ({part}) are here, the official number is {expected[part]}{hint}"
        for part in given
        if given[part] != expected.get(part)
    ]


def _content_notes(items: Sequence[CheckedItem], division: _Division) -> list[str]:
    notes = []
    reasons = Counter(item.rewritten for item in items if item.rewritten)
    notes += [f"{count} pictures were written anew as PNG: {why}" for why, count in sorted(reasons.items())]
    empty = sum(item.is_empty for item in items)
    if empty:
        notes.append(f"{empty} masks are empty")
    parts_of: dict[str, set[str]] = defaultdict(set)
    for item in items:
        parts_of[item.digests[1][1]].add(division.parts[item.item.identity])
    leaks = sum(len(parts) > 1 for parts in parts_of.values())
    if leaks:
        notes.append(f"{leaks} pictures lie in more than one part, byte for byte the same: scores will be too good")
    return notes


def _header(info: DatasetInfo, split: str, seed: int, folds: int, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": info.name,
        "description": f"{info.title}: {info.subject}",
        "reference": info.url,
        "licence": info.licence,
        "citation": info.citation,
        "modality": {"0": info.modality},
        "labels": {str(index): label for index, label in enumerate(info.labels)},
        "split": split,
        "seed": seed,
        "numFolds": folds,
        "notes": list(notes),
    }


def _drop_unused(folder: Path, items: Sequence[CheckedItem]) -> None:
    """Remove what was written for pictures that the split leaves out."""
    for item in items:
        for path, _ in item.digests:
            if not Path(path).is_absolute():
                (folder / path).unlink()
