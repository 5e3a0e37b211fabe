"""Splits and folds, against their definitions and the properties of scikit-learn's GroupKFold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from msrf_monai.data.catalogue import clinicdb_sequence
from msrf_monai.data.splits import assign_folds, hold_out, random_split, read_groups, read_splits
from msrf_monai.errors import DataError, InputError

CLINICDB = {str(frame): clinicdb_sequence(str(frame)) for frame in range(1, 613)}


def test_clinicdb_has_29_sequences_without_a_gap() -> None:
    sequences = [CLINICDB[str(frame)] for frame in range(1, 613)]

    assert sequences == sorted(sequences)
    assert len(set(sequences)) == 29
    assert (sequences[24], sequences[25], sequences[-1]) == ("sequence_01", "sequence_02", "sequence_29")
    assert max(Counter(sequences).values()) == 26


@pytest.mark.parametrize("name", ["0", "613", "frame1", "", "-1", "²"])
def test_a_name_that_is_no_clinicdb_frame_has_no_sequence(name: str) -> None:
    assert clinicdb_sequence(name) is None


@given(count=st.integers(1, 300), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_a_random_split_of_single_pictures_is_80_10_10_to_the_picture(count: int, seed: int) -> None:
    parts = Counter(random_split({f"n{index}": None for index in range(count)}, seed=seed).values())

    assert sum(parts.values()) == count
    if count >= 3:
        assert max(1, count / 10 - 0.5) <= parts["test"] <= max(1, count / 10 + 0.5)
        assert max(1, count / 10 - 0.5) <= parts["validation"] <= max(1, count / 10 + 0.5)
    assert parts["training"] >= 1


def test_a_random_split_keeps_sequences_whole_and_near_the_shares() -> None:
    for seed in range(20):
        parts = random_split(CLINICDB, seed=seed)
        per_sequence: dict[str, set[str]] = {}
        for name, part in parts.items():
            per_sequence.setdefault(CLINICDB[name], set()).add(part)
        counts = Counter(parts.values())

        assert all(len(found) == 1 for found in per_sequence.values())
        assert abs(counts["test"] - 61) <= 13
        assert abs(counts["validation"] - 61) <= 13


def test_one_large_group_does_not_become_the_test_part() -> None:
    sizes = {"large": 60, **{f"small{index}": 2 for index in range(20)}}
    groups = {f"{group}_{item}": group for group, size in sizes.items() for item in range(size)}

    for seed in range(30):
        parts = random_split(groups, seed=seed)
        assert {part: count for part, count in Counter(parts.values()).items() if part != "training"} == {
            "test": 10,
            "validation": 10,
        }
        assert parts["large_0"] == "training"


def test_where_every_group_is_large_the_smallest_is_held_out() -> None:
    groups = {f"{group}_{item}": group for group, size in (("a", 40), ("b", 30), ("c", 35)) for item in range(size)}

    for seed in range(10):
        parts = random_split(groups, seed=seed)
        assert (parts["b_0"], parts["c_0"], parts["a_0"]) == ("test", "validation", "training")
        assert {name[0] for name in hold_out(groups, seed=seed)} == {"b"}


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    names = {f"n{index}": None for index in range(50)}
    turned = dict(reversed(names.items()))

    assert random_split(names, seed=1) == random_split(turned, seed=1)
    assert random_split(names, seed=1) != random_split(names, seed=2)


def test_folds_are_those_that_group_k_fold_allows_and_as_balanced() -> None:
    folds = assign_folds(CLINICDB, folds=5, seed=3)
    names = list(CLINICDB)
    groups = np.array([CLINICDB[name] for name in names])
    theirs = [len(test) for _, test in GroupKFold(5).split(names, groups=groups)]
    ours = Counter(folds.values())

    for fold in range(5):
        inside = {CLINICDB[name] for name in names if folds[name] == fold}
        outside = {CLINICDB[name] for name in names if folds[name] != fold}
        assert not inside & outside
    assert set(ours) == set(range(5))
    assert max(ours.values()) - min(ours.values()) <= max(theirs) - min(theirs) + 1


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=30), folds=st.integers(2, 10), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_picture_has_one_fold_and_no_fold_is_empty(sizes: list[int], folds: int, seed: int) -> None:
    groups = {f"{group}_{item}": str(group) for group, size in enumerate(sizes) for item in range(size)}
    folds = min(folds, len(sizes))

    assigned = assign_folds(groups, folds=folds, seed=seed)

    assert assigned.keys() == groups.keys()
    assert set(assigned.values()) == set(range(folds))
    counts = Counter(assigned.values())
    assert max(counts.values()) - min(counts.values()) <= max(sizes)


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(InputError, match="3 folds were asked for; expected from 2 to 2"):
        assign_folds({"a": "x", "b": "x", "c": "y"}, folds=3, seed=0)


def test_a_tenth_is_held_out_in_whole_groups() -> None:
    taken = hold_out(CLINICDB, seed=0)

    assert 40 <= len(taken) <= 75
    assert not {CLINICDB[name] for name in taken} & {CLINICDB[name] for name in CLINICDB.keys() - taken}
    assert hold_out({"a": "x", "b": "x"}, seed=0) == set()


def test_both_forms_of_splits_json_are_read_and_notes_left_out(tmp_path: Path) -> None:
    content = {
        "lists": {"train": ["a", "b.jpg"], "val": ["c"], "test": ["d"], "extra": ["z"]},
        "members": {"a": "test", "b": "validation", "c": "training"},
        "kinds": {"a": "large", "b": "small"},
        "empty": {},
        "note": "a text",
        "all": ["a", "b"],
    }
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(content), encoding="utf-8")

    splits = read_splits(path)

    assert splits == {
        "lists": {"a": "training", "b": "training", "c": "validation", "d": "test"},
        "members": {"a": "test", "b": "validation", "c": "training"},
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ('{"s": {"train": ["a"], "test": ["a"]}}', "has 'a' in training and in test"),
    ],
)
def test_a_broken_splits_json_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=reason):
        read_splits(path)


def test_groups_are_read_from_the_tables_that_come_with_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("frame_id,sequence_id,path\n1,7,a/1.png\n2,8,\n", encoding="utf-8")
    assert read_groups(tmp_path) == {"1": "7", "2": "8"}

    (tmp_path / "groups.csv").write_text("image,patient\na.png,p1\nb.png,\n", encoding="utf-8")
    assert read_groups(tmp_path) == {"a": "p1"}


@pytest.mark.parametrize("content", [b"", b"image,colour\na,red\n", b"image,patient\n\xff\xfe,p\n"])
def test_a_groups_table_without_its_columns_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "groups.csv").write_bytes(content)

    with pytest.raises(DataError, match=r"groups.csv: (has the columns|cannot be read)"):
        read_groups(tmp_path)


def test_a_metadata_table_about_something_else_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file,colour\na,red\n", encoding="utf-8")

    assert read_groups(tmp_path) == {}
