"""What the predictor gives is what ``monai.bundle run`` writes, bit for bit; nothing is written by predicting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.reading import open_case, open_series
from support.predictor_bundles import OURS, gap_threshold, picture, save_case
from support.volume_files import save_dicom_series, scan_values


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem.removesuffix("_seg"): np.array(Image.open(path)) for path in sorted(folder.glob("*_seg.png"))}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "higmis" else ()) for name in sorted(OURS)]
)
def test_png_gives_the_mask_file_of_the_bundle(tiny, pictures, tmp_path, name):
    bundle = tiny(name)
    quiet = (("save_measures", False),) if name == "imff" else ()
    probe = bundle.predictor().predict(open_case(pictures / "colour.png"))
    threshold = gap_threshold(probe.probabilities)

    predictor = bundle.predictor(threshold=threshold)
    found = {path.stem: predictor.predict(open_case(path)).mask for path in sorted(pictures.iterdir())}
    written = masks_of(bundle.evaluate(pictures, tmp_path / "out", ("threshold", threshold), *quiet))

    assert sorted(written) == sorted(found) == ["colour", "deep", "grey"]
    for stem, mask in found.items():
        np.testing.assert_array_equal(mask[0] * 255, written[stem], err_msg=stem)
    assert 0.05 < found["colour"].mean() < 0.95


@pytest.mark.parametrize("planes", [1, 2, 3])
def test_stock_bundle_gives_the_mask_file_that_monai_writes(stock, tmp_path, planes):
    bundle = stock(planes=planes)
    images = tmp_path / "rgb"
    images.mkdir()
    for index, size in enumerate([(47, 61), (38, 71)]):
        Image.fromarray(picture(*size, seed=index)).save(images / f"p{index}.png")

    written = masks_of(bundle.evaluate(images, tmp_path / "out"))
    predictor = bundle.predictor()

    for index in range(2):
        mask = predictor.predict(open_case(images / f"p{index}.png")).mask[0]
        np.testing.assert_array_equal(mask, written[f"p{index}"])
        assert len(np.unique(mask)) > 1


def test_slices_of_a_volume_are_what_monai_makes_of_their_files(stock, tmp_path):
    def scaled_in_hounsfield(config):
        config["preprocessing"]["transforms"][2] = {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": -200,
            "a_max": 300,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        }

    bundle = stock(channels=1, planes=1, change=scaled_in_hounsfield)
    folder = save_dicom_series(tmp_path / "ct", scan_values(shape=(34, 27, 4)))
    (case,) = open_series(sorted(folder.iterdir())).cases
    threshold = gap_threshold(bundle.predictor().predict(case).probabilities)

    prediction = bundle.predictor(threshold=threshold).predict(case)
    written = masks_of(
        bundle.evaluate(folder, tmp_path / "out", ("postprocessing::transforms::2::threshold", threshold))
    )

    assert prediction.mask.shape == (4, 27, 34)
    for mask, source in zip(prediction.mask, case.sources, strict=True):
        np.testing.assert_array_equal(mask, written[source.stem])
    assert 0.05 < prediction.mask.mean() < 0.95


def test_nothing_is_written(stock, tmp_path):
    bundle = stock()

    bundle.predictor().predict(save_case(tmp_path / "a.png", picture()))

    assert sorted(path.name for path in bundle.bundle.iterdir()) == ["configs", "models"]
