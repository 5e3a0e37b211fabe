"""The split that ``prepare`` makes: official, random, one of the articles', or one that lies in the source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msrf_monai.data.info import DatasetInfo, StandardSplit
from msrf_monai.data.layouts import SourceItem
from msrf_monai.data.splits import (
    PARTS,
    assign_folds,
    cross_validation_part,
    hold_out,
    hold_out_last,
    random_split,
    read_splits,
    sized_split,
)
from msrf_monai.errors import DataError

__all__ = ["Division", "divide"]

_FEWEST_TESTED_FOLDS = 3


@dataclass(frozen=True)
class Division:
    """A split.

    Attributes:
        name: its name.
        parts: the part of each picture by name; pictures that it leaves out are missing.
        fold_of: the fold of each picture by name where it has one.
        is_cross_validation: every picture has a fold and is tested in it; ``parts`` are those of fold 0.
        notes: what to say of it.
        faults: why it cannot be made.
    """

    name: str
    parts: dict[str, str]
    fold_of: dict[str, int] = field(default_factory=dict)
    is_cross_validation: bool = False
    notes: list[str] = field(default_factory=list)
    faults: tuple[str, ...] = ()

    @property
    def folds(self) -> int:
        """Number of folds, 0 when there are none."""
        return len(set(self.fold_of.values()))

    def problems(self, items: Sequence[SourceItem]) -> list[str]:
        """Return why it cannot be made, and a sentence for each name in it that no picture has."""
        known = {item.identity for item in items}
        unknown = self.parts.keys() - known
        return [*self.faults, *(f"{name}: is in the {self.name} split, no picture is called so" for name in unknown)]


def divide(
    info: DatasetInfo,
    source: Path,
    items: Sequence[SourceItem],
    *,
    split: str | None,
    folds: int,
    seed: int,
    left_out: frozenset[str] = frozenset(),
) -> Division:
    """Make the split that was asked for, or the standard one, and spread pictures over folds.

    Args:
        info: the data set's entry.
        source: its folder, which may hold splits.json.
        items: the pictures.
        split: name of the split, None for the standard one.
        folds: number of folds over training and validation pictures, 0 for none; a cross-validation has its own.
        seed: number that chooses among the possibilities.
        left_out: names that a splits.json may have although their pictures are not among the items.

    Returns:
        The split.

    Raises:
        DataError: when there is no split of that name.
    """
    official = {item.identity: item.part for item in items if item.part is not None}
    offered = read_splits(source / "splits.json") if (source / "splits.json").is_file() else {}
    standard = {known.name: known for known in info.standard_splits if known.name not in offered}
    choices = [*(("official",) if official or info.default_split == "official" else ()), *standard, "random", *offered]
    name = split or info.default_split or ("official" if len(set(official.values())) > 1 else "random")
    if name not in choices:
        raise DataError(f"{source}: has no split {name!r}; it offers {', '.join(choices)}")
    given = {identity: part for identity, part in offered.get(name, official).items() if identity not in left_out}
    known = standard.get(name)
    if known is not None and known.is_cross_validation:
        division = _cross_validation(known, source, items, seed)
    else:
        division = (
            _division(name, known, given, items, seed) if name != "random" else Division(name, _random(items, seed))
        )
        _add_validation(division, info, items, seed)
        division.fold_of.update(_folds(division, items, folds, seed))
    if split is None and offered:
        division.notes.insert(0, f"splits.json in the source offers {', '.join(offered)}; the {name} split was made")
    _note_oddities(division, info, items)
    return division


def _groups(items: Sequence[SourceItem]) -> dict[str, str | None]:
    return {item.identity: item.group for item in items}


def _strata(items: Sequence[SourceItem]) -> dict[str, str | None]:
    return {item.identity: item.stratum for item in items}


def _random(items: Sequence[SourceItem], seed: int) -> dict[str, str]:
    return random_split(_groups(items), seed=seed, strata=_strata(items))


def _division(
    name: str, known: StandardSplit | None, given: Mapping[str, str], items: Sequence[SourceItem], seed: int
) -> Division:
    """Return the parts that a split of the articles, or else a list of names or the official one, gives."""
    if known is None:
        return Division(name, dict(given))
    if known.part_of is not None:
        return Division(name, {item.identity: part for item in items if (part := known.part_of(item.identity))})
    if known.sizes is None or known.keeps_test:
        if len(set(given.values()) | {"validation"}) < len(PARTS):
            told = ", ".join(sorted(set(given.values()))) or "no part"
            fault = f"the {name} split needs folders that tell training from test; they tell {told}: use another split"
            return Division(name, {}, faults=(fault,))
        if known.sizes is None:
            return Division(name, dict(given))
    return _drawn(known, given, items, seed)


def _drawn(known: StandardSplit, given: Mapping[str, str], items: Sequence[SourceItem], seed: int) -> Division:
    """Draw as many pictures for each part as were published."""
    sizes = known.sizes or (1, 0, 0)
    parts: dict[str, str] = {}
    if known.keeps_test:
        parts |= {name: part for name, part in given.items() if part == "test"}
        sizes = (sizes[0], sizes[1], 0)
    drawn_from = [item.identity for item in items if given.get(item.identity, "training") == "training"]
    parts |= sized_split(drawn_from, sizes, seed=seed)
    counts = [list(parts.values()).count(part) for part in PARTS]
    published = "/".join(map(str, known.sizes or ()))
    note = f"the {known.name} split draws pictures one by one (seed {seed}), {published} as published"
    if len(drawn_from) != sum(sizes):
        note += f"; of the {len(drawn_from)} that are here: {'/'.join(map(str, counts))}"
    return Division(known.name, parts, notes=[note])


def _cross_validation(standard: StandardSplit, source: Path, items: Sequence[SourceItem], seed: int) -> Division:
    """Test every picture once; fold 0 is the test part of the datalist as it stands."""
    groups = _groups(items)
    units = sorted({group or identity for identity, group in groups.items()})
    folds = len(units) if standard.leave_one_out else standard.folds
    if not _FEWEST_TESTED_FOLDS <= folds <= len(units):
        fault = (
            f"{source}: has {len(units)} pictures or groups, too few for the split {standard.name!r}; expected "
            f"{max(folds, _FEWEST_TESTED_FOLDS)} or more"
        )
        return Division(standard.name, {}, faults=(fault,))
    if standard.leave_one_out:
        fold_of = {identity: units.index(group or identity) for identity, group in groups.items()}
    else:
        fold_of = assign_folds(groups, folds=folds, seed=seed, strata=_strata(items))
    parts = {identity: cross_validation_part(own, 0, folds) for identity, own in fold_of.items()}
    note = (
        f"the {standard.name} split is a cross-validation: with fold k its {folds} folds are tested one after the "
        "other, epoch and threshold are chosen on the folds that follow; without one the parts are those of fold 0"
    )
    return Division(standard.name, parts, fold_of, is_cross_validation=True, notes=[note])


def _add_validation(division: Division, info: DatasetInfo, items: Sequence[SourceItem], seed: int) -> None:
    """Take a validation part from the training part of a split that has none; random splits have one if they can."""
    if division.name == "random" or "validation" in division.parts.values():
        return
    groups = _groups(items)
    training = {identity: groups.get(identity) for identity, part in division.parts.items() if part == "training"}
    if info.validates_on_last:
        taken = hold_out_last(training)
        how = f"the last {len(taken)} training pictures by name were taken, whole groups"
    else:
        taken = hold_out(training, seed=seed, strata=_strata(items), share=info.validation_share)
        how = f"{len(taken)} training pictures were taken (seed {seed})"
    division.parts.update(dict.fromkeys(taken, "validation"))
    division.notes.append(f"the {division.name} split has no validation part: {how}")


def _folds(division: Division, items: Sequence[SourceItem], folds: int, seed: int) -> dict[str, int]:
    """Give each training and validation picture a fold; fewer folds than asked for when there are too few groups."""
    kept = {item.identity: item.group for item in items if division.parts.get(item.identity) in PARTS[:2]}
    units = len({(identity if group is None else None, group) for identity, group in kept.items()})
    if min(folds, units) < 2:
        return {}
    if units < folds:
        division.notes.append(f"{units} folds instead of {folds}: there are only so many groups outside the test part")
    return assign_folds(kept, folds=min(folds, units), seed=seed, strata=_strata(items))


def _note_oddities(division: Division, info: DatasetInfo, items: Sequence[SourceItem]) -> None:
    groups = _groups(items)
    outside = len(groups.keys() - division.parts.keys())
    if outside:
        division.notes.append(f"{outside} pictures are not in the {division.name} split and were left out")
    torn = _torn_groups(groups, division.parts)
    if torn:
        division.notes.append(
            f"{torn} groups ({info.grouping or 'group'}) have pictures in more than one part of the {division.name} "
            "split: its scores are too good for new ones; the random split keeps groups whole"
        )


def _torn_groups(groups: Mapping[str, str | None], parts: Mapping[str, str]) -> int:
    parts_of: dict[str, set[str]] = defaultdict(set)
    for identity, group in groups.items():
        if group is not None and identity in parts:
            parts_of[group].add(parts[identity])
    return sum(len(found) > 1 for found in parts_of.values())
