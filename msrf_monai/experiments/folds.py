"""Folds of a cross-validation: each picture is tested once, and a part of each training set chooses the checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msrf_monai.data.splits import assign_folds
from msrf_monai.errors import InputError

__all__ = ["FoldSplit", "make_folds"]

_ROUNDING = 1e-9  # so that a tenth of 90 is 9, however the product is rounded


@dataclass(frozen=True)
class FoldSplit:
    """One fold, by the names of its pictures.

    Attributes:
        index: number of the fold, from 0.
        training: pictures to which the weights are fitted.
        validation: pictures that choose the checkpoint (the articles' "dev" part), taken from the training part.
        test: the fold itself, which nothing but the final scores sees.
    """

    index: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def make_folds(
    groups: Mapping[str, str | None],
    *,
    folds: int,
    seed: int,
    strata: Mapping[str, str] | None = None,
    shuffle: bool = True,
    dev_share: float = 0.1,
) -> list[FoldSplit]:
    """Divide pictures into folds, and each fold's training part into training and dev.

    With ``shuffle`` the folds are those of ``msrf_monai.data.splits.assign_folds``: chosen by the seed, whole groups at
    a time, every stratum spread evenly; the dev part is drawn in the same way. Without, it is the articles' plain
    KFold: the fold is a block of consecutive names, the dev part the last names of the others.

    Args:
        groups: the group (patient, sequence, …) of each picture by name, None for a picture that stands alone. Without
            ``shuffle`` its order is the order of the pictures.
        folds: number of folds, at most the number of groups.
        seed: chooses among the possibilities; does nothing without ``shuffle``.
        strata: the class of each picture by name; None for none.
        shuffle: False for blocks of consecutive names; then there must be neither groups nor strata.
        dev_share: share of each training part that is its dev part, in (0, 0.5]; rounded down where there are neither
            groups nor strata, but at least one picture.

    Returns:
        The folds. Names keep the order of ``groups``.

    Raises:
        InputError: when there are fewer groups (or fewer pictures of a stratum) than folds, when a training part is one
            group, of which no dev part can be taken, or when the arguments contradict each other.
    """
    if not 0 < dev_share <= 0.5:
        raise InputError(f"the dev share is {dev_share}; expected a number above 0 and at most 0.5")
    if not shuffle and (strata or any(group is not None for group in groups.values())):
        raise InputError(
            "folds without shuffling are blocks of consecutive pictures, which keep neither groups nor strata; "
            "shuffle, or leave groups and strata out"
        )
    _refuse_rare(strata, folds)
    fold_of = assign_folds(groups, folds=folds, seed=seed, strata=strata) if shuffle else _blocks(list(groups), folds)
    splits = []
    for index in range(folds):
        others = [name for name in groups if fold_of[name] != index]
        dev = _drawn(others, groups, strata, dev_share, f"{seed}:{index}") if shuffle else _last(others, dev_share)
        splits.append(
            FoldSplit(
                index,
                tuple(name for name in others if name not in dev),
                tuple(name for name in others if name in dev),
                tuple(name for name in groups if fold_of[name] == index),
            )
        )
        _refuse_empty(splits[-1])
    return splits


def _refuse_rare(strata: Mapping[str, str] | None, folds: int) -> None:
    for stratum, count in sorted(Counter((strata or {}).values()).items()):
        if count < folds:
            raise InputError(
                f"{folds} folds were asked for, and the stratum {stratum!r} has {count} pictures; "
                "ask for fewer folds, or do not stratify"
            )


def _refuse_empty(split: FoldSplit) -> None:
    if not (split.training and split.validation):
        raise InputError(
            f"the training part of fold {split.index} cannot be divided, since it is a single picture or group of "
            "pictures; ask for more folds, or do not keep groups together"
        )


def _blocks(names: Sequence[str], folds: int) -> dict[str, int]:
    """Give consecutive names the same fold, as KFold does: the first folds take the remainder."""
    if not 2 <= folds <= len(names):
        raise InputError(f"{folds} folds were asked for; expected from 2 to {len(names)}, the number of pictures")
    size, larger = divmod(len(names), folds)
    sizes = [size + (index < larger) for index in range(folds)]
    numbers = [index for index, count in enumerate(sizes) for _ in range(count)]
    return dict(zip(names, numbers, strict=True))


def _last(names: Sequence[str], share: float) -> set[str]:
    return set(names[len(names) - _wanted(len(names), share) :])


def _wanted(count: int, share: float) -> int:
    return max(1, math.floor(share * count + _ROUNDING))


def _drawn(
    names: Sequence[str],
    groups: Mapping[str, str | None],
    strata: Mapping[str, str] | None,
    share: float,
    salt: str,
) -> set[str]:
    """Draw whole groups whose strata come near to their shares; one group is always left, and one always taken."""
    members: dict[tuple[str, str], list[str]] = {}
    for name in names:
        group = groups[name]
        members.setdefault(("picture", name) if group is None else ("group", group), []).append(name)
    order = sorted(members, key=lambda unit: hashlib.sha256(f"{salt}:{':'.join(unit)}".encode()).hexdigest())
    counts = {unit: Counter(strata[name] if strata else "" for name in members[unit]) for unit in order}
    totals = Counter(strata[name] if strata else "" for name in names)
    missing = {stratum: share * total for stratum, total in totals.items()}
    if not strata:
        missing = {"": float(_wanted(len(names), share))}
    taken: list[tuple[str, str]] = []
    for unit in order[:-1]:
        gain = sum(abs(missing[key]) - abs(missing[key] - number) for key, number in counts[unit].items())
        if gain > 0:
            taken.append(unit)
            missing = {key: value - counts[unit][key] for key, value in missing.items()}
    if not taken and len(order) > 1:
        taken = [min(order, key=lambda unit: len(members[unit]))]
    return {name for unit in taken for name in members[unit]}
