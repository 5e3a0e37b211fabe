"""Zips that try to leave their folder, to fill the disk or to confuse a file system are refused and leave nothing."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from msrf_monai.bundle import unpack_bundle
from msrf_monai.bundle.unpack import UnpackLimits
from msrf_monai.errors import DataError, StorageError

Write = Callable[[zipfile.ZipFile], object]


def _entry(name: str, content: bytes | str = b"x") -> Write:
    return lambda archive: archive.writestr(_raw(name), content)


def _raw(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name  # as it is: ZipInfo would mend separators and zero bytes
    return info


def _special(kind: int, content: str = "/etc/passwd") -> Write:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("b/link")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, content)

    return write


def _packed(name: str, size: int) -> Write:
    return lambda archive: archive.writestr(name, bytes(size), zipfile.ZIP_DEFLATED)


def _all(*writes: Write) -> Write:
    return lambda archive: [write(archive) for write in writes]


HOSTILE: dict[str, tuple[Write, str]] = {
    "absolute": (_entry("/b/x"), "absolute name"),
    "up": (_entry("../x"), "leads out"),
    "up-inside": (_entry("b/../../x"), "leads out"),
    "dot": (_entry("b/./x"), "leads out"),
    "empty-part": (_entry("b//x"), "leads out"),
    "drive": (_entry("C:/b/x"), "systems read differently"),
    "backslash": (_entry("b\\..\\..\\x"), "systems read differently"),
    "home": (_entry("~/x"), "absolute name"),
    "newline": (_entry("b/a\nb"), "systems read differently"),
    "right-to-left": (_entry("b/\u202ex"), "systems read differently"),
    "stream": (_entry("b/x.txt:hidden"), "systems read differently"),
    "device-name": (_entry("b/NUL.txt"), "some systems cannot hold"),
    "trailing-dot": (_entry("b/x."), "some systems cannot hold"),
    "link": (_special(stat.S_IFLNK), "is a link or a device"),
    "pipe": (_special(stat.S_IFIFO), "is a link or a device"),
    "device": (_special(stat.S_IFCHR), "is a link or a device"),
    "case": (_all(_entry("b/README"), _entry("b/readme")), "differs in case only"),
    "case-of-folders": (_all(_entry("b/Docs/x"), _entry("b/docs/y")), "differing in case"),
    "unicode-forms": (_all(_entry("b/\u00e9"), _entry("b/e\u0301")), "stands there twice"),
    "full-width": (_all(_entry("b/a"), _entry("b/\uff41")), "stands there twice"),
    "file-and-folder": (_all(_entry("b/a"), _entry("b/a/c")), "is a file and a folder"),
    "two-folders": (_all(_entry("b/x"), _entry("c/x")), "must hold one folder"),
    "no-folder": (_entry("x"), "must hold one folder"),
    "empty": (lambda archive: None, "is empty"),
    "long": (_entry("b/" + "x" * 300), "too long or too deep"),
    "deep": (_entry("b/" + "x/" * 20 + "y"), "too long or too deep"),
    "many": (_all(*(_entry(f"b/{number}") for number in range(30))), "holds 30 entries"),
    "large": (_packed("b/x", 3_000_001), "has 3000001 bytes"),
    "large-together": (_all(*(_packed(f"b/{number}", 2_500_000) for number in range(5))), "unpacks to 12500000 bytes"),
    "bomb": (_packed("b/x", 2_000_000), "as a zip bomb does"),
}
LIMITS = UnpackLimits(files=25, total_bytes=10_000_000, file_bytes=3_000_000)


@pytest.mark.parametrize(("write", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_zip_is_refused_and_leaves_nothing(tmp_path: Path, write: Write, problem: str) -> None:
    archive = tmp_path / "in" / "b.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened:
        write(opened)

    with pytest.raises(DataError, match=problem):
        unpack_bundle(archive, tmp_path / "out", limits=LIMITS)

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.zip", "in"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b/x", "1")
        archive.writestr("b/x", "2")

    with pytest.raises(DataError, match="stands there twice"):
        unpack_bundle(tmp_path / "b.zip", tmp_path / "out")


def test_a_zip_that_hides_its_size_is_stopped(tmp_path: Path) -> None:
    path = _good(tmp_path, b"y" * 5000)
    # the directory and the entry then say 10 bytes
    path.write_bytes(path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little")))

    with pytest.raises(DataError, match="is no zip that can be read"):
        unpack_bundle(path, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "nothing"])
def test_damaged_zip_leaves_nothing(tmp_path: Path, damage: str) -> None:
    path = _good(tmp_path, bytes(range(256)) * 20)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[60] ^= 0xFF
    path.write_bytes({"cut": content[:-30], "flipped": content, "nothing": b"nothing"}[damage])

    with pytest.raises(DataError, match="is no zip that can be read"):
        unpack_bundle(path, tmp_path / "out")

    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_missing_zip_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.zip cannot be read"):
        unpack_bundle(tmp_path / "nowhere.zip", tmp_path)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    archive = _good(tmp_path, b"new")
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "x").write_text("old")

    with pytest.raises(DataError, match="is there already"):
        unpack_bundle(archive, tmp_path / "out")

    assert (tmp_path / "out" / "b" / "x").read_text() == "old"


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _good(tmp_path, b"new")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msrf_monai.bundle.unpack._extract", full)

    with pytest.raises(StorageError, match="No space left on device"):
        unpack_bundle(archive, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_plain_zip_is_unpacked_with_its_empty_folders(tmp_path: Path) -> None:
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.mkdir("b")
        opened.mkdir("b/empty")
        opened.writestr("b/a/x.txt", "content")

    folder = unpack_bundle(archive, tmp_path / "out")

    assert folder == tmp_path / "out" / "b"
    assert (folder / "a" / "x.txt").read_text() == "content"
    assert (folder / "empty").is_dir()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]


def _good(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/x", content)
    return path
