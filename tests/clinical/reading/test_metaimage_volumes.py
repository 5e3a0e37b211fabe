"""MetaImage files as cases: the values and the place that were written, ITK's where it is here, and what is refused."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.clinical.reading import Limits, RefusedInput, open_case, open_folder
from msrf_monai.clinical.writing import check_nifti, encode_nifti
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_mhd, scan_values

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def code_of(path: Path, **limits: int) -> str:
    with pytest.raises(RefusedInput) as caught:
        open_case(path, Limits(**limits)).frame()
    assert "DOE" not in str(caught.value)
    return caught.value.code.value


def stack_of(path: Path) -> Any:
    return np.stack(list(open_case(path).iter_frames())).transpose(2, 1, 0)


@pytest.mark.parametrize("dtype", ["int16", "int8", "uint8", "float32", "uint16"])
@pytest.mark.parametrize(
    "options", [{}, {"packed": True}, {"BinaryDataByteOrderMSB": "True"}, {"HeaderSize": -1}], ids=str
)
@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
def test_slices_are_those_that_were_written(tmp_path: Path, dtype: str, options: dict[str, Any], suffix: str) -> None:
    values = scan_values(low=0, high=120).astype(dtype)
    path = save_mhd(tmp_path / f"a{suffix}", values, **options)

    case = open_case(path)

    assert np.array_equal(case.frame(2), values[:, :, 2].T)
    assert np.array_equal(stack_of(path), values)
    assert case.info.dtype == (dtype if dtype.startswith("u") else "float32")
    assert (case.info.kind, case.info.stored_shape) == ("metaimage", values.shape)
    assert [source.suffix for source in case.sources] == ([".mhd", ".raw"] if suffix == ".mhd" else [".mha"])


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
def test_values_and_place_are_those_of_simpleitk(tmp_path: Path, suffix: str, is_packed: bool) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="a second reader of MetaImage: pip install SimpleITK")
    image = sitk.GetImageFromArray(scan_values().transpose(2, 1, 0))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), useCompression=is_packed)

    case = open_case(path)

    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    for index in range(case.info.frames):
        assert np.array_equal(case.frame(index), array[index])
    assert case.info.positions_mm is not None
    for index in range(case.info.frames):
        assert case.info.positions_mm[index] == pytest.approx(image.TransformIndexToPhysicalPoint((0, 0, index)))
    corner = TO_RAS @ np.array(case.info.affine) @ [3, 4, 2, 1]
    assert corner[:3] == pytest.approx(image.TransformIndexToPhysicalPoint((3, 4, 2)))


def test_the_place_is_dicoms_and_the_matrix_niftis(tmp_path: Path) -> None:
    path = save_mhd(tmp_path / "a.mha", scan_values(), TransformMatrix="0 1 0 -1 0 0 0 0 1", Offset="1 2 3")
    info = open_case(path).info
    assert info.orientation == ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
    assert info.positions_mm is not None
    assert info.positions_mm[1] == (1.0, 2.0, 6.0)
    assert (info.spacing_mm, info.slice_spacing_mm, info.spacing_is_real) == ((0.75, 0.5), 3.0, True)
    np.testing.assert_allclose(np.array(info.affine) @ [1, 0, 0, 1], [-1, -2.5, 3, 1])


def test_a_mask_written_as_nifti_lies_where_its_source_lies(tmp_path: Path) -> None:
    case = open_case(save_mhd(tmp_path / "a.mhd", scan_values(), TransformMatrix="0 1 0 -1 0 0 0 0 1"))
    mask = np.stack([frame > 0 for frame in case.iter_frames()]).astype(np.uint8)
    place = np.array(case.info.affine)
    content = encode_nifti(mask, place)
    check_nifti(content, mask, place)
    (tmp_path / "mask.nii.gz").write_bytes(content)
    again = open_case(tmp_path / "mask.nii.gz").info
    assert (again.stored_shape, again.orientation) == (case.info.stored_shape, case.info.orientation)
    np.testing.assert_allclose(again.positions_mm, case.info.positions_mm, atol=1e-5)


def test_rgb_and_single_slices_are_read(tmp_path: Path) -> None:
    rgb = pattern(5, 6, samples=3)
    lines = "ObjectType = Image\nNDims = 2\nElementNumberOfChannels = 3\nElementSpacing = 0.5 0.75\nDimSize = 6 5\n"
    text = f"Comment = DOE^JANE\n{lines}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(text.encode() + rgb.tobytes())
    case = open_case(tmp_path / "a.mha")
    assert np.array_equal(case.frame(), rgb)
    assert (case.info.samples, case.info.white, case.info.frames) == (3, 255.0, 1)
    assert (case.info.spacing_mm, case.info.slice_spacing_mm) == ((0.75, 0.5), None)


def test_a_fourth_axis_of_one_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    place = {"Offset": "1 2 3 0", "ElementSpacing": "0.5 0.75 3 1", "NDims": 4}
    path = save_mhd(tmp_path / "a.mha", scan_values(), **place, DimSize="6 5 4 1")
    assert np.array_equal(stack_of(path), scan_values())
    assert open_case(path).info.stored_shape == (6, 5, 4, 1)
    assert code_of(save_mhd(tmp_path / "a.mha", scan_values(), **place, DimSize="6 5 2 2")) == "unsupported"


@pytest.mark.parametrize(
    ("spacing", "expected", "is_real"),
    [
        ({"ElementSpacing": "500 750 3000", "DistanceUnits": "um"}, (0.75, 0.5), True),
        ({"ElementSpacing": "1 1 1", "Offset": "0 0 0"}, (1.0, 1.0), False),
    ],
    ids=["um", "ones"],
)
def test_spacing_is_in_millimetres_and_says_whether_it_is_real(
    tmp_path: Path, spacing: dict[str, Any], expected: Any, is_real: bool
) -> None:
    info = open_case(save_mhd(tmp_path / "a.mha", scan_values(), **spacing)).info
    assert info.spacing_mm == pytest.approx(expected)
    assert info.spacing_is_real is is_real


def test_without_a_spacing_nothing_is_said_of_it(tmp_path: Path) -> None:
    path = save_mhd(tmp_path / "a.mha", scan_values())
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", b"SomethingElses"))
    info = open_case(path).info
    assert (info.spacing_mm, info.spacing_is_real, info.orientation) == (None, False, None)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"DimSize": "6 5"}, "bad_header"),
        ({"DimSize": "6 5 4.5"}, "bad_header"),
        ({"DimSize": "6 DOE 4"}, "bad_header"),
        ({"DimSize": "6 -5 4"}, "bad_header"),
        ({"DimSize": "60000 50000 4"}, "too_many_pixels"),
        ({"DimSize": "6 5 40000"}, "too_many_frames"),
        ({"DimSize": "6 5 3"}, "length_mismatch"),
        ({"DimSize": "6 5 5"}, "truncated"),
        ({"ElementDataFile": "../DOE.raw"}, "link_outside"),
        ({"ElementDataFile": ".."}, "link_outside"),
        ({"ElementDataFile": "/etc/passwd"}, "link_outside"),
        ({"ElementDataFile": "below\\DOE.raw"}, "link_outside"),
        ({"ElementDataFile": "DOE.raw"}, "missing"),
        ({"ElementDataFile": "LIST"}, "unsupported"),
        ({"ElementDataFile": "DOE%03d.raw 1 4 1"}, "unsupported"),
        ({"CompressedData": "True"}, "decode_failed"),
        ({"BinaryData": "False"}, "unsupported"),
        ({"ElementType": "MET_DOE"}, "unsupported"),
        ({"NDims": "DOE"}, "unsupported"),
        ({"ElementNumberOfChannels": 3}, "unsupported"),
        ({"ElementSpacing": "0.5 0 3"}, "bad_header"),
        ({"ElementSpacing": "0.5 1e-300 3"}, "bad_header"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "bad_header"),
        ({"Offset": "nan 0 0"}, "bad_header"),
    ],
    ids=str,
)
def test_broken_headers_are_refused_with_their_code(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    assert code_of(save_mhd(tmp_path / "a.mhd", scan_values(), **options)) == code


def test_compressed_voxels_are_bounded_before_they_are_unpacked(tmp_path: Path) -> None:
    path = save_mhd(tmp_path / "a.mha", scan_values(), packed=True)
    assert code_of(path, inflated_bytes=239) == "inflate_bomb"
    assert open_case(path, Limits(inflated_bytes=240)).frame().shape == (5, 6)
    head = path.read_bytes().partition(b"LOCAL\n")[0]
    path.write_bytes(head + b"LOCAL\n" + zlib.compress(bytes(50 << 20)))
    assert code_of(path) == "length_mismatch"
    path.write_bytes(head + b"LOCAL\n" + zlib.compress(bytes(200)))
    assert code_of(path) == "truncated"


def test_voxels_behind_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = save_mhd(tmp_path / "in" / "a.mhd", scan_values())
    (tmp_path / "in" / "a.raw").rename(tmp_path / "elsewhere.raw")
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "elsewhere.raw")
    assert code_of(path) == "link_outside"


def test_a_change_of_either_file_is_seen_and_changes_the_digest(tmp_path: Path) -> None:
    path = save_mhd(tmp_path / "a.mhd", scan_values())
    case = open_case(path)
    assert np.array_equal(case.frame(3), scan_values()[:, :, 3].T)
    save_mhd(path, scan_values(seed=1))
    with pytest.raises(RefusedInput, match="changed"):
        case.frame(0)
    assert open_case(path).digest != case.digest


def test_a_folder_does_not_list_the_voxels_of_a_header_as_an_input(tmp_path: Path) -> None:
    save_mhd(tmp_path / "a.mhd", scan_values())
    save_mhd(tmp_path / "b.mhd", scan_values(), DimSize="6 5 9")
    save_mhd(tmp_path / "c.mha", scan_values())
    (tmp_path / "d.raw").write_bytes(b"of nobody")
    opened = open_folder(tmp_path)
    assert [[path.name for path in case.sources] for case in opened.cases] == [["a.mhd", "a.raw"], ["c.mha"]]
    refused = {tuple(path.name for path in part.paths): part.refusal.code.value for part in opened.refused}
    assert refused == {("b.mhd", "b.raw"): "truncated", ("d.raw",): "unknown_format"}


def test_a_header_cannot_hide_a_dicom_file(tmp_path: Path) -> None:
    save_mhd(tmp_path / "a.mhd", scan_values(), ElementDataFile="image.dcm")
    (tmp_path / "a.raw").unlink()
    (tmp_path / "image.dcm").write_bytes(as_bytes(image_dataset(pattern())))
    opened = open_folder(tmp_path)
    assert [case.info.kind for case in opened.cases] == ["dicom"]
    assert [part.paths[0].name for part in opened.refused] == ["a.mhd"]
