"""The manifest: what it says is on the disk, a torn end is dropped, and another model's results are refused."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import MANIFEST, Entry, Header, Ledger, OutputRecord, digest_of_options, read_manifest
from msrf_monai.clinical.line_file import LineFile
from msrf_monai.errors import ConfigError, DataError, StorageError

HEADER = Header("polyps", "0.1.0", "ab" * 32, "cd" * 32, {"threshold": 0.5, "tta": False}, {"torch": "2.13"})
DONE = Entry(
    "image.png",
    "image-0123456789ab",
    "12" * 32,
    "done",
    flags=("empty_mask",),
    outputs=(OutputRecord("mask", "image-0123456789ab/mask.png", "34" * 32, 99),),
    timings={"read": 0.1, "predict": 0.2, "write": 0.3},
    frames=1,
)
FAILED = Entry("file-1", "file-1", "", "failed", "missing", "the file does not exist")


def filled(folder: Path, *entries: Entry) -> Path:
    with Ledger(folder, HEADER) as ledger:
        for entry in entries:
            ledger.append(entry)
    return folder / MANIFEST


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    filled(tmp_path, DONE, FAILED)

    manifest = read_manifest(tmp_path)

    assert manifest.header == HEADER
    assert manifest.entries == (DONE, FAILED)


def test_the_file_is_json_lines_with_the_header_first(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in filled(tmp_path, DONE).read_text().splitlines()]

    assert lines[0]["format"] == "msrf-monai manifest"
    assert lines[1]["outputs"] == [
        {"kind": "mask", "path": "image-0123456789ab/mask.png", "sha256": "34" * 32, "size": 99}
    ]


def test_the_last_line_about_an_input_holds_and_keeps_its_place(tmp_path: Path) -> None:
    filled(tmp_path, FAILED, DONE)
    filled(tmp_path, replace(FAILED, state="done", code="", attempt=2))

    assert [(entry.state, entry.attempt) for entry in read_manifest(tmp_path).entries] == [("done", 2), ("done", 1)]


def test_a_line_cut_anywhere_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = filled(tmp_path, DONE)
    whole = path.read_bytes()
    filled(tmp_path, FAILED)
    longer = path.read_bytes()

    for cut in range(len(whole), len(longer)):
        path.write_bytes(longer[:cut])
        assert read_manifest(tmp_path).entries == (DONE,)
    filled(tmp_path, FAILED)

    assert path.read_bytes() == longer


def test_a_header_cut_short_is_written_anew(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(DataError, match="header is missing"):
        read_manifest(tmp_path)
    filled(tmp_path, DONE)

    assert read_manifest(tmp_path).entries == (DONE,)


@pytest.mark.parametrize("damage", [b"{}", b"[1]", b"nothing", b'{"input": 1}'])
def test_damage_before_the_end_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = filled(tmp_path, DONE)
    path.write_bytes(path.read_bytes() + damage + b"\n")

    with pytest.raises(DataError, match="line 3 is damaged"):
        read_manifest(tmp_path)


def test_other_files_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": "msrf-monai manifest", "version": 9}\n')
    with pytest.raises(DataError, match="version 1"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(filled_line())
    with pytest.raises(DataError, match="no header"):
        read_manifest(tmp_path)


def filled_line() -> str:
    return json.dumps({**vars(FAILED), "flags": [], "outputs": []}) + "\n"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_digest": "ef" * 32}, "model_digest was abab"),
        ({"bundle_version": "0.2.0"}, "bundle_version was 0.1.0"),
        ({"options": {"threshold": 0.7, "tta": False}}, "threshold was 0.5 and is 0.7"),
        ({"options": {"threshold": 0.5}}, "tta was false and is null"),
    ],
)
def test_another_model_or_other_options_are_refused_by_name(tmp_path: Path, change: Any, named: str) -> None:
    path = filled(tmp_path, DONE)
    before = path.read_bytes()

    with pytest.raises(ConfigError, match=named):
        Ledger(tmp_path, replace(HEADER, **change))

    assert path.read_bytes() == before


def test_other_packages_are_noted_once(tmp_path: Path) -> None:
    newer = replace(HEADER, packages={"torch": "2.14"})
    filled(tmp_path, DONE)
    for _ in range(2):
        Ledger(tmp_path, newer).close()

    manifest = read_manifest(tmp_path)

    assert (manifest.header, manifest.later, manifest.entries) == (HEADER, (newer,), (DONE,))


def test_options_have_one_digest_whatever_their_order() -> None:
    assert digest_of_options({"a": 1, "b": [2]}) == digest_of_options({"b": [2], "a": 1})
    assert digest_of_options({"a": 1}) != digest_of_options({"a": 2})


@pytest.mark.parametrize(
    ("flags", "asks"), [((), False), (("rule:CT", "not_written:seg"), False), (("rule:CT", "empty_mask"), True)]
)
def test_flags_that_only_inform_do_not_ask_for_a_look(flags: tuple[str, ...], asks: bool) -> None:
    assert replace(DONE, flags=flags).is_flagged is asks


def test_a_full_disk_leaves_the_lines_before_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    with LineFile(path) as lines:
        lines.append(b"first")
        write = os.pwrite

        def full(descriptor: int, data: bytes, offset: int) -> int:
            if offset > 6:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data[:3], offset)

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match=r"No space left.*lines before stay"):
            lines.append(b"second")
        monkeypatch.undo()

        assert path.read_bytes() == b"first\n"
        lines.append(b"third")

    assert path.read_bytes() == b"first\nthird\n"


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: write(descriptor, data[:2], offset))

    with LineFile(tmp_path / "lines") as lines:
        lines.append(b"abcdefg")

    assert (tmp_path / "lines").read_bytes() == b"abcdefg\n"


def test_a_file_that_may_not_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        LineFile(tmp_path / "missing" / "lines")
