"""Series as volumes: the samples' truth, highdicom as a cross-check, and what mixed folders become."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from msrf_monai.clinical.reading import Limits, Opened, RefusedInput, open_folder, open_series
from support.dicom_files import ROOT, as_bytes, image_dataset, pattern

# folder -> slices of each volume, single images, reason of a refusal
TRUTH: dict[str, tuple[list[int], int, str]] = {
    "dup_position": ([], 0, "two slices lie at the same place"),
    "dup_sop_uid": ([6], 0, ""),
    "gantry_tilt": ([], 0, "a tilted gantry"),
    "localizer_in_series": ([6], 0, "a localizer lies among the slices"),
    "missing_slice": ([], 0, "a slice is missing"),
    "mixed_matrix": ([6], 1, ""),
    "multi_echo_4d": ([6, 6], 0, ""),
    "no_ipp_iop": ([], 0, "do not say where they lie"),
    "nonuniform": ([], 0, "distances between slices run from 3.000 to 6.000 mm"),
    "oblique": ([6], 0, ""),
    "ok_axial": ([6], 0, ""),
    "per_slice_rescale": ([6], 0, ""),
    "reversed_instnum": ([6], 0, ""),
    "sagittal": ([6], 0, ""),
    "two_series": ([6, 6], 0, ""),
}
CLEAN = [name for name, (volumes, images, reason) in TRUTH.items() if len(volumes) == 1 and not images and not reason]


def summary(opened: Opened) -> tuple[list[int], int, str]:
    volumes = [case.info.frames for case in opened.cases if case.info.kind == "dicom-volume"]
    images = sum(case.info.kind == "dicom" for case in opened.cases)
    return volumes, images, "; ".join(entry.refusal.sentence for entry in opened.refused)


def slices(
    folder: Path, count: int = 4, change: Callable[[int, Any], None] | None = None, series: str = "2"
) -> list[Path]:
    """Write axial CT slices 2.5 mm apart; ``change`` edits slice ``index`` before it is written."""
    paths = []
    for index in range(count):
        dataset = image_dataset(pattern() // (index + 1), PixelSpacing=["0.5", "0.5"], Modality="CT")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}{series}.{index}"
        dataset.SeriesInstanceUID = f"{ROOT}9.{series}"
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 2.5 * index]
        if change is not None:
            change(index, dataset)
        # names in an order of their own
        paths.append(folder / f"{(index * 7) % 10}-{series}.dcm")
        paths[-1].write_bytes(as_bytes(dataset))
    return paths


@pytest.mark.realdata
@pytest.mark.parametrize("name", TRUTH)
def test_each_sample_series_is_what_it_is(data_root: Path, name: str) -> None:
    volumes, images, reason = TRUTH[name]
    found = summary(open_folder(data_root / "dicom_samples" / "series" / name))
    assert found[:2] == (volumes, images)
    assert reason in found[2]
    assert bool(reason) == bool(found[2])


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", [*(f"series/{name}" for name in CLEAN if name != "dup_sop_uid"), "ct_series", "mr_oblique"]
)
def test_volumes_are_those_of_highdicom(data_root: Path, name: str) -> None:
    highdicom = pytest.importorskip("highdicom")
    folder = data_root / "dicom_samples" / name
    (case,) = open_folder(folder).cases
    theirs = highdicom.get_volume_from_series([dcmread(path) for path in folder.iterdir()], dtype=np.float64)
    assert case.info.positions_mm is not None
    # theirs may run the other way: look each of our slices up by its place
    for index, position in enumerate(case.info.positions_mm):
        at = theirs.map_reference_to_indices(np.array([position]), round_output=True)[0]
        assert at[1:].tolist() == [0, 0]
        np.testing.assert_allclose(case.frame(index), theirs.array[at[0]], rtol=1e-6)
    assert case.info.slice_spacing_mm == pytest.approx(theirs.spacing[0], rel=1e-6)
    assert case.info.spacing_mm == pytest.approx(theirs.spacing[1:])


@pytest.mark.realdata
def test_a_real_tilted_head_is_refused(data_root: Path) -> None:
    opened = open_folder(data_root / "dicom" / "dcm_qa_ct_GE_head")
    assert not opened.cases
    assert len(opened.refused[0].paths) == 28


def test_slices_are_sorted_along_their_normal_and_keep_their_references(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    (case,) = open_series(reversed(paths)).cases
    assert case.sources == tuple(paths)
    assert [reference.sop_instance_uid for reference in case.info.sop] == [f"{ROOT}2.{index}" for index in range(4)]
    assert np.array_equal(np.stack(list(case.iter_frames())), [pattern() // (index + 1) for index in range(4)])
    assert (case.info.slice_spacing_mm, case.info.kind) == (2.5, "dicom-volume")


def test_a_volume_has_one_type_and_its_own_digest(tmp_path: Path) -> None:
    def rescale_one(index: int, dataset: Any) -> None:
        if index == 2:
            dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (plain,) = open_series(slices(tmp_path / "a")).cases
    (mixed,) = open_series(slices(tmp_path / "b", change=rescale_one)).cases
    assert (plain.info.dtype, plain.info.white) == ("uint8", 255)
    assert (mixed.info.dtype, mixed.info.white) == ("float32", None)
    assert mixed.frame(0).dtype == np.float32
    assert plain.digest != mixed.digest


def test_a_bad_series_runs_slice_by_slice_when_asked(tmp_path: Path) -> None:
    paths = slices(tmp_path, change=lambda index, dataset: setattr(dataset, "ImagePositionPatient", [0, 0, index**2]))
    assert summary(open_series(paths))[0] == []
    opened = open_series(paths, slice_by_slice=True)
    assert [case.info.notes for case in opened.cases] == [("not_a_volume",)] * 4
    assert not opened.refused


def test_one_uid_with_two_images_is_refused_and_says_which(tmp_path: Path) -> None:
    def repeat(index: int, dataset: Any) -> None:
        if index == 3:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}2.1"

    paths = slices(tmp_path, change=repeat)
    opened = open_series(paths)
    clash = next(entry for entry in opened.refused if entry.refusal.code == "duplicate_uid")
    assert set(clash.paths) == {paths[1], paths[3]}


def test_copies_of_slices_are_dropped_and_copies_of_images_are_inputs(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    copy = tmp_path / "z.dcm"
    copy.write_bytes(paths[1].read_bytes())
    opened = open_series([*paths, copy])
    assert (summary(opened)[0], opened.duplicates) == ([4], (copy,))
    photographs = [tmp_path / "one", tmp_path / "two"]
    for path in photographs:
        path.write_bytes(as_bytes(image_dataset(pattern(samples=3))))
    opened = open_series(photographs)
    assert [case.sources[0] for case in opened.cases] == photographs
    assert not opened.duplicates


def test_copies_are_known_by_their_image_when_their_bytes_differ(tmp_path: Path) -> None:
    paths = slices(tmp_path)
    other = dcmread(paths[1])
    other.SeriesDescription = "sent again"
    copy = tmp_path / "z.dcm"
    copy.write_bytes(as_bytes(other))
    assert open_series([*paths, copy]).duplicates == (copy,)
    other.PixelData = bytes(len(other.PixelData))
    copy.write_bytes(as_bytes(other))
    opened = open_series([*paths, copy])
    assert [entry.refusal.code for entry in opened.refused if copy in entry.paths] == ["duplicate_uid"]


def test_files_that_are_no_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"no DICOM")
    opened = open_series([tmp_path / "broken"])
    assert [entry.refusal.code for entry in opened.refused] == ["not_dicom"]


def test_a_single_slice_and_a_clip_are_images(tmp_path: Path) -> None:
    paths = slices(tmp_path, 1)
    clip = tmp_path / "clip"
    clip.write_bytes(as_bytes(image_dataset(np.stack([pattern()] * 3), Modality="US")))
    kinds = [(case.info.kind, case.info.frames) for case in open_series([*paths, clip]).cases]
    assert kinds == [("dicom", 1), ("dicom", 3)]


def test_more_slices_than_the_limit_are_refused(tmp_path: Path) -> None:
    opened = open_series(slices(tmp_path), Limits(frames=3))
    assert [entry.refusal.code for entry in opened.refused] == ["too_many_frames"]


def test_every_file_of_a_folder_is_accounted_for(tmp_path: Path) -> None:
    below = tmp_path / "study" / "deep"
    below.mkdir(parents=True)
    paths = slices(below)
    (below / "DICOMDIR").write_bytes(b"")
    (below / "notes.txt").write_text("dear colleague")
    os.mkfifo(below / "pipe")
    (below / "loop").symlink_to(below / "loop")
    (below / "up").symlink_to(tmp_path)
    (tmp_path / "outside.png").write_bytes(b"")
    (below / "leak.png").symlink_to(tmp_path / "outside.png")
    for folder in (below, tmp_path / "study"):
        Image.fromarray(pattern()).save(folder / "same.png")
    opened = open_folder(tmp_path / "study")
    refused = {entry.paths[0].name: entry.refusal.code.value for entry in opened.refused}
    assert refused == {
        "DICOMDIR": "empty_file",
        "notes.txt": "unknown_format",
        "pipe": "not_regular_file",
        "loop": "link_loop",
        "leak.png": "link_outside",
        "up": "link_outside",
    }
    assert sorted(len(case.sources) for case in opened.cases) == [1, 1, 4]
    assert {path for case in opened.cases for path in case.sources} >= set(paths)
    assert all(np.array_equal(case.frame(), pattern()) for case in opened.cases[:2])


def test_folders_that_cannot_be_listed_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(root: Path, onerror: Callable[[OSError], None], followlinks: bool) -> Any:
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "locked")))
        return iter([])

    monkeypatch.setattr("msrf_monai.clinical.reading.folder.os.walk", walk)
    (entry,) = open_folder(tmp_path).refused
    assert (entry.paths, entry.refusal.code) == ((tmp_path / "locked",), "permission_denied")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="missing"):
        open_folder(tmp_path / "nowhere")
