"""Hostile and broken slides in makers' formats are refused before OpenSlide opens a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest

from msrf_monai.clinical.reading import RefusedInput
from msrf_monai.clinical.slides import SlideLimits, open_slide
from support.slide_files import halved, read_all, stained, write_tiff
from support.vendor_slides import write_mirax, write_ndpi, write_vms

PICTURE = stained(128, 192)


def refusal(path: Path, limits: SlideLimits | None = None) -> str:
    """Return the code that it is refused with."""
    with pytest.raises(RefusedInput) as caught:
        read_all(path, limits)
    assert str(path.parent) not in str(caught.value)
    assert "SECRET" not in str(caught.value)
    return caught.value.code.value


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when OpenSlide gets anything to see."""

    def never(*arguments: object) -> None:
        raise AssertionError("OpenSlide was asked")

    monkeypatch.setattr(openslide.OpenSlide, "detect_format", never)
    monkeypatch.setattr(openslide.lowlevel, "open", never)


SETTINGS = {
    "a file elsewhere": ("Data0000.dat", "../../SECRET.dat", "bad_header"),
    "an absolute file": ("Data0000.dat", "/etc/passwd", "bad_header"),
    "an index elsewhere": ("Index.dat", "..\\SECRET", "bad_header"),
    "the folder itself": ("Index.dat", "..", "bad_header"),
    "no file": ("FILE_0 = Data0000.dat", "FILE_0 = Data0001.dat", "missing"),
    "a second file elsewhere": ("FILE_0 = ", "FILE_0 = ../x\nFILE_0 = ", "bad_header"),
    "many pictures": ("IMAGENUMBER_X = 2", "IMAGENUMBER_X = 99999999", "too_many_frames"),
    "many pictures in all": ("IMAGENUMBER_Y = 2", "IMAGENUMBER_Y = 3999999", "too_many_frames"),
    "no number of pictures": ("IMAGENUMBER_X = 2", "IMAGENUMBER_X = many", "bad_header"),
    "pictures below none": ("IMAGENUMBER_X = 2", "IMAGENUMBER_X = -2", "bad_header"),
    "huge tiles": ("DIGITIZER_WIDTH = 96", "DIGITIZER_WIDTH = 500000", "too_many_pixels"),
    "many levels": ("HIER_0_COUNT = 2", "HIER_0_COUNT = 2000000000", "too_many_frames"),
    "many files": ("FILE_COUNT = 1", "FILE_COUNT = 2000000000", "too_many_frames"),
    "an overlap that is no number": ("OVERLAP_Y = 0.0", "OVERLAP_Y = nan", "bad_header"),
    "an endless overlap": ("OVERLAP_X = 0.0", "OVERLAP_X = -1e400", "bad_header"),
    "an overlap of the whole width": ("OVERLAP_X = 0.0", "OVERLAP_X = 96.0", "bad_header"),
    "an overlap beyond the height": ("OVERLAP_Y = 0.0", "OVERLAP_Y = -0x1p8", "bad_header"),
    "many doublings": ("IMAGE_CONCAT_FACTOR = 1", "IMAGE_CONCAT_FACTOR = 40", "bad_header"),
}


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_lead_out_or_claim_too_much_are_refused(tmp_path: Path, case: str) -> None:
    before, after, code = SETTINGS[case]
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={before: after})

    assert refusal(tmp_path / "m.mrxs") == code


CONTROLS = ("\0", "\t", "\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\x85", "\u2028", "\u2029")


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize("behind", ["/../../elsewhere.dat", "x", "\r"], ids=ascii)
def test_names_with_control_characters_are_refused(tmp_path: Path, control: str, behind: str) -> None:
    # the file that the name begins with is there: whoever takes the character for the end of a line finds nothing
    written = f"{control}{behind}"
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={"FILE_0 = Data0000.dat": f"FILE_0 = Data0000.dat{written}"})
    write_vms(tmp_path / "v.vms", [[PICTURE]], MapFile=f"map.jpg{written}")
    write_vms(tmp_path / "o.vms", [[PICTURE]], OptimisationFile=f"map.jpg{written}")

    assert refusal(tmp_path / "m.mrxs") == refusal(tmp_path / "v.vms") == refusal(tmp_path / "o.vms") == "bad_header"


def test_the_file_that_is_looked_at_is_the_one_that_openslide_opens(tmp_path: Path) -> None:
    # a blank behind a name is part of it: the file of that name is a link to one outside
    (tmp_path / "in").mkdir()
    write_mirax(tmp_path / "in" / "m.mrxs", PICTURE, settings={"FILE_0 = Data0000.dat": "FILE_0 = Data0000.dat "})
    data = tmp_path / "in" / "m" / "Data0000.dat"
    (tmp_path / "elsewhere").write_bytes(data.read_bytes())
    data.with_name("Data0000.dat ").symlink_to(tmp_path / "elsewhere")
    assert openslide.OpenSlide(tmp_path / "in" / "m.mrxs").dimensions == (192, 128)

    assert refusal(tmp_path / "in" / "m.mrxs") == "link_outside"


def test_settings_from_windows_and_blanks_behind_numbers_are_read(tmp_path: Path) -> None:
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={"IMAGENUMBER_X = 2": "  IMAGENUMBER_X\t =  2 \t"})
    settings = tmp_path / "m" / "Slidedat.ini"
    settings.write_bytes(settings.read_bytes().replace(b"\n", b"\r\n"))

    with openslide.OpenSlide(tmp_path / "m.mrxs") as judge, open_slide(tmp_path / "m.mrxs") as slide:
        level = slide.info.levels[0]
        assert (level.columns, level.rows) == judge.dimensions
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 128, 192), PICTURE)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("part", ["m", "m/Slidedat.ini", "m/Index.dat", "m/Data0000.dat"])
def test_links_out_of_the_folder_of_a_slide_are_refused(tmp_path: Path, part: str) -> None:
    (tmp_path / "in").mkdir()
    write_mirax(tmp_path / "in" / "m.mrxs", PICTURE)
    (tmp_path / "in" / part).rename(tmp_path / "elsewhere")
    (tmp_path / "in" / part).symlink_to(tmp_path / "elsewhere")

    assert refusal(tmp_path / "in" / "m.mrxs") == "link_outside"


@pytest.mark.usefixtures("unopened")
def test_a_photograph_of_the_glass_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tiff(tmp_path / "in" / "t.tif", PICTURE, levels=1, software="MedScan", description="a=b")
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "in" / "t.Full").symlink_to(tmp_path / "elsewhere")

    assert refusal(tmp_path / "in" / "t.tif") == "link_outside"


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("part", ["Slidedat.ini", "Index.dat", "Data0000.dat"])
def test_pipes_among_the_files_of_a_slide_are_refused(tmp_path: Path, part: str) -> None:
    write_mirax(tmp_path / "m.mrxs", PICTURE)
    (tmp_path / "m" / part).unlink()
    os.mkfifo(tmp_path / "m" / part)

    assert refusal(tmp_path / "m.mrxs") == "not_regular_file"


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ImageFile": "../SECRET.jpg"}, "bad_header"),
        ({"ImageFile(7,7)": "/etc/passwd"}, "bad_header"),
        ({"MapFile": ".."}, "bad_header"),
        ({"MapFile": "none.jpg"}, "missing"),
        ({"NoJpegColumns": "40000"}, "too_many_frames"),
        ({"NoJpegColumns": "500", "NoJpegRows": "500"}, "bad_header"),
    ],
    ids=str,
)
def test_hamamatsu_settings_that_lead_out_or_claim_too_much_are_refused(
    tmp_path: Path, changes: dict[str, str], code: str
) -> None:
    write_vms(tmp_path / "v.vms", [[PICTURE]], **changes)

    assert refusal(tmp_path / "v.vms") == code


@pytest.fixture
def _alarm() -> Iterator[None]:
    """End a test that takes 20 s of processor time; what it does takes less than one."""

    def stop(*_: object) -> None:
        raise TimeoutError("the settings are not read in time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, 20)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("_alarm")
@pytest.mark.parametrize("line", ["{}x", "x{}x", "x{}=1", "x={}1{}1"], ids=["first", "within", "key", "value"])
def test_long_runs_of_blanks_in_settings_are_read_in_time(tmp_path: Path, line: str) -> None:
    blanks = " " * ((1 << 20) // 2 - 2000)
    line = line.format(blanks, blanks)
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={"INDEXFILE = Index.dat": f"{line}\nINDEXFILE = ../x"})
    write_vms(tmp_path / "v.vms", [[PICTURE]], **{f"{line}\nMapFile": "../x"})

    assert refusal(tmp_path / "m.mrxs") == refusal(tmp_path / "v.vms") == "bad_header"


def test_settings_of_absurd_length_are_refused(tmp_path: Path) -> None:
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={"SECRET": "x" * 2_000_000})
    write_vms(tmp_path / "v.vms", [[PICTURE]], Comment="x" * 2_000_000)

    assert refusal(tmp_path / "m.mrxs") == "too_large"
    assert refusal(tmp_path / "v.vms") == "bad_header"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"file_bytes": 1000}, "too_large"),
        ({"levels": 1}, "too_many_frames"),
        ({"level_pixels": 1000}, "too_many_pixels"),
        ({"tile_pixels": 500}, "too_many_pixels"),
    ],
    ids=str,
)
def test_limits_hold_for_makers_slides_too(tmp_path: Path, limits: dict[str, int], code: str) -> None:
    write_ndpi(tmp_path / "a.ndpi", [PICTURE, halved(PICTURE)], blocks=0)

    assert refusal(tmp_path / "a.ndpi", SlideLimits(**limits)) == code


def test_a_makers_slide_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ndpi"
    write_ndpi(path, [PICTURE, halved(PICTURE)])
    data = path.read_bytes()

    # a TIFF whose directories are gone can be told only as a TIFF
    path.write_bytes(data[: len(data) // 3])
    assert refusal(path) in ("truncated", "bad_header", "unsupported")
    path.write_bytes(data[:8] + bytes(400) + data[408:])
    assert refusal(path) in ("bad_header", "decode_failed")


@pytest.mark.parametrize("part", ["Index.dat", "Data0000.dat"])
def test_a_mirax_slide_of_which_a_file_is_damaged_is_refused(tmp_path: Path, part: str) -> None:
    write_mirax(tmp_path / "m.mrxs", PICTURE)
    file = tmp_path / "m" / part
    file.write_bytes(file.read_bytes()[:60])

    assert refusal(tmp_path / "m.mrxs") in ("bad_header", "decode_failed")


def test_what_only_looks_like_a_makers_slide_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    (tmp_path / "v.vms").write_text("[Virtual Microscope Specimen]\n")
    (tmp_path / "u.vms").write_text("[Virtual Microscope Specimen] SECRET\nx")

    assert {refusal(path) for path in tmp_path.iterdir()} <= {"bad_header", "unsupported"}


def test_random_damage_of_makers_slides_is_refused_or_read(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    write_ndpi(tmp_path / "a.ndpi", [PICTURE, halved(PICTURE)])
    write_mirax(tmp_path / "m.mrxs", PICTURE)
    parts = {"a.ndpi": "a.ndpi", "m/Index.dat": "m.mrxs", "m/Slidedat.ini": "m.mrxs", "m/Data0000.dat": "m.mrxs"}
    originals = {part: (tmp_path / part).read_bytes() for part in parts}
    codes = set()

    for turn in range(160):
        part = list(parts)[turn % 4]
        data = bytearray(originals[part])
        # the directories of an NDPI file lie at its end
        first = max(0, len(data) - 700) if part == "a.ndpi" and turn % 8 else 0
        for place in random.integers(first, len(data), size=2):
            data[place] = random.integers(0, 256)
        (tmp_path / part).write_bytes(data)
        try:
            read_all(tmp_path / parts[part], SlideLimits(level_pixels=1 << 20))
        except RefusedInput as refused:
            codes.add(refused.code.value)
        (tmp_path / part).write_bytes(originals[part])

    assert {"bad_header", "decode_failed"} <= codes
