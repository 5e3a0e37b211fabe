"""From a downloaded data set to a folder that training reads, every file checked, everything wrong listed at once."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from msrf_monai.data.catalogue import get_dataset_info
from msrf_monai.data.checking import CheckedItem, ImageMode, Progress, check_items
from msrf_monai.data.division import Division, divide
from msrf_monai.data.folder import Entry, new_dataset_folder, write_datalist
from msrf_monai.data.info import DatasetInfo
from msrf_monai.data.layouts import Listing, SourceItem
from msrf_monai.data.splits import read_groups
from msrf_monai.data.volumes.window import BIT_DEPTHS, Window
from msrf_monai.errors import DataError, InputError

__all__ = ["PreparedDataset", "prepare_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedDataset:
    """A data set that is ready for training.

    Attributes:
        name: name in the catalogue.
        folder: where it lies.
        split: which split was made: "official", "random", a standard one or one from splits.json.
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
    window: str | None = None,
    bits: int = 8,
    progress: Progress | None = None,
) -> PreparedDataset:
    """Check a data set and write the folder that ``load_datalist`` and MONAI's decathlon functions read.

    Every picture and every mask is decoded completely. Masks become 8-bit PNG of 0 and 255; the masks of single objects
    are merged. Pictures keep their bytes, except those that programs would read differently: an EXIF orientation other
    than upright, CMYK and other colour models. Those become PNG without a change of intensity (see ``read_picture``),
    in every mode of ``images``.

    Data sets of retinal vessels get a mask of the field of view for each picture in ``fov``, given or derived (see
    ``derive_field_of_view``), and the second observer's masks in ``labels2``.

    Volumes become slices, grey PNG of 8 or 16 bits, whatever ``images`` says. Each item has its place ("slice"), the
    distances between rows, columns ("spacing_mm") and slices ("slice_spacing_mm") and the values that became black and
    white ("window"), so that the volume can be put together again; its group is the volume. Slices in which nothing is
    marked are left out unless ``include`` names their class.

    Args:
        name: name in the catalogue, such as "kvasir_seg", or a generic layout, "folders" or "paired".
        source: folder of the downloaded data set. It may hold splits.json and groups.csv (see ``read_splits`` and
            ``read_groups``).
        out: folder to make.
        split: "official", "random" (80/10/10, whole groups, each class for itself), a standard split of the data set
            ("20_8" of CHASE_DB1) or a name from splits.json. None: the data set's default; else the official one where
            the folders tell training from test or validation, else a random one. A split without validation gets a
            tenth of its training pictures; in the vessel data sets the last fifth by name.
        folds: number of folds over training and validation pictures, 0 for none. A split that is a cross-validation
            has its own.
        seed: number that chooses the random split and the folds.
        images: "copy" the pictures, "link" to them (symbolic links), or only "reference" their absolute paths.
        strict: treat another number of pictures than the official one as an error, not as a note.
        overwrite: replace ``out`` when it holds a prepared data set.
        include: classes to take although the data set's entry leaves them out, such as "normal" of BUSI.
        window: "LEVEL,WIDTH" of the values that become black to white in slices of volumes; None for the data set's.
        bits: 8 or 16, the depth of slices of volumes.
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
    _check_arguments(source, out, images=images, folds=folds, bits=bits)
    listing = _with_groups(info, source, _list_source(info, source))
    chosen = _window(info, listing.items, window, bits)
    listing, left_out = _with_strata(info, listing, include)
    division = divide(info, source, listing.items, split=split, folds=folds, seed=seed, left_out=left_out)
    with new_dataset_folder(out, overwrite=overwrite) as folder:
        problems = [*listing.problems, *_name_problems(listing.items), *division.problems(listing.items)]
        problems += _count_notes(info, listing.items) if strict else []
        checked = check_items(
            _distinct(listing.items),
            folder,
            images,
            progress,
            with_field_of_view=info.has_field_of_view,
            window=chosen,
            bits=bits,
        )
        _raise_problems(info, source, problems + [problem for item in checked for problem in item.problems])
        used = [item for item in checked if item.item.identity in division.parts]
        _drop_unused(folder, [item for item in checked if item.item.identity not in division.parts])
        notes = tuple(
            _count_notes(info, listing.items)
            + listing.notes
            + division.notes
            + _volume_notes(used, chosen, bits)
            + _content_notes(used, division)
        )
        header = _header(info, division, seed) | _window_entry(used, chosen, bits) | {"notes": list(notes)}
        digests = {path: digest for item in used for path, digest in item.digests.items()}
        counts = write_datalist(folder, header, [_entry(item, division) for item in used], digests)
    logger.info("prepared %s: %d pictures in %s", info.name, sum(counts.values()), out)
    return PreparedDataset(info.name, out, division.name, counts, division.folds, notes)


def _window(info: DatasetInfo, items: Sequence[SourceItem], text: str | None, bits: int) -> Window | None:
    if (text is not None or bits != BIT_DEPTHS[0]) and not any(item.volume for item in items):
        raise InputError(f"window and bits are for volumes; {info.name} holds pictures here, which stay as they are")
    return info.window if text is None else Window.parse(text, info.window.unit if info.window else "")


def _check_arguments(source: Path, out: Path, *, images: str, folds: int, bits: int) -> None:
    if bits not in BIT_DEPTHS:
        raise InputError(f"bits is {bits}; expected {' or '.join(map(str, BIT_DEPTHS))}")
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
    """Give each item its group: from the table in the source, else from the layout, else by the data set's rule.

    The table may name pictures as their files are called, even where their identity had to be made distinct, and
    volumes, whose slices are then all named.
    """
    table = read_groups(source)
    rule = info.group_of
    items, found = [], 0
    for item in listing.items:
        named = table.get(item.identity) or table.get(item.image.stem) or table.get(item.group or "")
        found += named is not None
        group = named or item.group or (rule(item.identity) if rule and not table else None)
        items.append(replace(item, group=group))
    if table and items and not found:
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
    rule = info.stratum_of
    items = [replace(item, stratum=item.stratum or (rule(item.identity) if rule else None)) for item in listing.items]
    alone = sum(item.stratum is None for item in items)
    if alone and rule is not None:
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


def _entry(item: CheckedItem, division: Division) -> Entry:
    found, identity = item.item, item.item.identity
    return Entry(
        identity,
        item.paths["image"],
        item.paths["label"],
        division.parts[identity],
        division.fold_of.get(identity),
        found.group,
        found.stratum,
        fov=item.paths.get("fov"),
        label2=item.paths.get("label2"),
        details=item.details,
    )


def _count_notes(info: DatasetInfo, items: Sequence[SourceItem]) -> list[str]:
    """Compare the number of pictures or groups with the official one, by part or by class where those are known."""
    if not info.counts:
        return []
    by_class = any(item.stratum in info.counts for item in items)
    keys = [
        (item.stratum if by_class else item.part, item.group if info.counts_groups else item.identity) for item in items
    ]
    parts = Counter(part for part, _ in dict.fromkeys(keys))
    if None in parts:
        given, expected = {"all": parts.total()}, {"all": sum(info.counts.values())}
    else:
        given, expected = {str(part): count for part, count in parts.items()}, dict(info.counts)
    hint = f" ({info.count_note})" if info.count_note else ""
    what = f"{info.grouping}s" if info.counts_groups else "pictures"
    return [
        f"{given[part]} {what} ({part}) are here, the official number is {expected[part]}{hint}"
        for part in given
        if given[part] != expected.get(part, given[part])
    ]


def _volume_notes(items: Sequence[CheckedItem], window: Window | None, bits: int) -> list[str]:
    """Say what became of volumes, and what was odd about files."""
    slices = [item.item.volume for item in items if item.item.volume is not None]
    notes = list(dict.fromkeys(item.remark for item in items if item.remark))
    if slices and window is not None:
        count = len(set(slices))
        notes.insert(0, f"{len(slices)} slices of {count} volumes were written as {bits}-bit PNG, window {window.text}")
    return notes


def _content_notes(items: Sequence[CheckedItem], division: Division) -> list[str]:
    notes = []
    reasons = Counter(item.rewritten for item in items if item.rewritten)
    notes += [f"{count} pictures were written anew as PNG: {why}" for why, count in sorted(reasons.items())]
    empty = sum(item.is_empty for item in items)
    if empty:
        notes.append(f"{empty} masks are empty")
    notes += _observation_notes(items)
    parts_of: dict[str, set[str]] = defaultdict(set)
    for item in items:
        parts_of[item.digests[item.paths["image"]]].add(division.parts[item.item.identity])
    leaks = sum(len(parts) > 1 for parts in parts_of.values())
    if leaks:
        notes.append(f"{leaks} pictures lie in more than one part, byte for byte the same: scores will be too good")
    return notes


def _observation_notes(items: Sequence[CheckedItem]) -> list[str]:
    """Say which fields of view were given and which derived, and how many pictures a second observer marked."""
    with_field = [item.item for item in items if "fov" in item.paths]
    derived = sorted(item.identity for item in with_field if item.field_of_view is None)
    notes = []
    if with_field:
        shown = ", ".join(derived[:8]) + (", …" if len(derived) > 8 else "")
        names = f" ({shown})" if derived else ""
        given = len(with_field) - len(derived)
        notes.append(f"fields of view: {given} were given, {len(derived)} were derived from the pictures{names}")
    second = sum("label2" in item.paths for item in items)
    if second:
        notes.append(f"a second observer's masks are here for {second} of {len(items)} pictures")
    return notes


def _header(info: DatasetInfo, division: Division, seed: int) -> dict[str, Any]:
    header: dict[str, Any] = {
        "name": info.name,
        "description": f"{info.title}: {info.subject}",
        "reference": info.url,
        "licence": info.licence,
        "citation": info.citation,
        "modality": {"0": info.modality},
        "labels": {str(index): label for index, label in enumerate(info.labels)},
        "split": division.name,
        "seed": seed,
        "numFolds": division.folds,
    }
    if division.is_cross_validation:
        header["crossValidation"] = True
    return header


def _window_entry(items: Sequence[CheckedItem], window: Window | None, bits: int) -> dict[str, str]:
    has_volumes = window is not None and any(item.item.volume for item in items)
    return {"window": f"{window.text}, {bits} bits"} if window is not None and has_volumes else {}


def _drop_unused(folder: Path, items: Sequence[CheckedItem]) -> None:
    """Remove what was written for pictures that the split leaves out."""
    for item in items:
        for path in item.digests:
            if not Path(path).is_absolute():
                (folder / path).unlink()
