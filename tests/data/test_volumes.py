"""Readers of volumes against the values that were written, nibabel and pydicom, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from msrf_monai.data.volumes import Volume, VolumePair, Window, read_slices
from msrf_monai.data.volumes.reading import read_volume, volume_name
from msrf_monai.errors import DataError, InputError
from support.volume_files import SHAPE, mask_values, save_dicom_series, save_mhd, save_nifti, scan_values

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "uint16"])
@pytest.mark.parametrize("options", [{}, {"packed": True}, {"BinaryDataByteOrderMSB": "True"}, {"HeaderSize": -1}])
@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
def test_metaimages_give_the_values_and_the_place_that_were_written(
    tmp_path: Path, dtype: str, options: dict[str, object], suffix: str
) -> None:
    values = scan_values(low=0, high=200).astype(dtype)
    path = save_mhd(tmp_path / f"a{suffix}", values, **options)

    volume = read_volume(path)

    np.testing.assert_array_equal(volume.values, values)
    assert volume.values.dtype == np.dtype(dtype)
    np.testing.assert_allclose(volume.affine, [[0.5, 0, 0, 10], [0, 0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    assert volume.spacing_mm == (0.75, 0.5)
    assert volume.slice_spacing_mm == 3


def test_rows_of_a_transform_matrix_are_the_directions_of_the_axes(tmp_path: Path) -> None:
    path = save_mhd(tmp_path / "a.mhd", scan_values(), TransformMatrix="0 1 0 -1 0 0 0 0 1", Offset="1 2 3")

    affine = read_volume(path).affine

    np.testing.assert_allclose(affine @ [1, 0, 0, 1], [1, 2.5, 3, 1])  # the first axis runs along y
    np.testing.assert_allclose(affine @ [0, 1, 0, 1], [0.25, 2, 3, 1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"NDims": 2}, "has 2 dimensions and 1 channels"),
        ({"ElementNumberOfChannels": 3}, "has 3 dimensions and 3 channels"),
        ({"ElementType": "MET_COLOUR"}, "ElementType is 'MET_COLOUR'; expected one of MET_CHAR"),
        ({"DimSize": "6 5"}, "DimSize is '6 5'; expected 3 numbers"),
        ({"DimSize": "6 five 4"}, "DimSize is '6 five 4'"),
        ({"DimSize": "60000 50000 4000"}, "expected 1 to 536870912 voxels"),
        ({"DimSize": "6 5 3"}, "its data holds more than 180 bytes; expected 180 for 6 x 5 x 3 values of MET_SHORT"),
        ({"DimSize": "6 5 5"}, "its data holds 240 bytes; expected 300"),
        ({"ElementDataFile": "../other.raw"}, "asks for the data file '../other.raw'"),
        ({"ElementDataFile": "gone.raw"}, "gone.raw: cannot be read .*; a.mhd needs it"),
        ({"ElementDataFile": "LIST"}, "keeps its slices in several files"),
        ({"ElementDataFile": "a%03d.raw 1 4 1"}, "keeps its slices in several files"),
        ({"CompressedData": "True"}, "its data cannot be unpacked"),
        ({"BinaryData": "False"}, "holds its values as text"),
        ({"ElementSpacing": "0.5 0 3"}, "expected a right-angled grid"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "expected a right-angled grid"),
    ],
)
def test_broken_metaimages_are_named_with_the_reason(tmp_path: Path, options: dict[str, object], reason: str) -> None:
    path = save_mhd(tmp_path / "a.mhd", scan_values(), **options)

    with pytest.raises(DataError, match=f"a.mhd: .*{reason}" if "gone" not in reason else reason):
        read_volume(path)


def test_files_that_are_no_metaimage_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_bytes(b"\x89PNG" * 100)

    with pytest.raises(DataError, match=r"a\.mhd: is no MetaImage header"):
        read_volume(tmp_path / "a.mhd")
    with pytest.raises(DataError, match=r"b\.mhd: cannot be read \(No such file"):
        read_volume(tmp_path / "b.mhd")


def test_nifti_gives_scaled_values_in_the_directions_of_dicom(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(scan_values(), np.diag([-0.5, -0.75, 3, 1]))
    image.header.set_slope_inter(2, -24)
    nibabel.save(image, tmp_path / "a.nii.gz")

    volume = read_volume(tmp_path / "a.nii.gz")

    np.testing.assert_allclose(volume.values, nibabel.load(tmp_path / "a.nii.gz").get_fdata())
    np.testing.assert_allclose(volume.affine, np.diag([0.5, 0.75, 3, 1]))
    assert volume_name(tmp_path / "a.b.nii.gz") == "a.b"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((6, 5), np.int16), r"its shape is \(6, 5\); expected a volume of three axes"),
        (np.zeros((6, 5, 4, 2), np.int16), "expected a volume of three axes"),
        (np.full(SHAPE, np.nan, np.float32), "holds NaN or infinite values"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "expected one number a voxel"),
    ],
)
def test_nifti_files_that_are_no_volume_of_numbers_are_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=f"a.nii: .*{reason}"):
        read_volume(save_nifti(tmp_path / "a.nii", values))


@pytest.mark.parametrize(("name", "content"), [("a.nii.gz", b"no gzip"), ("a.nii", b"short"), ("a.nii", b"")])
def test_damaged_nifti_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=f"{name}: cannot be read as NIfTI"):
        read_volume(tmp_path / name)


def test_a_nifti_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", scan_values())
    path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(DataError, match=r"a\.nii: cannot be read as NIfTI"):
        read_volume(path)


def test_a_dicom_series_is_ordered_by_place_and_rescaled(tmp_path: Path) -> None:
    values = scan_values() // 2 * 2  # the stored values are halves
    folder = save_dicom_series(tmp_path / "049", values)
    (folder / "notes.txt").write_text("not DICOM", encoding="utf-8")

    volume = read_volume(folder)

    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine, [[0.5, 0, 0, -10], [0, 0.75, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]])
    assert volume.remark == ""


def test_uneven_and_single_slices_are_read(tmp_path: Path) -> None:
    uneven = read_volume(save_dicom_series(tmp_path / "u", scan_values(), (0.0, 3.0, 6.0, 14.0)))
    single = read_volume(save_dicom_series(tmp_path / "s", scan_values(shape=(6, 5, 1)), (5.0,)))

    assert uneven.remark == "its slices are 3 to 8 mm apart"
    assert single.slice_spacing_mm == 3


@pytest.mark.parametrize(
    ("changes", "heights", "reason"),
    [
        ({"ImagePositionPatient": None}, None, "has no ImagePositionPatient; expected a slice of a series"),
        ({}, (0.0, 3.0, 3.0, 6.0), "has two slices at the same place"),
        ({"NumberOfFrames": 2}, None, "holds several frames or colours"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, None, "its slices have the directions"),
        ({"PixelData": b"\0\0"}, None, "its pixels cannot be decoded"),
    ],
)
def test_series_that_are_no_volume_are_refused(
    tmp_path: Path, changes: dict[str, object], heights: tuple[float, ...] | None, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read_volume(save_dicom_series(tmp_path / "049", scan_values(), heights, **changes))


def test_files_of_two_series_or_grids_in_a_folder_are_refused(tmp_path: Path) -> None:
    folder = save_dicom_series(tmp_path / "049", scan_values())
    other = save_dicom_series(tmp_path / "050", scan_values(shape=(6, 7, 4)))
    (other / "0.dcm").rename(folder / "z.dcm")

    with pytest.raises(DataError, match=r"z\.dcm: its Rows is not that of 0\.dcm"):
        read_volume(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no DICOM file"):
        read_volume(tmp_path / "empty")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_slices_are_turned_as_displays_show_them(order: tuple[int, int, int], signs: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * signs)[:, order]
    volume = Volume(scan_values(), affine)

    slices = volume.slices()

    ramps = [np.tensordot(affine[axis, :3], np.indices(SHAPE), axes=1) for axis in range(3)]  # place of each voxel
    shown = [volume.slices(ramp) for ramp in ramps]
    codes = aff2axcodes(TO_LPS @ affine)  # nibabel's, of an affine to the right, front and head
    plane = {frozenset("LR"): 0, frozenset("AP"): 1, frozenset("SI"): 2}
    in_plane = sorted(plane[next(pair for pair in plane if code in pair)] for code in codes[:2])
    across, down = in_plane
    direction = (1, 1, -1)  # to the left, to the back, to the feet
    assert (np.diff(shown[across], axis=2) == direction[across]).all()
    assert (np.diff(shown[down], axis=1) == direction[down]).all()
    assert slices.shape[0] == SHAPE[2]
    assert sorted(slices.ravel()) == sorted(volume.values.ravel())


def test_oblique_planes_keep_their_spacing() -> None:
    angle = np.deg2rad(18.5)
    affine = np.eye(4)
    affine[:3, 0] = [0.4, 0, 0]
    affine[:3, 1] = 0.6 * np.array([0, np.cos(angle), -np.sin(angle)])
    affine[:3, 2] = [0, 0, 5]  # a tilted gantry: the table moves along the patient

    volume = Volume(scan_values(), affine)

    assert volume.spacing_mm == pytest.approx((0.6, 0.4))
    assert volume.slice_spacing_mm == pytest.approx(5 * np.cos(angle))


@pytest.mark.parametrize(("bits", "white", "dtype"), [(8, 255, np.uint8), (16, 65535, np.uint16)])
def test_a_fixed_window_is_its_closed_form(tmp_path: Path, bits: int, white: int, dtype: type) -> None:
    scan = scan_values()
    save_nifti(tmp_path / "a.nii", scan)
    save_nifti(tmp_path / "m.nii", mask_values())

    stack = read_slices(VolumePair(tmp_path / "a.nii", tmp_path / "m.nii", "a"), Window(40, 80, unit="HU"), bits)

    # in NIfTI's directions the axes run to the right and front: both are turned round for display
    expected = np.rint(np.clip(scan[::-1, ::-1].transpose(2, 1, 0) / 80, 0, 1) * white)
    assert stack.pixels.dtype == dtype
    assert np.abs(stack.pixels.astype(int) - expected).max() <= (0 if bits == 8 else 1)
    np.testing.assert_array_equal(stack.masks, mask_values()[::-1, ::-1].transpose(2, 1, 0) > 0)
    assert stack.details(3) == {"slice": 3, "spacing_mm": [0.75, 0.5], "slice_spacing_mm": 3.0, "window": [0.0, 80.0]}


def test_a_percentile_window_is_numpys(tmp_path: Path) -> None:
    scan = scan_values(low=0, high=4000, shape=(20, 15, 6))
    save_mhd(tmp_path / "a.mhd", scan)
    save_mhd(tmp_path / "m.mhd", mask_values(shape=scan.shape))

    stack = read_slices(VolumePair(tmp_path / "a.mhd", tmp_path / "m.mhd", "a"), Window(), 8)

    low, high = np.percentile(scan, [0.5, 99.5])
    assert stack.window == (low, high)
    assert (stack.pixels[scan.transpose(2, 1, 0) <= low] == 0).all()
    assert (stack.pixels[scan.transpose(2, 1, 0) >= high] == 255).all()


def test_a_constant_volume_is_black(tmp_path: Path) -> None:
    save_mhd(tmp_path / "a.mhd", np.full(SHAPE, 7, np.int16))
    save_mhd(tmp_path / "m.mhd", mask_values())

    stack = read_slices(VolumePair(tmp_path / "a.mhd", tmp_path / "m.mhd", "a"), Window(), 8)

    assert not stack.pixels.any()


def test_the_mask_of_a_dicom_series_is_turned_as_its_header_says(tmp_path: Path) -> None:
    mask = mask_values()
    folder = save_dicom_series(tmp_path / "049", scan_values())
    turned = nibabel.Nifti1Image(mask[:, ::-1, ::-1], TO_LPS @ np.diag([0.5, -0.75, -3, 1]))
    nibabel.save(turned, tmp_path / "m.nii")

    stack = read_slices(VolumePair(folder, tmp_path / "m.nii", "a"), Window(40, 80), 8)

    np.testing.assert_array_equal(stack.masks, mask.transpose(2, 1, 0) > 0)


def test_a_mask_whose_header_names_another_place_is_taken_voxel_by_voxel_and_remarked_upon(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii", scan_values())
    save_nifti(tmp_path / "m.nii", mask_values(), np.eye(4))

    stack = read_slices(VolumePair(tmp_path / "a.nii", tmp_path / "m.nii", "a"), Window(40, 80), 8)

    assert stack.remark == "the header of its mask names another place: taken voxel by voxel"
    np.testing.assert_array_equal(stack.masks, mask_values()[::-1, ::-1].transpose(2, 1, 0) > 0)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.arange(120, dtype=np.int16).reshape(SHAPE), r"m.nii: is not a binary mask: it has 120 values \(0, 1, 2, 3"),
        (np.where(mask_values() > 0, 2, 1).astype(np.int16), "is not a binary mask: it has 2 values"),
        (np.full(SHAPE, -1, np.int16), "is not a binary mask"),
        (mask_values(shape=(5, 6, 4)), "m.nii: is 5 x 6 x 4 voxels; expected 6 x 5 x 4, the size of a.nii"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, mask: np.ndarray, reason: str) -> None:
    save_nifti(tmp_path / "a.nii", scan_values())
    save_nifti(tmp_path / "m.nii", mask)

    with pytest.raises(DataError, match=reason):
        read_slices(VolumePair(tmp_path / "a.nii", tmp_path / "m.nii", "a"), Window(40, 80), 8)


@pytest.mark.parametrize("text", ["40", "40,0", "40,-80", "a,b", "40,80,1", "nan,80", ""])
def test_windows_that_are_no_level_and_width_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected LEVEL,WIDTH with a width above 0"):
        Window.parse(text)


def test_windows_say_what_they_are() -> None:
    assert Window.parse("40,80", "HU").text == "0 to 80 HU (level 40, width 80)"
    assert Window.parse("600, 1000").text == "100 to 1100 (level 600, width 1000)"
    assert Window().text == "percentile 0.5 to percentile 99.5 of each volume"


@pytest.mark.realdata
@pytest.mark.parametrize("write", [save_nifti, save_mhd])
def test_a_real_ct_is_sliced_as_nibabel_shows_it(data_root: Path, tmp_path: Path, write: Callable[..., Path]) -> None:
    image = nibabel.load(data_root / "CT3D_TotalSegmentator_example/images/example_ct_sm.nii.gz")
    labels = nibabel.load(data_root / "CT3D_TotalSegmentator_example/masks/example_ct_sm.nii.gz")
    organ = (np.asanyarray(labels.dataobj) == 5).astype(np.uint8)
    turned = nibabel.as_closest_canonical(image)  # axes to the right, front and head
    suffix, scan = (".nii.gz", image) if write is save_nifti else (".mhd", turned)
    values = np.asanyarray(scan.dataobj).astype(np.int16)
    mask = (
        organ
        if write is save_nifti
        else np.asanyarray(nibabel.as_closest_canonical(nibabel.Nifti1Image(organ, labels.affine)).dataobj)
    )
    place = (scan.affine,) if write is save_nifti else ()
    options = {} if write is save_nifti else {"TransformMatrix": "-1 0 0 0 -1 0 0 0 1"}
    write(tmp_path / f"a{suffix}", values, *place, **options)
    write(tmp_path / f"m{suffix}", mask, *place, **options)

    stack = read_slices(VolumePair(tmp_path / f"a{suffix}", tmp_path / f"m{suffix}", "a"), Window(50, 400), 8)

    canonical = np.asanyarray(turned.dataobj).astype(np.float64)
    expected = np.rint(np.clip((canonical[::-1, ::-1].transpose(2, 1, 0) + 150) / 400, 0, 1) * 255)
    same_order = stack.pixels if np.array_equal(stack.pixels[0], expected[0]) else stack.pixels[::-1]
    assert np.abs(same_order - expected).max() <= 1
    assert stack.masks.sum() == organ.sum() > 0


@pytest.mark.realdata
def test_a_real_tilted_head_ct_is_read(data_root: Path) -> None:
    volume = read_volume(data_root / "dicom" / "dcm_qa_ct_GE_head")

    assert volume.values.shape == (512, 512, 28)
    assert volume.remark.endswith("mm apart")
    assert 0 < np.median(volume.values[236:276, 236:276, 14]) < 80  # brain, in Hounsfield units
    assert volume.values.max() > 1000  # bone
