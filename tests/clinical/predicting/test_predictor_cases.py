"""Cases of every kind through the predictor: frames, volumes, polarity, channels, order and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.clinical.reading import open_case, open_series
from msrf_monai.errors import DataError, InputError
from support.dicom_files import as_bytes, image_dataset, pattern
from support.predictor_bundles import picture, save_case
from support.volume_files import save_dicom_series, scan_values


def save_dicom(path, dataset):
    path.write_bytes(as_bytes(dataset))
    return open_case(path)


def test_each_frame_of_a_clip_is_predicted_as_a_picture_of_its_own(tiny, tmp_path):
    predictor = tiny("msrf").predictor()
    frames = np.stack([picture(seed=number) for number in range(3)])

    clip = predictor.predict(save_dicom(tmp_path / "clip.dcm", image_dataset(frames)))

    assert clip.mask.shape == (3, 47, 61)
    assert clip.probabilities.shape == (3, 1, 47, 61)
    for number, frame in enumerate(frames):
        alone = predictor.predict(save_case(tmp_path / f"{number}.png", frame))
        np.testing.assert_array_equal(clip.mask[number], alone.mask[0])
        np.testing.assert_array_equal(clip.probabilities[number], alone.probabilities[0])
        assert clip.confidence[number] == alone.confidence[0]
    assert clip.seconds > 0


def test_a_volume_keeps_the_order_of_its_slices_and_one_scale(tiny, tmp_path):
    values = scan_values(shape=(34, 27, 4))
    values[:, :, 2] = values[:, :, 0]
    (case,) = open_series(sorted(save_dicom_series(tmp_path / "ct", values).iterdir())).cases

    prediction = tiny("ssr").predictor().predict(case)

    assert prediction.mask.shape == (4, 27, 34)
    # equal slices give equal results although their neighbours differ
    np.testing.assert_array_equal(prediction.probabilities[0], prediction.probabilities[2])
    assert not np.array_equal(prediction.probabilities[0], prediction.probabilities[1])


def test_monochrome1_is_predicted_as_its_positive(tiny, tmp_path):
    predictor = tiny("msrf").predictor()
    positive = pattern(31, 44)

    first = predictor.predict(save_dicom(tmp_path / "1.dcm", image_dataset(255 - positive, photometric="MONOCHROME1")))
    second = predictor.predict(save_dicom(tmp_path / "2.dcm", image_dataset(positive)))

    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_twelve_bits_are_scaled_by_the_files_white(tiny, tmp_path):
    predictor = tiny("msrf").predictor()
    values = pattern(31, 44, peak=4095, dtype=np.uint16)
    scaled = values.astype(np.float32) * np.float32(255 / 4095)

    stored = predictor.predict(save_dicom(tmp_path / "12.dcm", image_dataset(values, stored=12)))
    Image.fromarray(scaled, mode="F").save(tmp_path / "float.tif")
    floating = predictor.predict(open_case(tmp_path / "float.tif"))

    np.testing.assert_allclose(stored.probabilities, floating.probabilities, atol=1e-3)


def test_grey_feeds_three_channels_by_repetition(stock, tmp_path):
    predictor = stock(channels=3).predictor()
    grey = picture()[..., 1]

    from_grey = predictor.predict(save_case(tmp_path / "grey.png", grey))
    from_colour = predictor.predict(save_case(tmp_path / "rgb.png", np.stack([grey] * 3, axis=-1)))

    np.testing.assert_array_equal(from_grey.probabilities, from_colour.probabilities)


def test_colour_feeds_one_channel_by_its_luma(stock, tmp_path):
    predictor = stock(channels=1).predictor()

    from_colour = predictor.predict(save_case(tmp_path / "rgb.png", picture()))
    luma = np.array(Image.fromarray(picture()).convert("L"))
    from_grey = predictor.predict(save_case(tmp_path / "grey.png", luma))

    np.testing.assert_array_equal(from_colour.probabilities, from_grey.probabilities)


@pytest.mark.parametrize("name", ["imff", "ssr"])
def test_results_do_not_depend_on_what_was_predicted_before(tiny, tmp_path, name):
    cases = [save_case(tmp_path / f"{seed}.png", picture(40 + seed, 55, seed=seed)) for seed in range(3)]
    predictor = tiny(name).predictor()

    forth = [predictor.predict(case) for case in cases]
    back = [predictor.predict(case) for case in reversed(cases)][::-1]
    fresh = tiny(name).predictor().predict(cases[2])

    for one, other in [*zip(forth, back, strict=True), (forth[2], fresh)]:
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize("name", ["msrf", "imff"])
def test_frames_may_be_prepared_by_several_threads(tiny, tmp_path, name):
    predictor = tiny(name).predictor()
    cases = [save_case(tmp_path / f"{seed}.png", picture(40 + seed, 55, seed=seed)) for seed in range(12)]
    (volume,) = open_series(sorted(save_dicom_series(tmp_path / "ct", scan_values(shape=(34, 27, 6))).iterdir())).cases
    jobs = [(case, 0) for case in cases] + [(volume, index) for index in range(6)]

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda job: predictor.prepare(*job), jobs * 2))
    fresh = tiny(name).predictor()
    alone = [fresh.prepare(*job) for job in jobs] * 2

    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one["data"]["image"].as_tensor(), other["data"]["image"].as_tensor())


def test_field_of_view_is_found_and_nothing_outside_it_is_vessel(tiny, tmp_path):
    prediction = tiny("imff").predictor(threshold=0.01).predict(save_case(tmp_path / "a.png", picture()))

    assert prediction.mask[0].any()
    assert prediction.probabilities[0, 0, 0, -1] == 0  # a corner, outside the disc
    assert prediction.mask[0, 0, -1] == 0


def test_confidence_is_the_mean_certainty(tiny, tmp_path):
    prediction = tiny("ssr").predictor().predict(save_case(tmp_path / "a.png", picture()))

    p = prediction.probabilities[0, 0].astype(np.float64)
    assert prediction.confidence[0] == pytest.approx(np.maximum(p, 1 - p).mean(), abs=1e-3)


def test_without_probabilities_the_rest_is_the_same(tiny, tmp_path):
    case = save_case(tmp_path / "a.png", picture())
    kept, lean = (tiny("msrf").predictor(keep_probabilities=keep).predict(case) for keep in (True, False))

    assert lean.probabilities is None
    np.testing.assert_array_equal(kept.mask, lean.mask)
    assert kept.confidence == lean.confidence


def test_values_that_are_not_finite_are_an_error(tiny, tmp_path):
    values = np.ones((20, 30), np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values, mode="F").save(tmp_path / "nan.tif")

    with pytest.raises(DataError, match="NaN or infinite"):
        tiny("msrf").predictor().predict(open_case(tmp_path / "nan.tif"))


def test_a_chain_that_cannot_handle_an_image_says_which_transform(stock, tmp_path):
    def cropped_too_far(config):
        config["preprocessing"]["transforms"].insert(
            3, {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": [1, 2, 3, 4], "channel_wise": True}
        )

    bundle = stock(change=cropped_too_far)

    with pytest.raises(InputError, match="NormalizeIntensityd of the bundle's preprocessing") as caught:
        bundle.predictor().predict(save_case(tmp_path / "secret.png", picture()))
    assert "secret" not in str(caught.value)
