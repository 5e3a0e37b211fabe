"""Whole slides among other inputs: told by content, one input for each slide, masks on the slide's own pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.ledger import Entry, read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.preview import preview
from msrf_monai.clinical.slide_writer import WindowNetwork, tile_options
from msrf_monai.errors import ConfigError, InputError
from support.clinical_runs import ThresholdPredictor, result_bytes, save_picture

tifffile = pytest.importorskip("tifffile", reason="pip install 'msrf-monai[slides]' brings it")
pytest.importorskip("imagecodecs", reason="pip install 'msrf-monai[slides]' brings it")

from support.slide_files import halved, stained, write_tiff, write_wsi  # noqa: E402


class TissuePredictor(ThresholdPredictor):
    """Marks what is less green than glass; the answer for a pixel depends on nothing but that pixel."""

    metadata = {"slide_tiles": {"tile": [64, 80], "batch": 2}}  # noqa: RUF012

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        pixels = case.frame(index)
        return {"green": pixels if pixels.ndim == 2 else pixels[..., 1]}

    def infer(self, item: dict[Any, Any]) -> dict[Any, Any]:
        return {"mask": (item["green"] < 150).astype(np.uint8)}

    def finish(self, items: Iterable[dict[Any, Any]]) -> Prediction:
        masks = np.stack([item["mask"] for item in items])
        return Prediction(masks, masks[:, None].astype(np.float16), (0.9,) * len(masks), 0.0)


def only_entry(output: Path) -> Entry:
    (entry,) = read_manifest(output).entries
    return entry


def test_a_pyramid_is_one_input_with_a_mask_on_its_own_pixels(tmp_path: Path) -> None:
    picture = stained(150, 210)
    write_tiff(tmp_path / "slide.tif", picture)

    found = predict(TissuePredictor(), tmp_path / "slide.tif", tmp_path / "out", report=False)

    entry = only_entry(tmp_path / "out")
    assert (found.done, entry.input, entry.state) == (1, "slide.tif", "done")
    assert [output.kind for output in entry.outputs] == ["mask", "areas"]
    mask = tifffile.imread(tmp_path / "out" / entry.outputs[0].path)
    assert np.array_equal(mask, picture[..., 1] < 150)
    areas = json.loads((tmp_path / "out" / entry.outputs[1].path).read_text())
    assert areas["segments"][0]["pixels"] == np.count_nonzero(picture[..., 1] < 150)


def test_a_dicom_slide_gets_a_segmentation_and_its_files_are_one_input(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="pip install 'msrf-monai[clinical]' brings it")
    picture = stained(150, 210)
    (tmp_path / "in").mkdir()
    write_wsi(tmp_path / "in" / "a.dcm", picture, kind="raw")
    write_wsi(tmp_path / "in" / "b.dcm", halved(picture), kind="raw", number=1, mpp=1.0)
    save_picture(tmp_path / "in" / "photo.png")

    planned = preview([tmp_path / "in"], tmp_path / "out")
    found = predict(TissuePredictor(), tmp_path / "in", tmp_path / "out", report=False)

    assert [each.kind for each in planned] == ["raster", "slide"]
    assert (found.done, found.failed) == (2, 0)
    (entry,) = [entry for entry in read_manifest(tmp_path / "out").entries if entry.input != "photo.png"]
    assert entry.input.startswith("dicom-")
    assert [output.kind for output in entry.outputs] == ["mask", "seg", "areas"]
    assert np.array_equal(tifffile.imread(tmp_path / "out" / entry.outputs[0].path), picture[..., 1] < 150)


def test_a_slide_that_is_done_stays_and_one_that_is_damaged_is_done_again(tmp_path: Path) -> None:
    write_tiff(tmp_path / "slide.tif", stained(150, 210))
    predict(TissuePredictor(), tmp_path / "slide.tif", tmp_path / "out", report=False)
    before = result_bytes(tmp_path / "out")

    kept = predict(TissuePredictor(), tmp_path / "slide.tif", tmp_path / "out", resume=True, report=False)
    (tmp_path / "out" / only_entry(tmp_path / "out").outputs[0].path).write_bytes(b"damaged")
    again = predict(TissuePredictor(), tmp_path / "slide.tif", tmp_path / "out", resume=True, report=False)

    assert (kept.kept, again.kept, again.done) == (1, 0, 1)
    assert result_bytes(tmp_path / "out") == before


def test_a_slide_that_fails_leaves_nothing_and_stops_nothing(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", stained(150, 210))
    save_picture(tmp_path / "photo.png")

    found = predict(ThresholdPredictor(), [tmp_path / "in.tif", tmp_path / "photo.png"], tmp_path / "out", report=False)

    assert (found.done, found.failed) == (1, 1)
    assert not list((tmp_path / "out").glob("in-*"))
    assert not list((tmp_path / "out").glob(".part*"))


def test_a_tiled_picture_without_levels_is_a_picture(tmp_path: Path) -> None:
    write_tiff(tmp_path / "photo.tif", stained(150, 210), levels=1)

    assert [each.kind for each in preview([tmp_path / "photo.tif"], tmp_path / "out")] == ["raster"]


def test_glass_alone_is_flagged_and_outputs_that_slides_cannot_have_are_said(tmp_path: Path) -> None:
    write_tiff(tmp_path / "glass.tif", np.full((150, 210, 3), 246, np.uint8))

    predict(TissuePredictor(), tmp_path / "glass.tif", tmp_path / "out", outputs=("mask", "sr"), report=False)

    assert set(only_entry(tmp_path / "out").flags) >= {"empty_mask", "not_written:sr"}


def test_how_slides_are_cut_is_the_bundles_choice() -> None:
    assert tile_options({}, 0.3).tile == (512, 512)
    assert tile_options({}, 0.3).threshold == 0.3
    assert tile_options({"slide_tiles": {"tile": [64, 96], "mpp": 0.5}}, None).mpp == 0.5
    with pytest.raises(ConfigError, match=r"slide_tiles in metadata\.json may hold"):
        tile_options({"slide_tiles": {"size": 3}}, None)


def test_windows_need_probabilities() -> None:
    class Hard(TissuePredictor):
        def finish(self, items: Iterable[dict[Any, Any]]) -> Prediction:
            return ThresholdPredictor.finish(self, items)

    windows = stained(64, 80)[None]

    assert WindowNetwork(TissuePredictor())(windows).shape == (1, 1, 64, 80)
    with pytest.raises(InputError, match="keeps no probabilities"):
        WindowNetwork(Hard())(windows)


@pytest.mark.parametrize("source_list", [True, False], ids=["with-list", "without-list"])
def test_a_level_that_comes_again_alone_leaves_the_result_of_its_slide(tmp_path: Path, source_list: bool) -> None:
    picture = stained(150, 210)
    (tmp_path / "in").mkdir()
    write_wsi(tmp_path / "in" / "a.dcm", picture, kind="raw")
    write_wsi(tmp_path / "in" / "b.dcm", halved(picture), kind="raw", number=1, mpp=1.0)
    options: dict[str, Any] = {"outputs": ("mask",), "report": False, "source_list": source_list}
    predict(TissuePredictor(), tmp_path / "in", tmp_path / "out", **options)
    before, whole = result_bytes(tmp_path / "out"), only_entry(tmp_path / "out")

    (tmp_path / "in" / "a.dcm").unlink()
    part = predict(TissuePredictor(), tmp_path / "in", tmp_path / "out", resume=True, **options)

    assert (part.done, part.kept) == (1, 0)
    found = {entry.folder: entry for entry in read_manifest(tmp_path / "out").entries}
    assert found.pop(whole.folder) == whole
    assert before.items() <= result_bytes(tmp_path / "out").items()
    (small,) = found.values()
    mask = tifffile.imread(tmp_path / "out" / small.outputs[0].path)
    assert np.array_equal(mask, halved(picture)[..., 1] < 150)


def test_a_slide_that_comes_in_two_deliveries_ends_as_one_result(tmp_path: Path) -> None:
    picture = stained(150, 210)
    (tmp_path / "in").mkdir()
    options: dict[str, Any] = {"outputs": ("mask",), "report": False}
    write_wsi(tmp_path / "in" / "b.dcm", halved(picture), kind="raw", number=1, mpp=1.0)
    predict(TissuePredictor(), tmp_path / "in", tmp_path / "out", **options)
    first = only_entry(tmp_path / "out")

    write_wsi(tmp_path / "in" / "a.dcm", picture, kind="raw")
    predict(TissuePredictor(), tmp_path / "in", tmp_path / "out", resume=True, **options)

    found = {entry.folder: entry for entry in read_manifest(tmp_path / "out").entries}
    assert found.pop(first.folder).code == "superseded"
    (whole,) = found.values()
    assert whole.state == "done"
    assert np.array_equal(tifffile.imread(tmp_path / "out" / whole.outputs[0].path), picture[..., 1] < 150)
