"""Result folders: harmless names that never meet, results that appear whole, one run at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msrf_monai.clinical.ledger import OutputRecord
from msrf_monai.clinical.lock import LOCK, hold
from msrf_monai.clinical.naming import Naming, folder_names, is_safe_name, safe_name
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.sources import SOURCES, SourceList
from msrf_monai.errors import InputError, StorageError
from msrf_monai.files import sha256_of

HOSTILE = [
    "..",
    ".",
    "",
    "../../etc/passwd",
    "/etc/x",
    "a\0b",
    "a\nb",
    "ä" * 300,
    "..\\x",
    "-rf",
    ".hidden",
    "\udcff\udce4",
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_any_text_becomes_a_harmless_name(number: int) -> None:
    name = safe_name(HOSTILE[number])

    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", name)
    assert is_safe_name(name)


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "a\\b", "a b", "a\n", "ä", "a" * 129])
def test_names_that_are_not_harmless_are_told(name: str) -> None:
    assert not is_safe_name(name)


def test_equal_file_names_get_different_folders() -> None:
    names = folder_names([Naming("img", ("a/img.png", "/x/a/img.png")), Naming("img", ("b/img.png", "/x/b/img.png"))])

    assert len(set(names)) == 2
    assert all(name.startswith("img-") for name in names)


def test_a_name_does_not_depend_on_the_other_inputs() -> None:
    one, other = Naming("img", ("a/img.png", "/x/a/img.png")), Naming("img", ("b/img.png", "/x/b/img.png"))

    assert folder_names([one])[0] == folder_names([other, one])[1]


def test_inputs_with_the_same_first_key_are_told_apart_by_the_next() -> None:
    names = folder_names(
        [Naming("img", ("in/img.png", "/x/in/img.png")), Naming("IMG", ("in/img.png", "/y/in/img.png"))]
    )

    assert len({name.casefold() for name in names}) == 2


def test_one_file_twice_is_refused() -> None:
    with pytest.raises(InputError, match="same file"):
        folder_names([Naming("img", ("a", "b"))] * 2)


def test_results_appear_whole_when_the_block_ends(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path)

    with results.publish("image-1") as folder:
        (folder / "mask.png").write_bytes(b"mask")
        assert not (tmp_path / "image-1").exists()

    assert (tmp_path / "image-1" / "mask.png").read_bytes() == b"mask"
    assert [path.name for path in tmp_path.iterdir()] == ["image-1"]


def test_results_that_fail_leave_what_was_there(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path)
    with results.publish("image-1") as folder:
        (folder / "mask.png").write_bytes(b"old")

    def fail() -> None:
        with results.publish("image-1") as folder:
            (folder / "mask.png").write_bytes(b"new")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()

    assert (tmp_path / "image-1" / "mask.png").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["image-1"]


@pytest.mark.parametrize("desk", ["", ".desk-1"])
def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desk: str
) -> None:
    (tmp_path / desk).mkdir(exist_ok=True)
    results = ResultFolder(tmp_path, desk)
    with results.publish("image-1") as folder:
        (folder / "mask.png").write_bytes(b"old")
    rename = Path.rename

    def fail_once(path: Path, target: Path) -> Path:
        if path.name == ".part-image-1":
            raise OSError(errno.EIO, "the disk fails")
        return rename(path, target)

    def replace() -> None:
        with results.publish("image-1") as folder:
            (folder / "mask.png").write_bytes(b"new")

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="the disk fails"):
        replace()

    assert (tmp_path / "image-1" / "mask.png").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"image-1", desk} - {""}
    assert list((tmp_path / desk).glob(".*image-1")) == []


def test_a_result_folder_that_is_removed_is_no_workers_matter(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path / "out")
    results.make()

    with pytest.raises(FileNotFoundError), results.publish("image-1"):
        shutil.rmtree(tmp_path / "out")


def test_new_results_replace_old_ones_as_a_whole(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path)
    for name in ("first.png", "second.png"):
        with results.publish("image-1") as folder:
            (folder / name).write_bytes(b"x")

    assert [path.name for path in tmp_path.rglob("*.png")] == ["second.png"]
    results.discard("image-1")
    assert list(tmp_path.iterdir()) == []
    results.discard("image-1")


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".lock", ""])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(StorageError, match="leads out"), ResultFolder(tmp_path / "out").publish(name):
        pass

    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_link_planted_in_the_result_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    (tmp_path / "out" / "image-1").symlink_to(tmp_path / "elsewhere")
    results = ResultFolder(tmp_path / "out")

    with pytest.raises(StorageError, match="leads out"), results.publish("image-1"):
        pass
    with pytest.raises(StorageError, match="leads out"):
        results.discard("image-1")

    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in (".part-image-1", ".old-image-2", "image-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mask.png").write_bytes(b"x")

    ResultFolder(tmp_path).clean()

    assert [path.name for path in tmp_path.iterdir()] == ["image-3"]


def test_files_count_only_when_they_are_byte_for_byte_the_same(tmp_path: Path) -> None:
    (tmp_path / "image-1").mkdir()
    path = tmp_path / "image-1" / "mask.png"
    path.write_bytes(b"mask")
    record = OutputRecord("mask", "image-1/mask.png", sha256_of(path), 4)
    results = ResultFolder(tmp_path)

    assert results.holds([record])
    path.write_bytes(b"mosk")
    assert not results.holds([record])
    path.write_bytes(b"mas")
    assert not results.holds([record])
    path.unlink()
    assert not results.holds([record])


def test_a_manifest_cannot_vouch_for_files_outside(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "secret"
    path.write_bytes(b"secret")

    assert not ResultFolder(tmp_path / "out").holds([OutputRecord("mask", "../secret", sha256_of(path), 6)])


def test_folders_of_others_are_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")

    with pytest.raises(InputError, match="not empty and holds no results"):
        ResultFolder(tmp_path).check_is_ours()
    with pytest.raises(InputError, match="is no folder"):
        ResultFolder(tmp_path / "thesis.docx").check_is_ours()

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_the_place_of_the_results_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="cannot make"):
        ResultFolder(tmp_path / "file" / "out").make()


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from msrf_monai.clinical.lock import hold\n"
        "with hold(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=rf"another run \(process {other.pid}\)"), hold(tmp_path):
            pass
        other.kill()

    with hold(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match="cannot write"), hold(tmp_path):
        pass

    assert not (tmp_path / "elsewhere").exists()


def test_the_list_of_sources_is_for_its_owner_only_and_is_learnt_again(tmp_path: Path) -> None:
    sources = SourceList(tmp_path)
    for _ in range(2):
        sources.add("image-1", ("/in/image.png",))
    sources.close()
    with (tmp_path / SOURCES).open("a") as file:
        file.write("damaged\n")

    again = SourceList(tmp_path)
    again.close()

    assert again.folders_of("/in/image.png") == {"image-1"}
    assert again.folders_of("/in/other.png") == set()
    assert (tmp_path / SOURCES).stat().st_mode & 0o077 == 0
    assert (tmp_path / SOURCES).read_text().count("image-1") == 1


def test_hashes_of_sources_are_keyed_by_their_own_folder(tmp_path: Path) -> None:
    """Who guesses a path cannot try it without the key, nor find it in the results of another run."""
    names = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        with SourceList(folder, hashed=True) as sources:
            sources.add("image-1", ("/in/MEIER.png",))
            names.append(sources.name_of("/in/MEIER.png"))
        assert (folder / "sources.key").stat().st_mode & 0o077 == 0

    with SourceList(tmp_path / "one", hashed=True) as again:
        assert again.folders_of("/in/MEIER.png") == {"image-1"}
    assert names[0] != names[1]
    assert hashlib.sha256(b"/in/MEIER.png").hexdigest()[:12] not in "".join(names)
