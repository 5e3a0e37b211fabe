"""Folds: against scikit-learn's splitters, the articles' numbers, and what any folds must hold."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from msrf_monai.data.splits import assign_folds
from msrf_monai.errors import InputError
from msrf_monai.experiments import make_folds


def alone(count: int) -> dict[str, str | None]:
    return {f"case_{index:04d}": None for index in range(count)}


@pytest.mark.parametrize(("count", "folds"), [(10, 2), (11, 3), (647, 5), (1000, 10), (2594, 10)])
def test_unshuffled_folds_are_those_of_scikit_learn(count: int, folds: int) -> None:
    names = list(alone(count))

    splits = make_folds(alone(count), folds=folds, seed=0, shuffle=False)

    for split, (_, test) in zip(splits, KFold(folds).split(names), strict=True):
        assert list(split.test) == [names[index] for index in test]


@pytest.mark.parametrize(
    ("count", "folds", "training"),
    [
        (2594, 10, {2101, 2102}),  # ISIC 2018 in the first article
        (1000, 10, {810}),  # Kvasir-SEG in the first article
        (2594, 5, {1868, 1869}),  # ISIC 2018 in the second article
        (1000, 5, {720}),  # Kvasir-SEG in the second article
    ],
)
def test_unshuffled_parts_have_the_articles_sizes(count: int, folds: int, training: set[int]) -> None:
    splits = make_folds(alone(count), folds=folds, seed=0, shuffle=False)

    assert {len(split.training) for split in splits} == training
    for split in splits:
        others = [name for name in alone(count) if name not in set(split.test)]
        assert list(split.training + split.validation) == others  # the dev part is the last tenth


CASES = {
    "alone": (alone(53), None),
    "groups": ({name: f"patient {index % 9}" for index, name in enumerate(alone(53))}, None),
    "strata": (alone(53), {name: "ab"[index % 3 == 0] for index, name in enumerate(alone(53))}),
    "groups and strata": (
        {name: f"patient {index % 17}" for index, name in enumerate(alone(53))},
        {name: "abc"[index % 17 % 3] for index, name in enumerate(alone(53))},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1, 42])
@pytest.mark.parametrize("folds", [2, 5])
def test_parts_are_disjoint_and_cover_all_and_groups_stay_whole(case: str, seed: int, folds: int) -> None:
    groups, strata = CASES[case]

    splits = make_folds(groups, folds=folds, seed=seed, strata=strata)

    tested = [name for split in splits for name in split.test]
    assert sorted(tested) == sorted(groups)
    for split in splits:
        parts = (split.training, split.validation, split.test)
        assert sorted(name for part in parts for name in part) == sorted(groups)
        assert all(parts)
        units = [{groups[name] or name for name in part} for part in parts]
        assert not units[0] & units[1]
        assert not units[0] & units[2]
        assert not units[1] & units[2]


def test_without_strata_the_folds_are_those_of_prepare() -> None:
    groups = CASES["groups"][0]

    splits = make_folds(groups, folds=4, seed=7)

    fold_of = {name: split.index for split in splits for name in split.test}
    assert fold_of == assign_folds(groups, folds=4, seed=7)


def test_strata_are_spread_as_evenly_as_by_scikit_learn() -> None:
    strata = {name: "benign" if index < 437 else "malignant" for index, name in enumerate(alone(647))}

    splits = make_folds(alone(647), folds=5, seed=42, strata=strata)

    ours = [Counter(strata[name] for name in split.test) for split in splits]
    labels = np.array(list(strata.values()))
    theirs = [Counter(labels[test].tolist()) for _, test in StratifiedKFold(5).split(labels, labels)]
    for stratum in ("benign", "malignant"):
        assert sorted(count[stratum] for count in ours) == sorted(count[stratum] for count in theirs)


def test_the_dev_part_keeps_the_shares_of_the_strata() -> None:
    strata = {name: "benign" if index < 437 else "malignant" for index, name in enumerate(alone(647))}

    splits = make_folds(alone(647), folds=5, seed=42, strata=strata, dev_share=0.2)

    for split in splits:
        counts = Counter(strata[name] for name in split.validation)
        training = Counter(strata[name] for name in (*split.training, *split.validation))
        for stratum, total in training.items():
            assert abs(counts[stratum] - 0.2 * total) <= 0.5


@pytest.mark.parametrize(("share", "wanted"), [(0.1, 9), (0.2, 18), (0.5, 45), (0.001, 1)])
def test_the_dev_part_of_single_pictures_has_its_share_rounded_down(share: float, wanted: int) -> None:
    splits = make_folds(alone(100), folds=10, seed=3, dev_share=share)

    assert {len(split.validation) for split in splits} == {wanted}


def test_dev_parts_differ_from_fold_to_fold_and_from_seed_to_seed() -> None:
    one, again, other = (make_folds(alone(60), folds=3, seed=seed) for seed in (1, 1, 2))

    assert one == again
    assert one != other
    assert len({split.validation for split in one}) == 3


def test_the_order_of_the_files_does_not_matter_when_shuffled() -> None:
    backwards = dict(reversed(alone(30).items()))

    splits = make_folds(backwards, folds=3, seed=5)

    expected = make_folds(alone(30), folds=3, seed=5)
    assert [set(split.validation) for split in splits] == [set(split.validation) for split in expected]


def test_a_dev_part_is_the_smallest_group_where_all_are_too_large() -> None:
    groups: dict[str, str | None] = {f"{group}{index}": group for group in "abcd" for index in range(20 + ord(group))}

    splits = make_folds(groups, folds=4, seed=0)

    smallest = [min({group for group in "abcd" if group != split.test[0][0]}) for split in splits]
    assert [{name[0] for name in split.validation} for split in splits] == [{group} for group in smallest]


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (alone(5), {"folds": 6}, "6 folds were asked for; expected from 2 to 5, the number of groups"),
        (dict.fromkeys(alone(9), "one"), {"folds": 2}, "from 2 to 1, the number of groups"),
        (alone(5), {"folds": 1}, "1 folds were asked for"),
        (alone(5), {"folds": 6, "shuffle": False}, "from 2 to 5, the number of pictures"),
        (alone(5), {"folds": 2, "dev_share": 0.0}, "the dev share is 0.0"),
        (alone(5), {"folds": 2, "dev_share": 0.6}, "at most 0.5"),
        (dict.fromkeys(alone(9), "one"), {"folds": 2, "shuffle": False}, "keep neither groups nor strata"),
        (alone(4), {"folds": 2, "shuffle": False, "strata": dict.fromkeys(alone(4), "a")}, "neither groups nor strata"),
        (alone(4), {"folds": 3, "strata": dict(zip(alone(4), "aaab", strict=True))}, "the stratum 'a' has 3|'b' has 1"),
        (dict(zip("abcd", "xxyy", strict=True)), {"folds": 2}, "fold 0 cannot be divided"),
        (alone(2), {"folds": 2, "shuffle": False}, "fold 0 cannot be divided"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(groups: dict[str, str | None], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_folds(groups, seed=0, **options)
