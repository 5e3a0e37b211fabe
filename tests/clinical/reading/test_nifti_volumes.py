"""NIfTI files as cases: nibabel's values slice by slice, the place, the limits, and what is refused."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading import Limits, RefusedInput, kind_of, open_case, open_folder
from msrf_monai.clinical.writing import check_nifti, encode_nifti
from support.volume_files import SHAPE, scan_values

OBLIQUE = np.array([[0.0, -0.75, 0.1, 10], [0.5, 0, 0, -20], [0, 0.1, 3, 30], [0, 0, 0, 1]])
UPRIGHT = np.diag([-0.5, -0.75, 3.0, 1.0])


def saved(path: Path, values: Any, affine: Any = UPRIGHT, kind: Any = nibabel.Nifti1Image, **header: Any) -> Path:
    image = kind(values, affine, dtype=values.dtype)  # nibabel wants to be told that 64 bits are meant
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patched(path: Path, offset: int, code: str, *values: Any) -> Path:
    """Overwrite a part of the header behind nibabel's back."""
    is_packed = path.name.endswith(".gz")
    data = bytearray(gzip.decompress(path.read_bytes()) if is_packed else path.read_bytes())
    struct.pack_into("<" + code, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data), mtime=0) if is_packed else bytes(data))
    return path


def code_of(path: Path, index: int = 0, **limits: int) -> str:
    with pytest.raises(RefusedInput) as caught:
        open_case(path, Limits(**limits)).frame(index)
    assert str(path.name) not in str(caught.value)
    return caught.value.code.value


def stack_of(case: Case) -> Any:
    """Return the frames as nibabel has them: columns, rows, slices."""
    return np.stack(list(case.iter_frames())).transpose(2, 1, 0)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["one", "two"])
@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64"]
)
def test_slices_are_those_of_nibabel_with_rows_along_the_second_axis(
    tmp_path: Path, name: str, kind: Any, dtype: str
) -> None:
    values = (scan_values(low=0, high=120) - (60 if dtype[0] != "u" else 0)).astype(dtype)
    path = saved(tmp_path / name, values, OBLIQUE, kind)

    case = open_case(path)

    assert case.info.dtype == ("uint8" if dtype == "uint8" else "uint16" if dtype == "uint16" else "float32")
    assert np.array_equal(case.frame(2), np.asarray(nibabel.load(path).dataobj)[:, :, 2].T)
    assert np.array_equal(stack_of(case), values)
    assert (case.info.rows, case.info.columns, case.info.frames) == (SHAPE[1], SHAPE[0], SHAPE[2])
    assert (case.info.kind, case.info.photometric, case.info.stored_shape) == ("nifti", dtype, SHAPE)
    np.testing.assert_allclose(case.info.affine, nibabel.load(path).affine)


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_slope_and_intercept_are_applied_in_double_precision(tmp_path: Path, dtype: str) -> None:
    path = saved(tmp_path / "a.nii.gz", scan_values(low=0, high=200).astype(dtype))
    patched(path, 112, "ff", 0.1, -24.7)

    case = open_case(path)

    assert case.info.dtype == "float32"
    assert np.array_equal(stack_of(case), nibabel.load(path).get_fdata().astype(np.float32))


@pytest.mark.parametrize("scale", [(0.0, 5.0), (float("nan"), 5.0), (1.0, 0.0)], ids=["zero", "nan", "one"])
def test_a_slope_that_scales_nothing_leaves_the_stored_type(tmp_path: Path, scale: tuple[float, float]) -> None:
    path = patched(saved(tmp_path / "a.nii", scan_values(low=0, high=99).astype(np.uint8)), 112, "ff", *scale)
    assert open_case(path).frame().dtype == np.uint8


def test_big_endian_files_are_read_in_native_order(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(scan_values(), UPRIGHT, header)
    nibabel.save(image, tmp_path / "a.nii")
    case = open_case(tmp_path / "a.nii")
    assert case.frame().dtype.isnative
    assert np.array_equal(stack_of(case), scan_values())


def test_rgb_becomes_colour_frames(tmp_path: Path) -> None:
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for factor, name in enumerate("RGB", 1):
        colours[name] = np.arange(colours.size).reshape(SHAPE) * factor % 251
    case = open_case(saved(tmp_path / "a.nii.gz", colours))
    assert (case.info.samples, case.info.dtype, case.info.white) == (3, "uint8", 255.0)
    expected = np.stack([colours[name][:, :, 3].T for name in "RGB"], axis=-1)
    assert np.array_equal(case.frame(3), expected)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_axes_of_length_one_behind_the_third_do_not_count(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = scan_values(shape=shape)
    # nibabel drops the last ones when it writes
    path = saved(tmp_path / "a.nii", values)
    patched(path, 40, "8h", len(shape), *shape, *([1] * (7 - len(shape))))
    case = open_case(path)
    assert case.info.stored_shape == shape
    assert np.array_equal(stack_of(case), values.reshape((*shape, 1)[:3]))


def test_directions_and_positions_are_those_of_dicom(tmp_path: Path) -> None:
    case = open_case(saved(tmp_path / "a.nii", scan_values(), UPRIGHT + np.eye(4, k=3) * 7))
    info = case.info
    assert info.orientation == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert info.positions_mm is not None
    assert info.positions_mm[0] == (-7.0, 0.0, 0.0)
    assert info.positions_mm[3] == (-7.0, 0.0, 9.0)
    assert (info.spacing_mm, info.slice_spacing_mm) == ((0.75, 0.5), 3.0)
    assert (info.spacing_source, info.spacing_is_real) == ("sform", True)


def test_sheared_slices_have_no_direction_and_keep_their_matrix(tmp_path: Path) -> None:
    sheared = UPRIGHT.copy()
    sheared[1, 0] = 0.3
    info = open_case(saved(tmp_path / "a.nii", scan_values(), sheared)).info
    assert (info.orientation, info.positions_mm) == (None, None)
    np.testing.assert_allclose(info.affine, sheared, atol=1e-7)


@pytest.mark.parametrize(
    ("unit", "codes", "pixdim", "expected", "is_real"),
    [
        (2, (0, 0), (0.5, 0.75), (0.75, 0.5), True),  # millimetres, and no place
        (0, (0, 0), (0.5, 0.75), (0.75, 0.5), False),  # nobody says in which unit
        (3, (0, 0), (500, 750), (0.75, 0.5), True),  # micrometres
        (1, (0, 0), (0.0005, 0.00075), (0.75, 0.5), True),  # metres
        (2, (0, 0), (1, 1), (1.0, 1.0), False),  # what writers state that know no spacing
    ],
    ids=["mm", "unknown", "um", "m", "ones"],
)
def test_spacing_is_in_millimetres_and_says_whether_it_is_real(
    tmp_path: Path, unit: int, codes: tuple[int, int], pixdim: tuple[float, float], expected: Any, is_real: bool
) -> None:
    path = saved(tmp_path / "a.nii", scan_values())
    patched(patched(path, 252, "hh", *codes), 80, "ff", *pixdim)
    info = open_case(patched(path, 123, "B", unit)).info
    assert info.spacing_mm == pytest.approx(expected)
    assert (info.spacing_is_real, info.spacing_source) == (is_real, "pixdim")
    assert info.orientation is None


def test_a_picture_saved_as_nifti_has_no_real_spacing(tmp_path: Path) -> None:
    assert not open_case(
        saved(tmp_path / "a.nii", scan_values(shape=(6, 5, 1)), np.diag([-1, -1, 999, 1]))
    ).info.spacing_is_real
    placed = np.diag([-1.0, -1.0, 1.0, 1.0])
    placed[:3, 3] = 90, 126, -72
    assert open_case(saved(tmp_path / "b.nii", scan_values(), placed)).info.spacing_is_real


@pytest.mark.parametrize("affine", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_a_mask_written_back_lies_where_its_source_lies(tmp_path: Path, affine: Any) -> None:
    source = saved(tmp_path / "a.nii.gz", scan_values(), affine)
    case = open_case(source)
    mask = np.stack([frame > 0 for frame in case.iter_frames()]).astype(np.uint8)

    place = np.array(case.info.affine)
    content = encode_nifti(mask, place)

    check_nifti(content, mask, place)
    (tmp_path / "mask.nii.gz").write_bytes(content)
    written = nibabel.load(tmp_path / "mask.nii.gz")
    assert written.shape == nibabel.load(source).shape
    np.testing.assert_allclose(written.affine, nibabel.load(source).affine, atol=1e-6)
    assert np.array_equal(np.asarray(written.dataobj), scan_values() > 0)
    assert np.array_equal(stack_of(open_case(tmp_path / "mask.nii.gz")), scan_values() > 0)


@pytest.mark.parametrize(
    ("offset", "code", "values", "expected"),
    [
        (42, "hh", (20000, 20000), "too_many_pixels"),
        (46, "h", (32000,), "too_many_frames"),
        (46, "h", (6,), "truncated"),
        (46, "h", (2,), "length_mismatch"),
        (42, "h", (-6,), "bad_header"),
        (40, "h", (1,), "bad_header"),
        (40, "hhhhh", (4, 6, 5, 2, 2), "unsupported"),
        (70, "h", (32,), "unsupported"),  # complex numbers
        (70, "h", (2304,), "unsupported"),  # RGBA
        (108, "f", (0.0,), "bad_header"),
        (108, "f", (float("nan"),), "bad_header"),
        (108, "f", (3e38,), "bad_header"),
        (112, "ff", (2.0, float("inf")), "bad_header"),
        (280, "4f", (float("nan"), 0, 0, 0), "bad_header"),
        (280, "12f", (0,) * 12, "bad_header"),
        (280, "4f", (3e38, 3e38, 3e38, 0), "bad_header"),
        (344, "4s", (b"ni1\0",), "unsupported"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_broken_headers_are_refused_with_their_code(
    tmp_path: Path, name: str, offset: int, code: str, values: Any, expected: str
) -> None:
    path = patched(saved(tmp_path / name, scan_values()), offset, code, *values)
    assert code_of(path) == expected


def test_limits_hold_before_a_voxel_is_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", scan_values())
    assert code_of(path, frame_pixels=29) == "too_many_pixels"
    assert code_of(path, frames=3) == "too_many_frames"
    assert code_of(path, inflated_bytes=591) == "inflate_bomb"
    assert open_case(path, Limits(inflated_bytes=592)).frame().shape == (5, 6)


def test_a_bomb_behind_a_small_header_is_not_inflated(tmp_path: Path) -> None:
    sound = saved(tmp_path / "a.nii", scan_values()).read_bytes()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(sound, mtime=0) + gzip.compress(bytes(60 << 20), 1, mtime=0))
    tracemalloc.start()
    try:
        assert code_of(path) == "length_mismatch"
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_files_of_very_many_gzip_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"", mtime=0) * 70_000)
    assert code_of(path) == "inflate_bomb"


def test_gzip_members_in_a_row_and_zeros_behind_them_are_one_file(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.nii", scan_values()).read_bytes()
    parts = [gzip.compress(data[start : start + 100], mtime=0) for start in range(0, len(data), 100)]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts) + bytes(512))
    assert np.array_equal(stack_of(open_case(tmp_path / "b.nii.gz")), scan_values())


@pytest.mark.parametrize("kept", [20, 300, -1, -6, -9], ids=["head", "header", "length", "sum", "voxels"])
def test_gzipped_files_that_are_cut_short_are_refused(tmp_path: Path, kept: int) -> None:
    values = np.random.default_rng(0).integers(-9999, 9999, (16, 15, 14)).astype(np.int16)
    path = saved(tmp_path / "a.nii.gz", values)
    path.write_bytes(path.read_bytes()[:kept])
    assert code_of(path) == "truncated"


def test_damaged_gzip_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", scan_values())
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # the checksum
    path.write_bytes(bytes(data))
    assert code_of(path) == "decode_failed"


@pytest.mark.parametrize("excess", [1, 59])
def test_a_little_padding_is_tolerated_and_noted(tmp_path: Path, excess: int) -> None:
    path = saved(tmp_path / "a.nii", scan_values())
    path.write_bytes(path.read_bytes() + bytes(excess))
    assert open_case(path).info.notes == ("excess_padding",)
    path.write_bytes(path.read_bytes() + bytes(60 - excess))
    assert code_of(path) == "length_mismatch"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_slices_with_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    values = scan_values().astype(np.float64)
    values[1, 2, 2] = value
    path = saved(tmp_path / "a.nii", values)
    assert open_case(path).frame(1).dtype == np.float32
    assert code_of(path, 2) == "not_finite"


def test_archives_and_other_gzipped_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(257) + b"ustar" + bytes(300), mtime=0))
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(bytes(128) + b"DICM", mtime=0))
    assert code_of(tmp_path / "a.tar.gz") == "archive"
    assert code_of(tmp_path / "a.dcm.gz") == "unsupported"
    assert kind_of(bytes(4) + b"n+2\0\r\n\x1a\n") == "nifti"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_slices_may_be_asked_for_in_any_order_and_changes_are_seen(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, scan_values())
    case = open_case(path)
    for index in (3, 0, 3, 1):
        frame = case.frame(index)
        assert np.array_equal(frame, scan_values()[:, :, index].T)
        frame[:] = 0  # the caller may write into it
    case.frame(3)
    saved(path, scan_values(seed=1))
    with pytest.raises(RefusedInput, match="changed"):
        case.frame(0)


def test_a_folder_gives_each_volume_as_a_case(tmp_path: Path) -> None:
    saved(tmp_path / "a.nii.gz", scan_values())
    saved(tmp_path / "b.nii", scan_values(seed=1))
    (tmp_path / "c.nii.gz").write_bytes(b"\x1f\x8bnothing")
    opened = open_folder(tmp_path)
    assert [case.sources[0].name for case in opened.cases] == ["a.nii.gz", "b.nii"]
    assert [(part.paths[0].name, part.refusal.code.value) for part in opened.refused] == [("c.nii.gz", "decode_failed")]


@pytest.mark.realdata
def test_a_real_ct_equals_nibabel(data_root: Path) -> None:
    path = data_root / "CT3D_TotalSegmentator_example" / "example_ct_sm.nii.gz"
    if not path.is_file():
        path = next((data_root / "CT3D_TotalSegmentator_example").rglob("example_ct_sm.nii.gz"))
    image = nibabel.load(path)
    case = open_case(path)
    assert np.array_equal(stack_of(case), np.asarray(image.dataobj).astype(np.float32))
    np.testing.assert_allclose(case.info.affine, image.affine)
