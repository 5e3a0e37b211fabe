"""Slides in makers' own formats: what a file is, by its content, and which further files belong to it.

Nothing of another library is asked here: whether OpenSlide is installed or not, a file is told to be the same, and
every file that OpenSlide would open by a name out of another file has been looked at before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import check_inside, read_head, read_regular
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.tiff_structure import is_tiff, read_directories

__all__ = ["MakersSlide", "claimed_files", "makers_slide", "may_be_makers"]

_DESCRIPTION, _SOFTWARE, _XMP, _NDPI = 270, 305, 700, 65420
_VMS, _VMU = b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]"
_SQLITE, _CZI = b"SQLite format 3\0", b"ZISRAWFILE"
_SETTINGS = "Slidedat.ini"
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?[ \t]*", re.ASCII)
"""Decimals as makers write them; GLib takes ``nan``, ``inf`` and hexadecimals too."""
_SETTINGS_BYTES = 1 << 20
"""What OpenSlide reads of a text file at most."""
_MOST_DOUBLINGS = 30
_BLANKS = " \t\f\r"
"""What GLib takes for blanks within a line."""
_NO_NAME = re.compile(r"[/\\:\x00-\x1f\x7f-\x9f\u2028\u2029]")
_VMS_FILES = ("ImageFile", "MapFile", "MacroImage")


@dataclass(frozen=True)
class MakersSlide:
    """A slide that OpenSlide reads."""

    vendor: str
    """What OpenSlide calls it, such as ``"hamamatsu"``."""
    companions: tuple[Path, ...] = ()
    """Further files of the slide; each is looked at when it is opened."""


def may_be_makers(path: Path, head: bytes) -> bool:
    """Tell from a file's name and first bytes whether it is worth asking ``makers_slide``.

    Args:
        path: the file.
        head: its first 512 bytes.
    """
    return is_tiff(head) or path.suffix == ".mrxs" or _text_mark(head) is not None or head.startswith((_SQLITE, _CZI))


def makers_slide(file: SlideFile, limits: SlideLimits) -> MakersSlide | None:
    """Tell whether a file is a slide in a maker's format.

    Args:
        file: an open file.
        limits: bounds; ``files``, ``levels``, ``tiles`` and ``tile_pixels`` hold for what a settings file claims.

    Returns:
        What it is; None for everything else, also for SVS, other tiled TIFF and DICOM, which are read without
        OpenSlide.

    Raises:
        RefusedInput: when the files beside it are missing, or its settings claim too much or lead out of its folder.
    """
    if is_tiff(file.head):
        return _in_tiff(file, limits)
    if file.path.suffix == ".mrxs":
        return _mirax(file.path, limits)
    if _text_mark(file.head):
        return _hamamatsu_text(file, limits)
    if file.head.startswith(_CZI):
        return MakersSlide("zeiss")
    if file.head.startswith(_SQLITE) and b"DataManagerSQLiteConfigXPO" in file.read(0, min(file.size, 1 << 16)):
        return MakersSlide("sakura")
    return None


def claimed_files(path: Path, head: bytes) -> tuple[Path, ...]:
    """Return the files beside a slide that has been refused, as far as they can be told: they are no inputs themselves.

    Args:
        path: the file by which the slide is opened.
        head: its first 512 bytes.
    """
    folder = path.with_suffix("")
    try:
        if path.suffix == ".mrxs":
            check_inside(folder, path.parent)
            return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()
        if _text_mark(head):
            names = _vms_names(list(_values(read_head(path, SlideLimits().of_file, _SETTINGS_BYTES))))
            return tuple(path.parent / name for name in names if _is_plain(name))
    except (RefusedInput, OSError):
        return ()
    return ()


def _in_tiff(file: SlideFile, limits: SlideLimits) -> MakersSlide | None:
    if _is_ndpi(file):
        return MakersSlide("hamamatsu")
    try:
        first = read_directories(file, limits)[0]
        if "http://www.leica-microsystems.com/scn/" in first.text(_DESCRIPTION):
            return MakersSlide("leica")
        if "<iScan" in first.text(_XMP):
            return MakersSlide("ventana")
        software = first.text(_SOFTWARE, 64)
    except RefusedInput:
        return None  # who reads it as TIFF says what is wrong with it
    if software.startswith("MedScan"):
        # OpenSlide looks for a photograph of the glass under this name
        (photograph,) = _beside(file.path.parent, [file.path.with_suffix(".Full").name], limits)
        return MakersSlide("trestle", (photograph,) if photograph.exists() else ())
    return None


def _is_ndpi(file: SlideFile) -> bool:
    """Look for Hamamatsu's own tag: these files are TIFF but for places of 64 bits, so that they may be larger."""
    if file.head[:4] != b"II*\0" or file.size < 16:
        return False
    place = int.from_bytes(file.read(4, 8), "little")
    if place + 2 > file.size:
        return False
    number = int.from_bytes(file.read(place, 2), "little")
    if place + 2 + 12 * number > file.size:
        return False
    entries = file.read(place + 2, 12 * number)
    return any(int.from_bytes(entries[start : start + 2], "little") == _NDPI for start in range(0, len(entries), 12))


def _text_mark(head: bytes) -> bytes | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((mark for mark in (_VMS, _VMU) if text.startswith(mark)), None)


def _mirax(path: Path, limits: SlideLimits) -> MakersSlide:
    folder = path.with_suffix("")
    check_inside(folder, path.parent)
    settings = folder / _SETTINGS
    if not settings.exists():
        raise RefusedInput(
            RefusalCode.MISSING,
            "a .mrxs file is only the first of a MIRAX slide's files, and those of the folder of the same name are "
            "missing; copy the folder beside it",
        )
    check_inside(settings, folder)
    values = list(_values(read_regular(settings, Limits(file_bytes=_SETTINGS_BYTES))))
    bounds = {"HIER_COUNT": 1024, "NONHIER_COUNT": 1024, "FILE_COUNT": limits.files, "HIER_0_COUNT": limits.levels}
    for key, most in bounds.items():
        _bounded(values, key, most)
    across, down = (_bounded(values, f"IMAGENUMBER_{axis}", limits.tiles) for axis in "XY")
    if across * down > limits.tiles:
        raise RefusedInput(
            RefusalCode.TOO_MANY_FRAMES,
            f"{across} x {down} pictures are more than the limit of {limits.tiles}; raise tiles if that is meant",
        )
    _bounded(values, "CameraImageDivisionsPerSide", limits.tiles)
    width, height = (_bounded(values, f"DIGITIZER_{side}", limits.tile_pixels) for side in ("WIDTH", "HEIGHT"))
    _check_overlaps(values)
    limits.check_level(1, 1, max(1, height), max(1, width))
    doublings = sum(_whole(value, key) for key, value in values if key == "IMAGE_CONCAT_FACTOR")
    if doublings > _MOST_DOUBLINGS:
        raise _bad(f"its levels become smaller {doublings} times")
    names = [value for key, value in values if key == "INDEXFILE" or re.fullmatch(r"FILE_\d+", key)]
    return MakersSlide("mirax", (settings, *_beside(folder, names, limits)))


def _check_overlaps(values: Iterable[tuple[str, str]]) -> None:
    """Refuse pictures that overlap by all they have, or by no number: OpenSlide would never come to an end."""
    for axis, side in (("X", "WIDTH"), ("Y", "HEIGHT")):
        smallest = min((_whole(value, key) for key, value in values if key == f"DIGITIZER_{side}"), default=0)
        for key, value in values:
            if key == f"OVERLAP_{axis}" and not (_NUMBER.fullmatch(value) and abs(float(value)) < max(1, smallest)):
                raise _bad(f"its {key} is no number below the {smallest} pixels of a picture")


def _hamamatsu_text(file: SlideFile, limits: SlideLimits) -> MakersSlide:
    if file.size > _SETTINGS_BYTES:
        raise _bad(f"its settings have {file.size} bytes")
    values = list(_values(file.read(0, file.size)))
    across, down = (_bounded(values, f"NoJpeg{side}", limits.files) for side in ("Columns", "Rows"))
    if across * down > limits.files:
        raise _bad(f"it claims {across} x {down} files, and the limit is {limits.files}")
    folder = file.path.parent
    needed = {value for key, value in values if key.startswith(_VMS_FILES)}
    paths = _beside(folder, _vms_names(values), limits)
    # OpenSlide can do without its list of places
    return MakersSlide("hamamatsu", tuple(path for path in paths if path.name in needed or path.exists()))


def _vms_names(values: Iterable[tuple[str, str]]) -> list[str]:
    return [value for key, value in values if (key.startswith(_VMS_FILES) or key == "OptimisationFile") and value]


def _values(text: bytes) -> Iterator[tuple[str, str]]:
    """Yield every key and value of a settings file, whatever section it is in: if one is given twice, both count.

    Lines end and blanks are left out as GLib has it, which reads the file for OpenSlide: a value keeps what follows it.
    """
    for line in text.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n"):
        key, equals, value = line.removesuffix("\r").partition("=")
        key = key.strip(_BLANKS)
        if equals and not key.startswith(("#", "[")):
            yield key, value.lstrip(_BLANKS)


def _bounded(values: Iterable[tuple[str, str]], key: str, most: int) -> int:
    """Return the largest number that a key has anywhere; 0 where it has none."""
    largest = max((_whole(value, key) for name, value in values if name == key), default=0)
    if largest > most:
        raise RefusedInput(
            RefusalCode.TOO_MANY_PIXELS if key.startswith("DIGITIZER") else RefusalCode.TOO_MANY_FRAMES,
            f"the slide's settings say {key} = {largest}, and the limit is {most}; raise it if that is meant",
        )
    return largest


def _whole(value: str, key: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}[ \t]*", value):
        raise _bad(f"its {key} is no whole number")
    number = int(value)
    if number < 0:
        raise _bad(f"its {key} is below 0")
    return number


def _beside(folder: Path, names: list[str], limits: SlideLimits) -> list[Path]:
    """Return the files of a folder by their names; refuses what is no plain name, and links that lead out."""
    plain = list(dict.fromkeys(names))
    if len(plain) > limits.files:
        raise _bad(f"it has {len(plain)} files, and the limit is {limits.files}")
    if not all(map(_is_plain, plain)):
        raise _bad("its settings name a file that does not lie in its own folder, or a name with control characters")
    paths = [folder / name for name in plain]
    for path in paths:
        check_inside(path, folder)
    return paths


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not _NO_NAME.search(name)


def _bad(what: str) -> RefusedInput:
    return RefusedInput(
        RefusalCode.BAD_HEADER, f"the slide's settings cannot be right: {what}; copy or export the slide again"
    )
