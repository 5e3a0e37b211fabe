"""The files of a slide in a maker's format are never lost from sight, and never inputs of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.inputs import InputOptions, PlannedInput, plan_inputs
from support.slide_files import stained
from support.vendor_slides import write_mirax, write_vms

PICTURE = stained(128, 192)
MIRAX = ["m.mrxs", "m/Slidedat.ini", "m/Index.dat", "m/Data0000.dat"]
VMS = ["v.vms", "part_0_0.jpg", "map.jpg"]


def planned(folder: Path) -> dict[str, PlannedInput]:
    """What becomes of each file, by its path."""
    plan = plan_inputs([folder], InputOptions())
    return {Path(each.paths[0]).relative_to(folder).as_posix(): each for each in plan}


def code(found: PlannedInput) -> str:
    """A word for what becomes of an input."""
    if found.skipped:
        return found.skipped[0]
    return found.refusal.code.value if found.refusal else "predicted"


def test_every_file_of_a_slide_has_a_line(tmp_path: Path) -> None:
    write_vms(tmp_path / "v.vms", [[PICTURE]])
    write_mirax(tmp_path / "m.mrxs", PICTURE)

    found = {name: code(each) for name, each in planned(tmp_path).items()}

    parts = dict.fromkeys([*VMS[1:], *MIRAX[1:]], "part_of_another")
    assert found == {"v.vms": "predicted", "m.mrxs": "predicted", **parts}


def test_a_picture_that_a_slide_takes_for_its_own_has_a_line(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "good.png")
    write_vms(tmp_path / "v.vms", [[PICTURE]], ImageFile="good.png")

    found = planned(tmp_path)

    assert code(found["good.png"]) == "part_of_another"
    assert "another file" in (found["good.png"].skipped or ("", ""))[1]


@pytest.mark.parametrize("changes", [{"MapFile": "../x"}, {"NoJpegColumns": "40000"}], ids=str)
def test_the_pictures_of_a_refused_slide_are_no_inputs(tmp_path: Path, changes: dict[str, str]) -> None:
    write_vms(tmp_path / "v.vms", [[PICTURE]], **changes)
    (tmp_path / "map.jpg").unlink()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "own.png")

    found = {name: code(each) for name, each in planned(tmp_path).items()}

    assert found.pop("v.vms") in ("bad_header", "too_many_frames")
    assert found == {"part_0_0.jpg": "part_of_another", "own.png": "predicted"}


def test_what_lies_in_the_folder_of_a_refused_slide_is_no_input(tmp_path: Path) -> None:
    write_mirax(tmp_path / "m.mrxs", PICTURE, settings={"FILE_COUNT = 1": "FILE_COUNT = 9999"})
    Image.fromarray(PICTURE).save(tmp_path / "m" / "preview.png")

    found = {name: code(each) for name, each in planned(tmp_path).items()}

    parts = dict.fromkeys([*MIRAX[1:], "m/preview.png"], "part_of_another")
    assert found == {"m.mrxs": "too_many_frames", **parts}
