"""The inbox: whole objects or none, private, inside its folder, and nothing that came late is removed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.errors import InputError, PacsError, StorageError


def everything(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def age(folder: Path, seconds: float) -> None:
    changed = folder.stat().st_mtime - seconds
    os.utime(folder, (changed, changed))


def fail_from(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int = errno.ENOSPC) -> None:
    """Let the system refuse a call from a certain one on."""
    calls = iter(range(1, 1 << 30))
    function = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= number:
            raise OSError(code, os.strerror(code))
        return function(*arguments, **options)

    monkeypatch.setattr(os, name, call)


def test_an_object_is_stored_whole_and_for_this_user_alone(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "a" / "inbox")

    path = inbox.store(iter([b"ab", b"", b"cd"]), study="1.2", instance="1.2.3")

    assert path.read_bytes() == b"abcd"
    assert everything(tmp_path) == [path]
    study, instance = (hashlib.sha256(text).hexdigest()[:12] for text in (b"3:1.2", b"5:1.2.3"))
    assert path == tmp_path / "a" / "inbox" / study / f"{instance}.dcm"
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "a" / "inbox", path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]


@pytest.mark.parametrize(
    "uid",
    ["../../../../escaped", "/etc/escaped", "a/b/escaped", "..", "esc\0aped", "x" * 5000, "é"],
    ids=["up", "absolute", "folders", "dots", "zero-byte", "long", "not-ascii"],
)
def test_no_uid_leads_out_of_the_inbox(uid: str, tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "a" / "b" / "inbox")

    paths = [
        inbox.store(b"1", study=uid, instance="1"),
        inbox.store(b"2", study="1", instance=uid),
        inbox.store(b"3", study=uid, instance=uid),
    ]

    assert everything(tmp_path) == sorted(paths)
    assert all(path.resolve().parents[1] == (tmp_path / "a" / "b" / "inbox").resolve() for path in paths)


@pytest.mark.parametrize("uids", [("", "1"), ("1", ""), (" \0", "1")], ids=["no-study", "no-instance", "padding"])
def test_an_object_without_uids_has_no_place(uids: tuple[str, str], tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)

    with pytest.raises(InputError, match="no place"):
        inbox.store(b"", study=uids[0], instance=uids[1])
    assert not everything(tmp_path)


def test_the_same_object_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)

    paths = {inbox.store(b"old", study="1", instance="2"), inbox.store(b"new", study="1 ", instance="2\0")}

    (path,) = paths
    assert path.read_bytes() == b"new"


def test_data_and_names_are_synced_before_store_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path / "inbox")
    calls = []
    fsync, replace = os.fsync, Path.replace

    def logging_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def logging_replace(self: Path, target: Path) -> Path:
        calls.append(("replace", Path(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", logging_fsync)
    monkeypatch.setattr(Path, "replace", logging_replace)
    path = inbox.store(b"data", study="1", instance="2")

    placed = calls.index(("replace", path))
    assert [name for name, _ in calls[:placed]] == ["fsync"]
    assert calls[placed - 1][1].name.startswith(f".{path.name}.")
    assert {("fsync", path.parent), ("fsync", tmp_path / "inbox")} <= set(calls[placed:])


@pytest.mark.parametrize("call", [1, 3], ids=["of-the-data", "of-the-folder"])
@pytest.mark.parametrize("before", [b"", b"old"], ids=["new", "known"])
def test_a_full_disk_leaves_nothing_half_written(
    call: int, before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(tmp_path)
    if before:
        inbox.store(before, study="1", instance="2")
    fail_from(monkeypatch, "fsync", call)

    with pytest.raises(StorageError, match="No space left"):
        inbox.store(b"whole", study="1", instance="2")

    # a name that could not be synced may or may not outlive a power cut, but what it names is whole
    contents = [path.read_bytes() for path in everything(tmp_path)]
    assert contents == ([before] if call == 1 and before else [b"whole"] if call == 3 else [])


def test_a_drive_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path)
    fail_from(monkeypatch, "fsync", 2, errno.EINVAL)

    assert inbox.store(b"data", study="1", instance="2").read_bytes() == b"data"


def test_a_source_that_breaks_off_raises_its_own_error_and_leaves_nothing(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise PacsError("the peer broke off")

    with pytest.raises(PacsError, match="broke off"):
        inbox.store(pieces(), study="1", instance="2")
    assert not everything(tmp_path)


def test_an_inbox_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot write"):
        Inbox(tmp_path / "file" / "inbox")


def test_studies_come_in_the_order_in_which_they_fell_quiet(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    folders = [inbox.store(b"", study=str(study), instance="1").parent for study in range(4)]
    for folder, seconds in zip(folders, (500, 5000, 2000, -5000), strict=True):
        age(folder, seconds)
    (tmp_path / "empty").mkdir()

    assert inbox.studies() == [folders[1], folders[2], folders[0], folders[3]]
    # a time in the future is that of a clock which was set back
    assert inbox.quiet(1000) == [folders[1], folders[2], folders[3]]
    assert inbox.quiet(10_000) == []

    inbox.store(b"", study="1", instance="2")
    assert inbox.quiet(1000) == [folders[2], folders[3]]


def test_only_what_is_done_is_removed(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    done, again = (inbox.store(b"first", study="1", instance=str(each)) for each in range(2))
    study = done.parent
    listed = inbox.files(study)
    late = inbox.store(b"late", study="1", instance="3")
    inbox.store(b"other", study="1", instance="1")

    inbox.remove(study, listed)

    assert sorted(listed) == sorted([done, again])
    assert everything(tmp_path) == sorted([again, late])
    inbox.remove(study, inbox.files(study))
    assert list(tmp_path.iterdir()) == []


def test_removing_what_has_gone_is_no_error(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    path = inbox.store(b"", study="1", instance="1")

    for _ in range(2):
        inbox.remove(path.parent, [path])

    assert inbox.studies() == []


def test_nothing_outside_the_inbox_is_removed(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    path = inbox.store(b"", study="1", instance="1")
    other = tmp_path / "other.dcm"
    other.write_bytes(b"")

    for study, files in ((path.parent, [other]), (tmp_path, [other]), (path.parent, [path.parent / ".."])):
        with pytest.raises(InputError, match="is not in"):
            inbox.remove(study, files)
    assert everything(tmp_path) == sorted([path, other])


def test_cleaning_removes_what_a_killed_process_had_begun(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    path = inbox.store(b"whole", study="1", instance="1")
    (path.parent / f".{path.name}.abc.part").write_bytes(b"ha")
    (tmp_path / "0123456789ab").mkdir()
    (tmp_path / "0123456789ab" / ".x.dcm.abc.part").write_bytes(b"l")

    assert inbox.studies() == [path.parent]
    inbox.clean()

    assert everything(tmp_path) == [path]
    assert list(tmp_path.iterdir()) == [path.parent]


def test_storing_and_removing_at_once_loses_nothing(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    finished = threading.Event()
    errors: list[BaseException] = []
    removed: list[bytes] = []

    def store(sender: int) -> None:
        try:
            for number in range(60):
                inbox.store(f"{sender}-{number}".encode(), study="1", instance=f"{sender}.{number}")
        except BaseException as error:
            errors.append(error)

    def consume() -> None:
        while True:
            was_finished = finished.is_set()
            for study in inbox.studies():
                files = inbox.files(study)
                removed.extend(path.read_bytes() for path in files)
                inbox.remove(study, files)
            if was_finished:
                return

    senders = [threading.Thread(target=store, args=(each,)) for each in range(3)]
    consumer = threading.Thread(target=consume)
    for thread in (*senders, consumer):
        thread.start()
    for thread in senders:
        thread.join()
    finished.set()
    consumer.join()

    assert not errors
    assert sorted(removed) == sorted(f"{sender}-{number}".encode() for sender in range(3) for number in range(60))
    assert everything(tmp_path) == []
