"""Saved masks, probability maps and overlays, read back by other libraries; and names that never meet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.folder_layout import FolderLayout
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import SaveImage
from monai.transforms.io.dictionary import SaveImaged
from PIL import Image

from msrf_monai.errors import ConfigError, InputError, StorageError
from msrf_monai.transforms import (
    LoadImage2D,
    LoadMask2D,
    SafeFolderLayout,
    SaveMask,
    SaveMaskd,
    SaveOverlayd,
    SaveProbabilityd,
    draw_overlay,
    to_planes,
)

HEIGHT, WIDTH = 21, 34


def mask() -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[3:9, 5:20] = 1
    return pixels


def tracked(pixels: np.ndarray, source: Path | str) -> MetaTensor:
    meta = {"filename_or_obj": str(source), "spatial_shape": np.asarray([WIDTH, HEIGHT])}
    return MetaTensor(to_planes(pixels), meta=meta)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return path


def read(path: str) -> np.ndarray:
    if path.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.load(path).dataobj).T
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("extension", [".png", "tif", ".TIFF", ".nii", ".nii.gz"])
def test_mask_is_saved_as_zero_and_255_in_the_sources_geometry(tmp_path: Path, extension: str) -> None:
    source = touch(tmp_path / "in" / "case.png")
    saver = SaveMaskd("pred", tmp_path / "out", output_ext=extension, data_root_dir=tmp_path / "in")

    saved = saver({"pred": tracked(mask(), source)})["pred"].meta["saved_to"]

    assert Path(saved).name == f"case_seg.{extension.lower().lstrip('.')}"
    found = read(saved)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mask() * 255)


def test_saved_png_equals_monais_saveimage_and_loads_back(tmp_path: Path) -> None:
    source = touch(tmp_path / "in" / "case.jpg")
    SaveImage(tmp_path / "monai", output_ext=".png", scale=255, separate_folder=False, print_log=False)(
        tracked(mask(), source)
    )
    saved = SaveMask(tmp_path / "out", data_root_dir=tmp_path / "in")(tracked(mask(), source)).meta["saved_to"]

    np.testing.assert_array_equal(read(saved), read(str(tmp_path / "monai" / "case_trans.png")))
    assert torch.equal(LoadMask2D()(saved).as_tensor(), to_planes(mask()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_masks_of_other_types_are_saved_alike(tmp_path: Path, dtype: torch.dtype) -> None:
    SaveMask()(to_planes(mask()).to(dtype), {}, tmp_path / "m")

    np.testing.assert_array_equal(read(str(tmp_path / "m.png")), mask() * 255)


def test_class_numbers_are_saved_with_scale_one(tmp_path: Path) -> None:
    SaveMask(scale=1)(to_planes(mask() * 3), None, tmp_path / "m")

    np.testing.assert_array_equal(read(str(tmp_path / "m.png")), mask() * 3)


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (torch.full((1, 4, 5), 2), "0 to 1 with scale=255, this one holds up to 2"),
        (torch.full((1, 4, 5), 0.4), "whole numbers"),
        (torch.full((1, 4, 5), -1), "whole numbers"),
        (torch.zeros(2, 4, 5), "one plane"),
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_written(tmp_path: Path, img: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SaveMask()(img, {}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_mask_of_another_size_than_its_source_is_refused(tmp_path: Path) -> None:
    pred = tracked(mask()[::2, ::2].copy(), "case.png")

    with pytest.raises(InputError, match="17 x 11 pixels and its image file 34 x 21; put Invertd or RestoreSized"):
        SaveMaskd("pred", tmp_path)({"pred": pred})


def test_patches_may_have_their_own_size(tmp_path: Path) -> None:
    pred = tracked(mask()[::2, ::2].copy(), "case.png")
    pred.meta["patch_index"] = 4

    assert "_seg_4.png" in SaveMaskd("pred", tmp_path)({"pred": pred})["pred"].meta["saved_to"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SaveMaskd("pred", scale=0),
        lambda: SaveMaskd("pred", output_ext=".bmp"),
        lambda: SaveProbabilityd("pred", output_ext=".jpg"),
        lambda: SaveOverlayd("pred", opacity=1.5),
        lambda: SaveMaskd("pred").set_options({}),
    ],
)
def test_wrong_options_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_savers_are_saveimaged_and_make_no_folder_before_they_save(tmp_path: Path) -> None:
    savers = [kind("pred", tmp_path / "out") for kind in (SaveMaskd, SaveProbabilityd, SaveOverlayd)]

    assert all(isinstance(saver, SaveImaged) for saver in savers)
    assert not (tmp_path / "out").exists()


def test_saver_can_be_disabled_in_a_config() -> None:
    config = {"save": {"_target_": "msrf_monai.transforms.SaveMaskd", "_disabled_": True, "keys": "pred"}}

    assert ConfigParser(config).get_parsed_content("save") is None


def test_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageError, match="No space left"):
        SaveMask()(to_planes(mask()), {}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_metadata_comes_from_the_meta_dict_or_the_image(tmp_path: Path) -> None:
    source = touch(tmp_path / "in" / "case.png")
    saver = SaveMaskd("pred", tmp_path / "out", data_root_dir=tmp_path / "in")
    image = tracked(np.zeros((HEIGHT, WIDTH), np.uint8), source)

    saver({"pred": to_planes(mask()), "image": image})
    first = sorted(path.name for path in (tmp_path / "out").iterdir())
    saver({"pred": MetaTensor(to_planes(mask())), "image": image})
    saver({"pred": to_planes(mask()), "pred_meta_dict": {"filename_or_obj": str(tmp_path / "in" / "other.png")}})

    assert first == ["case_seg.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case_seg.png", "other_seg.png"]


def test_results_without_any_source_are_numbered(tmp_path: Path) -> None:
    layout = FolderLayout(tmp_path, extension=".png")
    saver = SaveMask(folder_layout=layout)

    for _ in range(2):
        saver(to_planes(mask()))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00001.png"]


# -- probability maps and overlays -----------------------------------------------------------------------------------


def probability() -> np.ndarray:
    return np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("extension", "scale", "tolerance"), [(".png", 65535, 0.5 / 65535), (".tif", 1, 0), (".nii.gz", 1, 0)]
)
def test_probability_is_saved_with_its_documented_scale(
    tmp_path: Path, extension: str, scale: float, tolerance: float
) -> None:
    saver = SaveProbabilityd("pred", tmp_path / "out", output_ext=extension, data_root_dir=tmp_path)

    saved = saver({"pred": tracked(probability(), tmp_path / "case.png")})["pred"].meta["saved_to"]

    assert Path(saved).name == f"case_prob{extension}"
    np.testing.assert_allclose(read(saved) / scale, probability(), rtol=0, atol=tolerance + 1e-7)


def test_the_plane_of_the_probability_can_be_chosen(tmp_path: Path) -> None:
    planes = tracked(np.dstack([probability(), 1 - probability()]), tmp_path / "case.png")

    for channel, expected in ((-1, 1 - probability()), (0, probability())):
        saver = SaveProbabilityd("pred", tmp_path / str(channel), output_ext=".tif", channel=channel)
        np.testing.assert_array_equal(read(saver({"pred": planes})["pred"].meta["saved_to"]), expected)
    with pytest.raises(InputError, match="plane 2"):
        SaveProbabilityd("pred", tmp_path, channel=2)({"pred": planes})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_that_are_no_probability_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        SaveProbabilityd("pred", tmp_path)({"pred": tracked(probability() * 0 + value, "a.png")})


def test_overlay_tints_the_inside_outlines_it_and_leaves_the_rest() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    region = np.zeros((40, 60), np.uint8)
    region[10:30, 20:50] = 1

    drawn = draw_overlay(image, region, opacity=0.5, colours=[(200, 0, 100)], thickness=1)

    assert drawn[20, 35].tolist() == [150, 50, 100]
    assert drawn[10, 30].tolist() == drawn[29, 49].tolist() == [200, 0, 100]
    outside = region == 0
    assert (drawn[outside] == 100).all()
    assert (image == 100).all()


def test_overlay_colours_classes_differently() -> None:
    region = np.zeros((40, 60), np.uint8)
    region[5:15, 5:15], region[25:35, 25:35] = 1, 2

    drawn = draw_overlay(np.zeros((40, 60, 3), np.uint8), region, opacity=1)

    assert drawn[10, 10].tolist() != drawn[30, 30].tolist()


def test_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 5\).*\(5, 4\)"):
        draw_overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8))


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_overlay_is_drawn_on_the_source_file(tmp_path: Path, extension: str) -> None:
    source = tmp_path / "case.png"
    pixels = np.random.default_rng(0).integers(0, 65535, (HEIGHT, WIDTH)).astype(np.uint16)
    Image.fromarray(pixels).save(source)
    image = np.rint(LoadImage2D()(source)[0].numpy().T)

    saved = SaveOverlayd("pred", tmp_path / "out", output_ext=extension)({"pred": tracked(mask(), source)})

    drawn = read(saved["pred"].meta["saved_to"])
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    if extension == ".png":
        np.testing.assert_array_equal(drawn[15:, :, 1], image[15:])
        assert (drawn[3, 5:20] == drawn[3, 5]).all()


def test_overlay_needs_one_plane_and_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one plane"):
        SaveOverlayd("pred", tmp_path)({"pred": torch.zeros(2, 4, 4)})
    with pytest.raises(InputError, match="does not name its image file"):
        SaveOverlayd("pred", tmp_path)({"pred": torch.zeros(1, 4, 4)})


# -- names -----------------------------------------------------------------------------------------------------------


def test_sub_folders_of_the_root_are_kept(tmp_path: Path) -> None:
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path / "in")

    names = {layout.filename(touch(tmp_path / "in" / folder / "case.png")) for folder in ("a", "b", "a/b")}

    assert names == {str(tmp_path / "out" / folder / "case_seg.png") for folder in ("a", "b", "a/b")}


def test_same_stems_in_one_folder_get_different_names(tmp_path: Path) -> None:
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path)
    sources = [touch(tmp_path / name) for name in ("case.png", "case.jpg", "case.JPG", "case_jpg.png", "case.v2.png")]

    names = [Path(layout.filename(source)).name for source in sources]

    assert len(set(names)) == len(sources)
    assert names[3:] == ["case_jpg_seg.png", "case.v2_seg.png"]


def test_files_of_different_folders_without_a_root_get_different_names(tmp_path: Path) -> None:
    layout = SafeFolderLayout(tmp_path / "out", "seg")

    names = [Path(layout.filename(touch(tmp_path / folder / "case.png"))).name for folder in ("a", "b", "a")]

    assert names[0] != names[1]
    assert names[0] == names[2]
    assert names[0].startswith("case-")


def test_a_source_outside_the_root_stays_inside_the_output(tmp_path: Path) -> None:
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path / "in")

    name = Path(layout.filename(tmp_path / "in" / ".." / "elsewhere" / "case.png"))

    assert name.parent == tmp_path / "out"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a:b.png", "a?b.png"),
        ("a:b.png", "a_b.png"),
        ("x" * 150 + "1.png", "x" * 150 + "2.png"),
        ("...png", "_.png"),
        ("d:1/case.png", "d_1/case.png"),
        ("\n.png", "\t.png"),
    ],
)
def test_cleaned_names_do_not_meet(tmp_path: Path, first: str, second: str) -> None:
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path / "in")

    names = [Path(layout.filename(tmp_path / "in" / name)) for name in (first, second)]

    assert names[0] != names[1]
    for name in names:
        assert name.is_relative_to(tmp_path / "out")
        assert len(name.name) < 200
        assert not set(name.name) & set(':?*<>|"\n\t\\')


def test_names_in_other_scripts_are_kept(tmp_path: Path) -> None:
    name = SafeFolderLayout(tmp_path, "seg", data_root_dir="/data").filename("/data/患者 7/Größe.nii.gz")

    assert name == str(tmp_path / "患者 7" / "Größe_seg.png")


def test_a_folder_for_each_result_and_further_keys(tmp_path: Path) -> None:
    layout = SafeFolderLayout(tmp_path, "seg", ".nii.gz", data_root_dir="/data", parent=True)

    assert layout.filename("/data/case.png", idx=3, fold=1) == str(tmp_path / "case" / "case_seg_3_fold-1.nii.gz")


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = touch(tmp_path / "case.png")

    with pytest.raises(StorageError, match="is the source file itself"):
        SafeFolderLayout(tmp_path, "", data_root_dir=tmp_path).filename(source)


def test_a_link_out_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path / "in")

    with pytest.raises(StorageError, match="through a link"):
        layout.filename(tmp_path / "in" / "a" / "case.png")
