"""A frame arrives in a chain as the loader itself would have given its file: values, dtype, layout, metadata."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.image_reader import NibabelReader, PydicomReader
from monai.transforms import LoadImaged
from PIL import Image

from msrf_monai.clinical import LoadClinicalImaged
from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.predictor_frames import frame_affine, make_loader
from msrf_monai.clinical.predictor_reading import FrameGate
from msrf_monai.clinical.reading import open_case, open_series
from msrf_monai.transforms import LoadImage2Dd
from support.dicom_files import as_bytes, image_dataset, pattern
from support.predictor_bundles import picture
from support.volume_files import save_dicom_series, save_nifti, scan_values


def given(loader, case, index=0, channels=None):
    frames = make_loader(loader, None, channels)
    return frames.load(case, index, frames.picture(case, case.frame(index)))


def assert_same_image(found, expected, keys):
    assert isinstance(found, MetaTensor)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=0, atol=0)
    torch.testing.assert_close(torch.as_tensor(found.affine), torch.as_tensor(expected.affine))
    for key in keys:
        np.testing.assert_array_equal(found.meta[key], expected.meta[key], err_msg=key)


@pytest.fixture(params=["colour", "grey", "deep", "palette", "binary"])
def path(request, tmp_path):
    rgb = picture(21, 34)
    made = {
        "colour": Image.fromarray(rgb),
        "grey": Image.fromarray(rgb[..., 0]),
        "deep": Image.fromarray(rgb[..., 0].astype(np.uint16) * 200),
        "palette": Image.fromarray(rgb).quantize(16),
        "binary": Image.fromarray(rgb[..., 0] > 90),
    }
    file = tmp_path / f"{request.param}.png"
    made[request.param].save(file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("intensity", ["full_range", "minmax"])
def test_own_loader(path, channels, intensity):
    loader = LoadImage2Dd("image", channels=channels, intensity=intensity)

    found, expected = given(loader, open_case(path))["image"], loader({"image": str(path)})["image"]

    assert_same_image(found, expected, ("filename_or_obj", "spatial_shape", "original_channel_dim"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["colour", "grey"])
@pytest.mark.parametrize("options", [{}, {"ensure_channel_first": True}, {"image_only": False}, {"dtype": None}])
def test_loader_of_monai(tmp_path, name, options):
    path = tmp_path / "a.png"
    Image.fromarray(picture(21, 34) if name == "colour" else picture(21, 34)[..., 0]).save(path)
    loader = LoadImaged("image", **options)

    found, expected = given(loader, open_case(path)), loader({"image": str(path)})

    assert set(found) == set(expected)
    assert_same_image(found["image"], expected["image"], ("filename_or_obj", "spatial_shape", "original_channel_dim"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_clinical_loader(path):
    loader = LoadClinicalImaged("image", image_only=False)

    found, expected = given(loader, open_case(path)), loader({"image": str(path)})

    assert set(found) == set(expected) == {"image", "image_meta_dict"}
    assert_same_image(found["image"], expected["image"], ("spatial_shape", "original_channel_dim", "modality"))
    assert found["image"].meta.get("white") == expected["image"].meta.get("white")


def test_place_of_a_slice_is_that_of_monais_dicom_reader(tmp_path):
    tilt = [0.8, 0.6, 0, 0, 0, -1]
    dataset = image_dataset(pattern(6, 8), PixelSpacing=["0.75", "0.5"], Modality="CT", InstanceNumber=1)
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = tilt, [-10, 20, 30]
    (tmp_path / "a.dcm").write_bytes(as_bytes(dataset))

    reader = PydicomReader()
    _, meta = reader.get_data(reader.read(str(tmp_path / "a.dcm")))

    np.testing.assert_allclose(frame_affine(open_case(tmp_path / "a.dcm").info, 0), meta["affine"])


def test_place_of_each_slice_of_a_volume(tmp_path):
    (case,) = open_series(sorted(save_dicom_series(tmp_path / "ct", scan_values()).iterdir())).cases

    corners = [frame_affine(case.info, index)[:3, 3].tolist() for index in range(4)]

    assert corners == [[10, 20, 3.0 * index] for index in range(4)]


def test_slices_of_nifti_lie_where_its_matrix_says(tmp_path):
    matrix = np.array([[0, -0.5, 0, 7], [0.75, 0, 0.2, -3], [0, 0, 3, 11], [0, 0, 0, 1]])
    path = save_nifti(tmp_path / "a.nii", scan_values(), matrix)
    reader = NibabelReader()
    volume, _ = reader.get_data(reader.read(str(path)))
    case = open_case(path)

    found = given(LoadImaged("image", reader="NibabelReader"), case, 2)["image"]

    np.testing.assert_array_equal(found.numpy(), volume[:, :, 2])
    np.testing.assert_allclose(frame_affine(case.info, 2) @ [1, 4, 0, 1], matrix @ [1, 4, 2, 1])


def test_a_picture_without_a_place_has_none(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")

    assert frame_affine(open_case(tmp_path / "a.png").info, 0) is None


@pytest.mark.parametrize(("stored", "channels"), [("grey", 3), ("colour", 1), ("colour", None)])
def test_channels_that_the_network_takes(tmp_path, stored, channels):
    rgb = picture(21, 34)
    Image.fromarray(rgb if stored == "colour" else rgb[..., 0]).save(tmp_path / "a.png")
    loader = LoadImaged("image", ensure_channel_first=True)

    image = given(loader, open_case(tmp_path / "a.png"), channels=channels)["image"].as_tensor()

    wanted = {
        ("grey", 3): np.stack([rgb[..., 0]] * 3),
        ("colour", 1): np.array(Image.fromarray(rgb).convert("L"))[None],
        ("colour", None): rgb.transpose(2, 0, 1),
    }[stored, channels]
    np.testing.assert_array_equal(image.numpy(), wanted.transpose(0, 2, 1))


def test_frames_of_one_file_are_decoded_one_at_a_time():

    inside, most, together = [0], [0], threading.Barrier(2, timeout=60)

    class Frames:
        def frame(self, index):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            if index >= 100:
                together.wait()  # passes only when two threads are in here
            inside[0] -= 1
            return np.zeros((2, 3), np.uint8)

    gate = FrameGate()
    clip = Case("1", (), ImageInfo("dicom", 2, 3, frames=50), Frames())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: gate.frame(clip, index), range(50)))
    assert most[0] == 1

    volume = Case("2", (), ImageInfo("dicom-volume", 2, 3, frames=200), Frames())
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda index: gate.frame(volume, index), (100, 101)))) == 2
