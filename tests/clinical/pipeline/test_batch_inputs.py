"""Finding inputs: by content and not by name, every file once, none of the results, the same parts everywhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from msrf_monai.clinical.inputs import InputOptions, PlannedInput, content_digest, plan_inputs
from msrf_monai.clinical.reading import Limits, open_case
from msrf_monai.errors import InputError
from support.clinical_runs import good_pictures, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series, save_mhd, scan_values


def plan(*inputs: Path | str, **options: object) -> list[PlannedInput]:
    return plan_inputs(inputs, InputOptions(**options))  # type: ignore[arg-type]


def names(planned: list[PlannedInput]) -> list[str]:
    return [Path(each.paths[0]).name for each in planned]


def test_a_file_a_folder_and_a_pattern_give_the_same_input(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "in" / "a.png")

    found = {plan(each)[0].folder for each in (picture, tmp_path / "in", str(tmp_path / "in" / "*.png"))}

    assert len(found) == 1


def test_a_file_named_several_times_is_one_input(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "in" / "a.png")

    assert len(plan(picture, tmp_path / "in", picture)) == 1


def test_folders_are_searched_to_the_bottom_in_the_order_of_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/c/2.png", "a/b.png"):
        save_picture(tmp_path / name)

    assert [os.path.relpath(each.paths[0], tmp_path) for each in plan(tmp_path)] == ["a/b.png", "a/c/2.png", "b/1.png"]


def test_patterns_may_reach_into_folders(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/c/2.png", "b/3.jpg"):
        save_picture(tmp_path / name)

    assert names(plan(str(tmp_path / "**" / "*.png"))) == ["1.png", "2.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "scan[1].png")

    assert names(plan(picture)) == ["scan[1].png"]


def test_results_are_never_inputs(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 1)
    good_pictures(tmp_path / "in" / "results" / "image-1", 2)

    assert names(plan(tmp_path / "in", exclude=tmp_path / "in" / "results")) == ["image0000.png"]


def test_nothing_at_all_is_an_error_and_something_missing_is_an_entry(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no input was found"):
        plan(tmp_path / "empty", str(tmp_path / "*.png"))

    (missing,) = plan(tmp_path / "missing.png")

    assert missing.refusal is not None
    assert missing.refusal.code == "missing"


def test_content_decides_and_the_name_is_shown_for_pictures_only(tmp_path: Path) -> None:
    dataset = as_bytes(image_dataset(pattern()))
    (tmp_path / "DOE_JOHN.png").write_bytes(dataset)
    shutil.copy(save_picture(tmp_path / "photo.png"), tmp_path / "photo.dcm")
    (tmp_path / "DOE_JANE.dcm").write_bytes(b"no DICOM")

    labels = {Path(each.paths[0]).name: (each.label, each.folder) for each in plan(tmp_path)}

    assert labels["photo.png"][0] == "photo.png"
    assert labels["photo.dcm"][0] == "photo.dcm"
    assert labels["DOE_JOHN.png"][0].startswith("dicom-")
    assert labels["DOE_JANE.dcm"][0].startswith("file-")
    assert "DOE" not in str([labels[name][1] for name in ("DOE_JOHN.png", "DOE_JANE.dcm")])


def test_a_dicom_image_keeps_its_folder_when_its_file_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(as_bytes(image_dataset(pattern())))
    before = plan(tmp_path)[0].folder
    (tmp_path / "a").rename(tmp_path / "b")

    assert plan(tmp_path)[0].folder == before


def test_copies_of_a_dicom_image_are_inputs_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(as_bytes(image_dataset(pattern())))

    assert len({each.folder for each in plan(tmp_path)}) == 2


def test_a_series_is_one_input_and_copies_of_its_slices_are_listed(tmp_path: Path) -> None:
    folder = save_dicom_series(tmp_path / "ct", scan_values())
    slices = sorted(folder.iterdir())
    shutil.copy(slices[0], folder / "zz_copy.dcm")

    volume, copy = plan(folder)

    assert volume.frames == len(slices) == 4
    assert copy.skipped is not None
    assert copy.skipped[0] == "duplicate"


def test_a_series_with_a_missing_slice_is_refused_as_a_whole_or_taken_slice_by_slice(tmp_path: Path) -> None:
    folder = save_dicom_series(tmp_path / "ct", scan_values(), heights_mm=(0, 3, 6, 12))

    (refused,) = plan(folder)
    singles = plan(folder, slice_by_slice=True)

    assert refused.refusal is not None
    assert refused.refusal.code == "not_a_volume"
    assert len(refused.paths) == 4
    assert [each.frames for each in singles] == [1] * 4


def test_objects_without_an_image_are_listed_and_not_failed(tmp_path: Path) -> None:
    dataset = image_dataset(pattern())
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    (tmp_path / "report.dcm").write_bytes(as_bytes(dataset))

    (found,) = plan(tmp_path)

    assert found.refusal is None
    assert found.skipped is not None
    assert found.skipped[0] == "not_an_image"


def test_the_voxels_of_a_header_are_no_input_of_their_own(tmp_path: Path) -> None:
    save_mhd(tmp_path / "scan.mhd", scan_values())

    assert names(plan(tmp_path)) == ["scan.mhd"]


def test_what_the_operating_system_leaves_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"x")
    save_picture(tmp_path / "a.png")

    assert [each.skipped[0] if each.skipped else "" for each in plan(tmp_path)] == ["system_file", ""]


def test_links_are_followed_within_the_folder_and_where_the_user_names_them(tmp_path: Path) -> None:
    inside, outside = save_picture(tmp_path / "in" / "a.png"), save_picture(tmp_path / "b.png")
    (tmp_path / "in" / "near.png").symlink_to(inside)
    (tmp_path / "in" / "far.png").symlink_to(outside)

    found = {Path(each.paths[0]).name: each.refusal for each in plan(tmp_path / "in")}
    named = plan(tmp_path / "in" / "far.png")

    assert found["near.png"] is None
    assert found["far.png"] is not None
    assert found["far.png"].code == "link_outside"
    assert named[0].refusal is None


def test_names_outside_unicode_are_inputs_like_any_other(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    shutil.copy(picture, tmp_path / os.fsdecode(b"bild-\xff\xe4.png"))

    assert [each.label for each in plan(tmp_path)] == ["a.png", "bild-_.png"]


def test_parts_are_disjoint_complete_and_do_not_depend_on_the_other_inputs(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 24)
    parts = [{each.folder for each in plan(tmp_path / "in", part=(number, 3))} for number in (1, 2, 3)]

    assert sum(map(len, parts)) == len(set.union(*parts)) == 24
    assert all(parts)
    good_pictures(tmp_path / "in" / "more", 6)
    again = [{each.folder for each in plan(tmp_path / "in", part=(number, 3))} for number in (1, 2, 3)]
    assert all(before <= after for before, after in zip(parts, again, strict=True))


def test_a_part_may_be_empty(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")

    assert sorted(len(plan(tmp_path, part=(number, 9))) for number in range(1, 10)) == [0] * 8 + [1]


def test_digests_are_those_of_cases(tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png")
    (tmp_path / "none").write_bytes(b"")

    assert content_digest([str(picture)], Limits()) == open_case(picture).digest
    assert content_digest([str(tmp_path / "none")], Limits()) == ""
    assert len(content_digest([str(picture)] * 2, Limits())) == 64


@pytest.mark.realdata
def test_every_series_of_the_samples_is_taken_or_refused_as_a_whole(data_root: Path) -> None:
    folders = sorted((data_root / "dicom_samples" / "series").iterdir())

    found = {folder.name: plan(folder) for folder in folders}

    refused = {name for name, planned in found.items() if any(each.refusal for each in planned)}
    assert refused >= {"missing_slice", "nonuniform", "gantry_tilt", "no_ipp_iop", "localizer_in_series"}
    assert {"ok_axial", "oblique", "sagittal", "reversed_instnum", "per_slice_rescale"}.isdisjoint(refused)
    for name in ("ok_axial", "oblique", "sagittal"):
        assert [each.frames for each in found[name]] == [np.size(list((folders[0].parent / name).iterdir()))]
