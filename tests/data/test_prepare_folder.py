"""The folder that preparing makes: what it replaces, what it spares, what is left when something fails."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from msrf_monai.data import checking as checking_module
from msrf_monai.data import folder as folder_module
from msrf_monai.data import prepare_dataset, verify_dataset
from msrf_monai.errors import DataError, InputError, StorageError
from support.prepared_sets import datalist, siblings

Maker = Callable[..., Path]


def test_a_folder_in_use_is_kept_unless_it_is_ours_and_overwriting_is_asked_for(
    tmp_path: Path, paired_source: Maker
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")

    with pytest.raises(DataError, match="is not empty"):
        prepare_dataset("paired", source, out)
    with pytest.raises(DataError, match=r"holds no dataset.json"):
        prepare_dataset("paired", source, out, overwrite=True)
    with pytest.raises(DataError, match="is a file; expected a folder"):
        prepare_dataset("paired", source, out / "thesis.txt")
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_overwriting_spares_a_folder_that_holds_more_than_a_data_set_of_ours(
    tmp_path: Path, paired_source: Maker
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    prepare_dataset("paired", source, out)
    (out / "eval").mkdir()
    (out / "eval" / "model.pt").write_text("a week of training", encoding="utf-8")
    (out / ".notes").touch()

    with pytest.raises(DataError, match=r"out: holds more than a data set of ours: \.notes, eval; move that away"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert (out / "eval" / "model.pt").read_text(encoding="utf-8") == "a week of training"
    assert verify_dataset(out) == 8


@pytest.mark.parametrize("content", ['{"training": []}', "{", "[]", '{"sha256": "none"}'])
def test_overwriting_spares_a_dataset_json_of_another_program(
    tmp_path: Path, paired_source: Maker, content: str
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    out.mkdir()
    (out / "dataset.json").write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=r"dataset\.json: has no sha256 sums, so that it is not ours"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert (out / "dataset.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_folder_has_the_permissions_that_the_umask_allows(tmp_path: Path, paired_source: Maker, mask: int) -> None:
    source = paired_source(3)
    before = os.umask(mask)
    try:
        prepare_dataset("paired", source, tmp_path / "out")
    finally:
        os.umask(before)

    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_overwriting_keeps_the_old_data_set_until_the_new_one_is_right(tmp_path: Path, paired_source: Maker) -> None:
    source, out = paired_source(4), tmp_path / "out"
    prepare_dataset("paired", source, out)
    before = (out / "dataset.json").read_bytes()
    (source / "masks/case00.png").unlink()

    with pytest.raises(DataError, match="has no mask"):
        prepare_dataset("paired", source, out, overwrite=True)
    assert (out / "dataset.json").read_bytes() == before
    assert verify_dataset(out) == 8

    (source / "images/case00.png").unlink()
    prepare_dataset("paired", source, out, overwrite=True)
    assert verify_dataset(out) == 6
    assert not siblings(out)


def test_an_empty_existing_folder_is_used(tmp_path: Path, paired_source: Maker) -> None:
    (tmp_path / "out").mkdir()

    prepare_dataset("paired", paired_source(3), tmp_path / "out")

    assert verify_dataset(tmp_path / "out") == 6


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, paired_source: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checking_module, "_write", full)

    with pytest.raises(StorageError, match=r"cannot write .*out: No space left on device; nothing was changed"):
        prepare_dataset("paired", paired_source(3), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not siblings(tmp_path / "out")


def test_a_failed_exchange_brings_the_old_data_set_back(
    tmp_path: Path, paired_source: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = paired_source(3), tmp_path / "out"
    prepare_dataset("paired", source, out)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))

    with pytest.raises(StorageError, match="Input/output error"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert verify_dataset(out) == 6
    assert folder_module.DATALIST_NAME == "dataset.json"


def test_the_source_must_not_lie_in_the_folder_to_make(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(3)

    for out in (source, source.parent):
        with pytest.raises(DataError, match="the source lies in this folder"):
            prepare_dataset("paired", source, out, overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"images": "move"}, "images is 'move'; expected one of copy, link, reference"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": -2}, "folds is -2"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, paired_source: Maker, arguments: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        prepare_dataset("paired", paired_source(3), tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="no data set is called 'kvasir'; the names are kvasir_seg"):
        prepare_dataset("kvasir", tmp_path, tmp_path / "out")


def test_progress_counts_every_picture(tmp_path: Path, paired_source: Maker) -> None:
    seen: list[tuple[int, int]] = []

    prepare_dataset("paired", paired_source(5), tmp_path / "out", folds=0, progress=lambda *now: seen.append(now))

    assert seen == [(done, 5) for done in range(1, 6)]
    assert Counter("fold" in item for item in datalist(tmp_path / "out")["training"]) == {False: 3}
