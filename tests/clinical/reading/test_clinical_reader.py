"""Clinical cases in MONAI chains: the case's own values in MONAI's axes, the place, and no reader to fall back to."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, list_data_collate, set_track_meta
from monai.transforms import LoadImage, LoadImaged
from PIL import Image

import msrf_monai.clinical
from msrf_monai.clinical.monai_load import LoadClinicalImage, LoadClinicalImaged
from msrf_monai.clinical.monai_reader import ClinicalImageReader, affine_of_case, to_monai
from msrf_monai.clinical.reading import RefusedInput, open_case, open_series
from msrf_monai.clinical.writing import DicomSource, affine_of
from msrf_monai.errors import ConfigError, DataError
from support.dicom_files import as_bytes, image_dataset, pattern
from support.volume_files import save_dicom_series, save_mhd, save_nifti, scan_values

READER = "msrf_monai.clinical.ClinicalImageReader"


def dicom(path: Path, pixels: Any, **attributes: Any) -> Path:
    path.write_bytes(as_bytes(image_dataset(pixels, **attributes)))
    return path


def inputs(folder: Path) -> dict[str, Path]:
    """One input of each kind and shape."""
    folder.mkdir(exist_ok=True)
    rgb, deep = pattern(samples=3), pattern(peak=4000, dtype=np.uint16)
    Image.fromarray(rgb).save(folder / "rgb.png")
    Image.fromarray(deep).save(folder / "deep.png")
    return {
        "picture": folder / "rgb.png",
        "deep picture": folder / "deep.png",
        "dicom": dicom(folder / "grey.dcm", deep, RescaleSlope="2", RescaleIntercept="-9"),
        "clip": dicom(folder / "clip.dcm", np.stack([rgb, rgb[::-1], rgb[:, ::-1]])),
        "nifti": save_nifti(folder / "a.nii.gz", scan_values()),
        "metaimage": save_mhd(folder / "a.mhd", scan_values()),
    }


@pytest.mark.parametrize("kind", ["picture", "deep picture", "dicom", "clip", "nifti", "metaimage"])
@pytest.mark.parametrize("loader", ["monai", "ours"])
def test_values_are_the_cases_own_in_monais_axes(tmp_path: Path, kind: str, loader: str) -> None:
    path = inputs(tmp_path)[kind]
    case = open_case(path)
    load = LoadImage(reader=READER, ensure_channel_first=True) if loader == "monai" else LoadClinicalImage()

    image = load(path)

    frames = np.stack(list(case.iter_frames()))
    expected = np.moveaxis(frames, 0, 2) if case.info.samples == 1 else np.moveaxis(frames, 0, 3).swapaxes(2, 3)
    expected = np.swapaxes(expected, 0, 1)  # columns first
    expected = expected[None] if case.info.samples == 1 else np.moveaxis(expected, -1, 0)
    expected = expected[..., 0] if case.info.frames == 1 else expected
    assert isinstance(image, MetaTensor)
    assert np.array_equal(image.numpy(), expected)
    assert image.meta["filename_or_obj"] == str(path)
    assert tuple(image.meta["spatial_shape"]) == image.shape[1:]
    is_byte = loader == "ours" and case.info.dtype == "uint8"
    assert image.dtype == (torch.uint8 if is_byte else torch.float32)


def test_a_volume_of_nifti_is_the_array_that_nibabel_gives(tmp_path: Path) -> None:
    path = inputs(tmp_path)["nifti"]
    image = LoadClinicalImage()(path)
    assert np.array_equal(image[0].numpy(), nibabel.load(path).get_fdata())
    np.testing.assert_allclose(image.affine, nibabel.load(path).affine)
    np.testing.assert_allclose(image.meta["spacing"], [0.5, 0.75, 3])
    assert image.meta["spacing_is_real"]


def test_a_dicom_series_has_the_same_place_as_itk_gives_it(tmp_path: Path) -> None:
    folder = save_dicom_series(tmp_path / "series", scan_values() // 2 * 2)
    by_folder, by_files = LoadClinicalImage()(folder), LoadClinicalImage()(sorted(folder.iterdir()))
    assert torch.equal(by_folder, by_files)
    assert np.array_equal(by_folder[0].numpy(), scan_values() // 2 * 2)
    # columns to the left and rows to the back, from (-10, -20, 0): minus twice for the right and the front
    np.testing.assert_allclose(by_folder.affine, [[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(by_folder.meta["spacing"], [0.5, 0.75, 3])
    assert by_folder.meta["filename_or_obj"] == str(folder)
    assert by_folder.meta["modality"] == "CT"


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ct_series", "mr_oblique", "series/oblique", "series/sagittal"])
def test_the_place_of_real_series_is_that_of_the_mask_writer(data_root: Path, name: str) -> None:
    folder = data_root / "dicom_samples" / name
    (case,) = open_series(path for path in folder.iterdir() if path.is_file()).cases
    np.testing.assert_allclose(affine_of_case(case.info), affine_of(DicomSource.of_case(case)), atol=1e-6)


def test_pictures_lie_on_the_identity_and_dicom_without_a_place_on_its_spacing(tmp_path: Path) -> None:
    made = inputs(tmp_path)
    np.testing.assert_array_equal(LoadClinicalImage()(made["picture"]).affine, np.eye(4))
    path = dicom(tmp_path / "x.dcm", pattern(), PixelSpacing=[0.3, 0.2])
    image = LoadClinicalImage()(path)
    np.testing.assert_allclose(image.affine, np.diag([-0.2, -0.3, 1, 1]))
    np.testing.assert_allclose(image.meta["spacing"], [0.2, 0.3])


@pytest.mark.parametrize(
    "content", [b"dear colleague", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"], ids=["text", "png", "dicom"]
)
def test_what_is_refused_is_offered_to_no_other_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    load = LoadImage(reader=READER)
    for reader in load.readers[:-1]:
        monkeypatch.setattr(reader, "read", lambda *_: pytest.fail("another reader was asked"), raising=False)
    with pytest.raises(DataError) as caught:
        load(path)
    refusal = caught.value.__cause__
    assert isinstance(refusal, RefusedInput)
    assert str(caught.value) == f"{path}: {refusal.code.value}: {refusal.sentence}"


def test_the_transforms_raise_the_sentence_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.nii: empty_file: the file is empty"):
        LoadClinicalImage()(path)
    with pytest.raises(DataError, match=r"a\.nii: empty_file"):
        LoadClinicalImaged("image")({"image": path})


def test_a_folder_must_hold_one_image(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(pattern()).save(folder / name)
    with pytest.raises(DataError, match="2 images or volumes were found; expected one"):
        LoadClinicalImage()(folder)
    (folder / "b.png").write_bytes(b"dear colleague")
    with pytest.raises(DataError, match=r"b\.png: unknown_format"):
        LoadClinicalImage()(folder)
    with pytest.raises(DataError, match="no file was named"):
        LoadClinicalImage()([])


def test_limits_and_conversions_can_be_set_from_a_config(tmp_path: Path) -> None:
    grey = pattern()
    Image.fromarray(np.dstack([grey, grey])).save(tmp_path / "la.png")
    parser = ConfigParser(
        {
            "load": {"_target_": "msrf_monai.clinical.LoadClinicalImaged", "keys": "image", "convert_unusual": True},
            "small": {"_target_": "msrf_monai.clinical.LoadClinicalImage", "limits": {"frame_pixels": 47}},
            "monai": {"_target_": "LoadImaged", "keys": "image", "reader": READER, "convert_unusual": True},
        }
    )
    parser.parse()
    expected = grey.T
    assert np.array_equal(parser.get_parsed_content("load")({"image": tmp_path / "la.png"})["image"][0], expected)
    with pytest.raises(DataError, match="too_many_pixels"):
        parser.get_parsed_content("small")(tmp_path / "la.png")
    with pytest.raises(ConfigError, match="there is no limit 'pixels'; expected one of file_bytes"):
        LoadClinicalImage({"pixels": 3})


def test_loaders_take_no_other_reader_and_survive_being_copied(tmp_path: Path) -> None:
    path = inputs(tmp_path)["nifti"]
    with pytest.raises(ConfigError, match="takes no reader"):
        LoadClinicalImage()(path, ClinicalImageReader())
    loader = copy.deepcopy(LoadClinicalImaged("image", image_only=False))  # as a data loader's workers get it
    loaded = loader({"image": path})
    assert loaded["image_meta_dict"]["filename_or_obj"] == str(path)
    assert isinstance(loader, LoadImaged)


def test_loaded_images_can_be_batched_and_read_without_metadata(tmp_path: Path) -> None:
    path = inputs(tmp_path)["picture"]
    batch = list_data_collate([LoadClinicalImaged("image")({"image": path}) for _ in range(2)])
    assert batch["image"].shape == (2, 3, 8, 6)
    set_track_meta(False)
    try:
        assert type(LoadClinicalImage()(path)) is torch.Tensor
    finally:
        set_track_meta(True)


def test_suffixes_are_judged_by_content(tmp_path: Path) -> None:
    made = inputs(tmp_path)
    reader = ClinicalImageReader()
    (tmp_path / "named.png").write_bytes(b"dear colleague")
    (tmp_path / "unnamed").write_bytes(made["dicom"].read_bytes())
    assert all(reader.verify_suffix(path) for path in (*made.values(), tmp_path, tmp_path / "unnamed"))
    assert not reader.verify_suffix(tmp_path / "named.png")
    assert not reader.verify_suffix([tmp_path / "unnamed", tmp_path / "gone"])


def test_cases_that_are_open_already_need_no_path(tmp_path: Path) -> None:
    pixels, meta = to_monai(open_case(inputs(tmp_path)["clip"]))
    assert pixels.shape == (8, 6, 3, 3)
    assert meta["original_channel_dim"] == -1
    assert meta["white"] == 255


def test_the_room_imports_without_torch_and_names_what_it_has() -> None:
    code = "import sys; sys.modules['torch'] = None; import msrf_monai.clinical.reading"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = msrf_monai.clinical.Nothing
