"""Chains of any bundle: where the mask is decided, what scores mean, how results come back onto the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msrf_monai.clinical.predictor_decision import ScoreMeaning, class_rows
from msrf_monai.errors import ConfigError
from support.predictor_bundles import gap_threshold, picture, save_case


@pytest.fixture
def case(tmp_path):
    return save_case(tmp_path / "case.png", picture())


def without_inversion(config):
    del config["postprocessing"]["transforms"][1]


def inverted_last(config):
    steps = config["postprocessing"]["transforms"]
    steps[1], steps[2] = steps[2], steps[1]
    steps[2]["nearest_interp"] = True


def without_activation(config):
    del config["postprocessing"]["transforms"][0]


def test_a_chain_that_forgets_the_way_back_is_given_one(stock, case):
    given, forgetful = (stock(change=change).predictor().predict(case) for change in (None, without_inversion))

    assert forgetful.mask.shape == (1, 47, 61)
    np.testing.assert_array_equal(given.mask, forgetful.mask)
    np.testing.assert_array_equal(given.probabilities, forgetful.probabilities)


def test_masks_inverted_after_the_decision_bring_their_probabilities_along(stock, case):
    prediction = stock(change=inverted_last).predictor().predict(case)

    assert prediction.probabilities.shape == (1, 1, 47, 61)
    sure = np.abs(prediction.probabilities[:, 0] - np.float16(0.5)) > 1e-3
    np.testing.assert_array_equal(prediction.mask[sure], (prediction.probabilities[:, 0] > 0.5)[sure])


def test_a_choice_among_logits_gives_the_probabilities_of_a_softmax(stock, case):
    def straight(config):
        config["preprocessing"]["transforms"].pop(3)
        without_activation(config)
        config["postprocessing"]["transforms"].pop(0)

    def active(config):
        config["preprocessing"]["transforms"].pop(3)
        config["postprocessing"]["transforms"].pop(1)

    logits, activated = (stock(planes=3, change=change).predictor().predict(case) for change in (straight, active))

    np.testing.assert_array_equal(logits.mask, activated.mask)
    np.testing.assert_array_equal(logits.probabilities, activated.probabilities)
    assert logits.confidence == activated.confidence
    assert logits.probabilities.shape == (1, 2, 47, 61)


def test_overlapping_classes_go_to_the_more_probable_one(stock, case):
    def overlapping(config):
        config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
        config["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.45}

    def named(metadata):
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "liver", "1": "vein", "2": "lesion"}

    bundle = stock(planes=3, change=overlapping, describe=named)
    threshold = gap_threshold(bundle.predictor().predict(case).probabilities.max(axis=1))
    prediction = bundle.predictor(threshold=threshold).predict(case)

    p = prediction.probabilities[0].astype(np.float64)
    expected = np.where(p.max(0) >= threshold, p.argmax(0) + 1, 0)
    top = np.sort(p, axis=0)
    sure = (np.abs(top[-1] - threshold) > 1e-3) & (top[-1] - top[-2] > 1e-3)
    assert prediction.probabilities.shape == (1, 3, 47, 61)
    np.testing.assert_array_equal(prediction.mask[0][sure], expected[sure])
    assert 0 in prediction.mask
    assert prediction.mask.any()


def test_one_hot_masks_become_class_numbers(stock, case):
    def one_hot(config):
        config["postprocessing"]["transforms"][2]["to_onehot"] = 3

    numbers, planes = (stock(planes=3, change=change).predictor().predict(case) for change in (None, one_hot))

    np.testing.assert_array_equal(numbers.mask, planes.mask)


def test_later_transforms_of_the_bundle_change_the_mask_only(stock, case):
    def cleaned(config):
        config["postprocessing"]["transforms"].insert(3, {"_target_": "FillHolesd", "keys": "pred"})
        config["postprocessing"]["transforms"].insert(
            4, {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}
        )

    plain, clean = (stock(change=change).predictor().predict(case) for change in (None, cleaned))

    np.testing.assert_array_equal(plain.probabilities, clean.probabilities)
    assert not np.array_equal(plain.mask, clean.mask)


def test_probabilities_of_a_bundle_are_used_as_they_are():
    scores = torch.rand(1, 5, 4)

    for units in ("unknown", "probabilities"):
        torch.testing.assert_close(ScoreMeaning(units, False).probabilities(scores), scores)
    torch.testing.assert_close(ScoreMeaning("logits", False).probabilities(scores), scores.sigmoid())
    torch.testing.assert_close(ScoreMeaning("unknown", False).probabilities(scores * 9), (scores * 9).sigmoid())


def test_one_plane_has_no_background_even_when_classes_exclude_each_other():
    scores = torch.rand(1, 5, 4)

    assert ScoreMeaning("probabilities", True).foreground(scores).shape == (1, 5, 4)
    assert ScoreMeaning("probabilities", True).foreground(torch.rand(3, 5, 4)).shape == (2, 5, 4)


def test_confidence_of_exclusive_classes_is_their_largest_probability():
    p = torch.softmax(torch.randn(3, 5, 4), 0)

    assert ScoreMeaning("probabilities", True).confidence(p) == pytest.approx(float(p.max(0).values.mean()))
    assert ScoreMeaning("probabilities", False).confidence(p) == pytest.approx(float(torch.maximum(p, 1 - p).mean()))


def test_masks_turn_from_columns_to_rows():
    planes = torch.zeros(1, 5, 3)
    planes[0, 4, 0] = 2

    mask = class_rows(planes, torch.rand(1, 5, 3), has_background=False, size=(3, 5))

    assert mask.shape == (3, 5)
    assert mask[0, 4] == 2


@pytest.mark.parametrize(
    ("decided", "words"),
    [
        (torch.zeros(1, 4, 4), "bring masks back"),
        (torch.full((1, 5, 3), 0.5), "other values than class numbers"),
        (torch.full((1, 5, 3), 300.0), "other values than class numbers"),
        (torch.full((1, 5, 3), float("nan")), "other values than class numbers"),
        (torch.full((1, 5, 3), 300), "other values than class numbers"),
    ],
)
def test_masks_that_are_none_are_an_error(decided, words):
    with pytest.raises(ConfigError, match=words):
        class_rows(decided, torch.rand(1, 5, 3), has_background=False, size=(3, 5))
