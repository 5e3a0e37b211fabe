"""Files that appear whole: what becomes of a save when the folder cannot be synced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from msrf_monai.errors import StorageError
from msrf_monai.files import write_text


def fail_for(monkeypatch: pytest.MonkeyPatch, *, folders: bool) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_folder_that_cannot_be_synced_does_not_fail_a_save_that_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for(monkeypatch, folders=True)

    write_text(tmp_path / "a.txt", "new")

    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"


def test_a_file_that_cannot_be_synced_is_an_error_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    fail_for(monkeypatch, folders=False)

    with pytest.raises(StorageError, match="Invalid argument; nothing was changed"):
        write_text(tmp_path / "a.txt", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
