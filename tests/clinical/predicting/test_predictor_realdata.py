"""The shipped weights on a real photograph, and real DICOM samples of every kind."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.predictor import Predictor, PredictorOptions
from msrf_monai.clinical.reading import open_case, open_folder
from support.predictor_bundles import ROOT, Tiny

VESSELS = ROOT / "imff_net_retinal_vessel_segmentation"


@pytest.mark.realdata
@pytest.mark.slow
def test_shipped_weights_find_the_vessels_of_a_photograph(data_root, tmp_path):
    image = sorted((data_root / "CHASE_DB1" / "images").iterdir())[-1]
    label = next(path for path in (data_root / "CHASE_DB1" / "masks").iterdir() if path.name.startswith(image.stem))
    truth = np.array(Image.open(label).convert("L")) > 127
    predictor = Predictor.from_bundle(VESSELS, PredictorOptions(device="cpu", keep_probabilities=True))

    prediction = predictor.predict(open_case(image))

    mask = prediction.mask[0] > 0
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert mask.shape == truth.shape
    assert dice > 0.75
    sure = np.abs(prediction.probabilities[0, 0] - predictor.threshold) > 1e-3  # float16 rounds
    np.testing.assert_array_equal(mask[sure], (prediction.probabilities[0, 0] >= predictor.threshold)[sure])
    bundle = Tiny(VESSELS, (), VESSELS / "models" / "model.pt")
    (tmp_path / "images").mkdir()
    shutil.copy(image, tmp_path / "images")
    bundle.evaluate(tmp_path / "images", tmp_path / "out", ("save_measures", False))
    written = np.array(Image.open(tmp_path / "out" / f"{image.stem}_seg.png"))
    np.testing.assert_array_equal(mask, written > 0)
    assert [segment.label for segment in predictor.segments] == ["vessel"]


@pytest.mark.realdata
def test_every_sample_of_dicom_is_predicted_on_its_own_grid(data_root, tiny):
    predictor = tiny("msrf").predictor()
    samples = data_root / "dicom_samples"
    cases = [open_case(path) for path in sorted(samples.glob("*.dcm"))]
    cases += [case for name in ("ct_series", "mr_oblique") for case in open_folder(samples / name).cases]

    for case in cases:
        prediction = predictor.predict(case)
        assert prediction.mask.shape == (case.info.frames, case.info.rows, case.info.columns)
        assert np.isfinite(prediction.probabilities).all()
    assert len(cases) >= 12
