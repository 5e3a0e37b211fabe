"""Options of the predictor: threshold, mirror images, weights, overrides; and what cannot be predicted with."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from msrf_monai.bundle import build_network
from msrf_monai.clinical.predictor import Predictor, PredictorOptions
from msrf_monai.errors import CheckpointError, ConfigError
from support.predictor_bundles import picture, save_case


@pytest.fixture
def case(tmp_path):
    return save_case(tmp_path / "case.png", picture())


def list_weights(bundle, **entry):
    listed = {"path": "models/model.pt", "url": "", "hash_type": "sha256", **entry}
    lines = "".join(f'    {key}: "{value}"\n' for key, value in listed.items())
    (bundle.bundle / "large_files.yml").write_text("large_files:\n  -\n" + lines)


@pytest.mark.parametrize("threshold", [0.2, 0.55, 0.8])
def test_threshold_decides_the_probabilities(tiny, case, threshold):
    predictor = tiny("ssr").predictor(threshold=threshold)

    prediction = predictor.predict(case)

    sure = np.abs(prediction.probabilities[:, 0].astype(float) - threshold) > 1e-3  # float16 rounds
    np.testing.assert_array_equal(prediction.mask[sure], (prediction.probabilities[:, 0] >= threshold)[sure])
    assert predictor.threshold == threshold


def test_threshold_of_the_bundle_is_in_force_without_an_option(tiny):
    assert tiny("imff").predictor().threshold == 0.595
    assert tiny("imff").predictor(("threshold", 0.3)).threshold == 0.3


def test_threshold_turns_a_choice_of_two_classes_into_a_comparison(stock, case):
    bundle = stock(planes=2)
    plain, strict = bundle.predictor(), bundle.predictor(threshold=0.7)

    masks = plain.predict(case).mask.sum(), strict.predict(case).mask.sum()

    assert plain.threshold is None
    assert strict.threshold == 0.7
    assert masks[1] < masks[0]


def test_threshold_among_three_classes_is_an_error(stock):
    with pytest.raises(ConfigError, match="threshold has no meaning"):
        stock(planes=3).predictor(threshold=0.7)


@pytest.mark.parametrize("threshold", [0, 1, -2])
def test_threshold_outside_its_range_is_an_error(tiny, threshold):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        tiny("msrf").predictor(threshold=threshold)


def test_mirror_images_are_averaged_before_the_sigmoid(stock, case):
    def one_window(config):
        config["inferer"] = {"_target_": "SimpleInferer"}

    bundle = stock(planes=1, change=one_window)
    predictor = bundle.predictor(tta=True)
    network = build_network(bundle.bundle)
    network.load_state_dict(torch.load(bundle.weights))
    item = predictor.prepare(case, 0)
    image = item["data"]["image"].as_tensor()[None]

    scores = predictor.infer(item)["data"]["pred"].as_tensor()

    with torch.no_grad():
        passes = [torch.flip(network(torch.flip(image, axes)), axes) for axes in ((), (2,), (3,), (2, 3))]
    torch.testing.assert_close(scores, torch.stack(passes).mean(0)[0], atol=1e-5, rtol=0)


def test_a_bundle_with_its_own_switch_averages_by_it(tiny, case):
    switched = tiny("imff").predictor(tta=True).predict(case)
    overridden = tiny("imff").predictor(("tta", True)).predict(case)
    plain = tiny("imff").predictor().predict(case)

    np.testing.assert_array_equal(switched.probabilities, overridden.probabilities)
    assert not np.array_equal(switched.probabilities, plain.probabilities)


def test_sliding_windows_of_another_kind_keep_their_settings_when_mirrored(tiny, case):
    averaged = tiny("msrf").predictor(tta=True)

    assert averaged._inferer.roi_size == [48, 32]
    assert averaged._inferer.padding_mode == "replicate"
    assert averaged.predict(case).mask.shape == (1, 47, 61)


def test_an_inferer_without_windows_cannot_be_mirrored(stock):
    def other(config):
        config["inferer"] = {"_target_": "monai.inferers.SaliencyInferer", "cam_name": "CAM", "target_layers": "x"}

    with pytest.raises(ConfigError, match="neither a switch"):
        stock(change=other).predictor(tta=True)


def test_digest_names_what_changes_results_and_nothing_else(stock, tmp_path):
    bundle = stock(planes=1)
    shutil.copytree(bundle.bundle, tmp_path / "elsewhere")
    base = bundle.predictor()

    same = [
        Predictor.from_bundle(tmp_path / "elsewhere", PredictorOptions(device="cpu")),
        bundle.predictor(backend="torchscript"),
        bundle.predictor(keep_probabilities=False, num_threads=1),
    ]
    others = [
        bundle.predictor(tta=True),
        bundle.predictor(threshold=0.4),
        bundle.predictor(("inferer::overlap", 0.25)),
    ]

    assert {predictor.model_digest for predictor in same} == {base.model_digest}
    assert len({predictor.model_digest for predictor in [base, *others]}) == 4
    assert len(base.model_digest) == 64


def test_digest_follows_the_weights(stock):
    bundle = stock()
    before = bundle.predictor().model_digest
    state = torch.load(bundle.weights)
    next(iter(state.values())).add_(0.01)
    torch.save(state, bundle.weights)

    assert bundle.predictor().model_digest != before


def test_name_version_and_segments_come_from_the_metadata(stock):
    predictor = stock(planes=3).predictor()

    assert (predictor.name, predictor.version) == ("stock", "0.3.1")
    assert [(segment.number, segment.label) for segment in predictor.segments] == [(1, "organ1"), (2, "organ2")]
    assert predictor.metadata["name"] == "stock"


def test_safetensors_give_the_same_results(stock, case, tmp_path):
    bundle = stock()
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(bundle.weights).items()}, other)

    first, second = bundle.predictor().predict(case), bundle.predictor(weights=other).predict(case)

    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_weights_are_found_where_the_configuration_or_the_custom_puts_them(stock, case):
    def elsewhere(config):
        del config["weights"]
        config["handlers"][0]["load_path"] = "models/best.pt"

    bundle = stock(change=elsewhere)
    usual = Predictor.from_bundle(bundle.bundle, PredictorOptions(device="cpu"))
    bundle.weights.rename(bundle.weights.with_name("best.pt"))
    named = Predictor.from_bundle(bundle.bundle, PredictorOptions(device="cpu"))

    assert usual.model_digest == named.model_digest


def test_no_weights_are_an_error_that_says_what_to_do(tiny, stock, tmp_path):
    bundle = stock()
    bundle.weights.unlink()

    with pytest.raises(CheckpointError, match="has no weights"):
        Predictor.from_bundle(bundle.bundle)
    with pytest.raises(CheckpointError, match="no file of weights at"):
        tiny("msrf").predictor(weights=tmp_path / "none.pt")


def test_weights_of_another_network_are_an_error(tiny):
    with pytest.raises(CheckpointError, match="does not fit this network"):
        tiny("msrf").predictor(weights=tiny("ssr").weights)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_listed_digest_is_held_against_the_file(stock, kind):
    bundle = stock()
    right = hashlib.new(kind, bundle.weights.read_bytes()).hexdigest()

    list_weights(bundle, hash_type=kind, hash_val=right)
    assert bundle.predictor().name == "stock"
    list_weights(bundle, hash_type=kind, hash_val="0" * len(right))
    with pytest.raises(CheckpointError, match=r"not the file that large_files\.yml lists"):
        bundle.predictor()


def test_lists_say_nothing_about_other_files(stock, tmp_path):
    bundle = stock()
    other = tmp_path / "own.pt"
    shutil.copy(bundle.weights, other)
    list_weights(bundle, hash_val="0" * 64)

    assert bundle.predictor(weights=other).name == "stock"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.pop("preprocessing"), 'has no "preprocessing"'),
        (lambda config: config["preprocessing"]["transforms"].pop(0), "loads 0 times"),
        (lambda config: config["postprocessing"]["transforms"].pop(2), "no transform that decides"),
        (lambda config: config["network_def"].update(_target_="torch.Tensor", _mode_="callable"), "torch.nn.Module"),
        (lambda config: config["network_def"].update(chanels=3), "cannot be built"),
        (lambda config: config["postprocessing"]["transforms"][1].update(transform="@nothing"), "cannot be built"),
    ],
)
def test_a_bundle_that_is_incomplete_is_an_error(stock, change, words):
    bundle = stock()
    path = bundle.bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))

    with pytest.raises(ConfigError, match=words):
        bundle.predictor()


def test_a_bundle_for_volumes_is_an_error(stock):
    def spatial(config):
        config["network_def"]["spatial_dims"] = 3

    with pytest.raises(ConfigError, match="segments volumes"):
        stock(change=spatial).predictor()


@pytest.mark.parametrize("content", [None, "{"])
def test_what_is_no_bundle_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "inference.json").write_text(content)

    with pytest.raises(ConfigError, match=r"not a bundle|cannot be read"):
        Predictor.from_bundle(tmp_path)


@pytest.mark.parametrize("name", ["treshold", "network_deff::features", "nothing::at::all"])
def test_an_override_of_nothing_is_an_error(tiny, name):
    with pytest.raises(ConfigError, match="unknown override"):
        tiny("msrf").predictor((name, 1))


def test_an_override_that_does_not_fit_says_why(tiny):
    with pytest.raises(ConfigError, match="network_def"):
        tiny("msrf").predictor(("network_def::features", "many"))


def test_threads_are_set_when_asked_for(tiny):
    before = torch.get_num_threads()
    try:
        tiny("msrf").predictor(num_threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
