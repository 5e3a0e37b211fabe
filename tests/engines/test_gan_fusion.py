"""The choice of the fusion: by validation images, kept with the weights, the same in evaluation and inference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from torch import Tensor, nn

from msrf_monai.engines import ChooseFusion, FusionScore, SaveBest, load_weights
from msrf_monai.errors import ConfigError, InputError
from msrf_monai.inferers import GeneratorPairInferer, MaskSlidingWindowInferer
from msrf_monai.networks import HiGMISNet
from msrf_monai.networks.backbones_weights import BackboneWeights
from msrf_monai.transforms import FuseProbabilitiesd


def pair() -> HiGMISNet:
    torch.manual_seed(2)
    return HiGMISNet(features=4, backbones=())


def planes(*values: tuple[float, float]) -> Tensor:
    """Probabilities of lesion and background, (2, 1, N)."""
    return torch.tensor(values).T[:, None]


def test_scores_are_those_of_the_hard_masks_of_each_mode() -> None:
    # four pixels: both say lesion; only the lesion's says so; only the background's; neither
    given = planes((0.9, 0.1), (0.9, 0.8), (0.2, 0.3), (0.1, 0.9))
    label = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    metric = FusionScore("dice")
    metric([given], [label])
    scores = metric.scores()
    assert scores["and"] == pytest.approx(2 / 3)  # finds the first pixel of two
    assert scores["or"] == pytest.approx(2 * 2 / 5)  # three pixels, two of them right
    assert scores["lesion"] == pytest.approx(2 * 1 / 4)
    assert scores["background"] == pytest.approx(1.0)
    assert float(metric.aggregate()) == 1.0


def test_images_count_the_same_and_empty_ones_are_no_nan() -> None:
    metric = FusionScore("iou", modes=["and"])
    metric([planes((0.9, 0.1), (0.1, 0.9)), planes((0.1, 0.9), (0.1, 0.9))], [torch.tensor([[[1.0, 1.0]]])] * 2)
    metric([planes((0.1, 0.9), (0.1, 0.9))], [torch.zeros(1, 1, 2)])
    assert metric.scores() == {"and": pytest.approx((0.5 + 0 + 1) / 3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"score": "beauty"}, "score must"), ({"modes": ["xor"]}, "modes is"), ({"threshold": 1.0}, "threshold must")],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FusionScore(**options)


def test_scores_of_nothing_and_of_fused_planes_are_errors() -> None:
    with pytest.raises(InputError, match="no image"):
        FusionScore().scores()
    with pytest.raises(InputError, match="two planes"):
        FusionScore()([torch.zeros(1, 2, 2)], [torch.zeros(1, 2, 2)])


def evaluator(network: nn.Module, items: list[dict[str, Any]], folder: Path, **options: Any) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=network,
        inferer=GeneratorPairInferer(roi_size=(32, 32)),
        postprocessing=FuseProbabilitiesd("pred", network, pair_key="pair"),  # type: ignore[arg-type]
        key_val_metric={"val_dice": ChooseFusion(output_transform=from_engine(["pair", "label"]), **options)},
        val_handlers=[SaveBest(str(folder))],
    )


def test_the_best_mode_is_chosen_saved_and_used_by_a_new_network(tmp_path: Path) -> None:
    network = pair()
    network.lesion.backbone_weights = {"vgg16": BackboneWeights("vgg16.pth", "0a1b", 24, ())}
    image = torch.rand(3, 32, 32)
    with torch.no_grad():
        maps = network.eval().forward_all(image[None])
        label = (maps.background.mask[0] <= 0.4).float()  # a truth that the background's generator knows best
    engine = evaluator(network, [{"image": image, "label": label}], tmp_path)

    engine.run()

    metrics = engine.state.metrics
    assert network.fusion == "background"
    assert metrics["val_dice"] == metrics["val_dice_background"] > metrics["val_dice_and"]
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["fusion"] == "background"
    assert record["backbone_weights"] == {"vgg16": {"file": "vgg16.pth", "sha256": "0a1b"}}
    fresh = HiGMISNet(features=4, backbones=())
    load_weights(fresh, tmp_path / "model.pt")
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(image[None]), 1 - maps.background.mask)


def test_a_single_mode_leaves_nothing_to_choose(tmp_path: Path) -> None:
    network = pair()
    items = [{"image": torch.rand(3, 32, 32), "label": torch.zeros(1, 32, 32)}]
    evaluator(network, items, tmp_path, modes=["or"]).run()
    assert network.fusion == "or"


def test_of_equal_modes_the_first_is_taken(tmp_path: Path) -> None:
    network = pair()
    items = [{"image": torch.rand(3, 32, 32), "label": torch.ones(1, 32, 32)}]
    evaluator(network, items, tmp_path, modes=["mean", "or"], threshold=1e-6).run()
    assert network.fusion == "mean"


def test_evaluation_without_the_pair_is_an_error() -> None:
    with pytest.raises(InputError, match="the network is a Linear"):
        GeneratorPairInferer(roi_size=(8, 8))(torch.rand(1, 3, 8, 8), nn.Linear(1, 1))
    engine = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=[], network=nn.Linear(1, 1), epoch_length=1
    )
    choice = ChooseFusion(output_transform=from_engine(["pair", "label"]))
    choice.update(([planes((0.9, 0.1))], [torch.ones(1, 1, 1)]))
    with pytest.raises(InputError, match="expected HiGMISNet"):
        choice.completed(engine, "val_dice")


def test_windows_of_a_batch_and_images_of_a_batch_change_nothing() -> None:
    network = pair().double().eval()  # norms of nearly constant maps enlarge single precision's rounding
    images = torch.rand(2, 3, 48, 40).double()
    with torch.no_grad():
        one, four = (
            GeneratorPairInferer(roi_size=(32, 32), sw_batch_size=size, overlap=0.25, mode="gaussian")(images, network)
            for size in (1, 4)
        )
        alone = GeneratorPairInferer(roi_size=(32, 32), sw_batch_size=4, overlap=0.25, mode="gaussian")(
            images[:1], network
        )
        fused = MaskSlidingWindowInferer(roi_size=(48, 40))(images, network)
        whole = GeneratorPairInferer(roi_size=(48, 40))(images, network)
    assert one.shape == (2, 2, 48, 40)
    torch.testing.assert_close(one, four, atol=1e-12, rtol=0)
    torch.testing.assert_close(one[:1], alone, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.minimum(whole[:, :1], 1 - whole[:, 1:]), fused, atol=1e-12, rtol=0)


def test_a_network_in_training_mode_gives_one_map_to_programs_that_expect_one() -> None:
    network = pair().train()
    images = torch.rand(1, 3, 32, 32)
    found = MaskSlidingWindowInferer(roi_size=(32, 32))(images, network)
    assert found.shape == (1, 1, 32, 32)


def test_fusing_follows_the_network_or_a_name_and_keeps_the_pair() -> None:
    network = pair()
    item = {"pred": planes((0.9, 0.3), (0.2, 0.9))}
    transform = FuseProbabilitiesd("pred", network, pair_key="pair")
    network.fusion = "or"
    done = transform(item)
    torch.testing.assert_close(done["pred"], torch.tensor([[[0.9, 0.2]]]))
    assert done["pair"] is item["pred"]
    torch.testing.assert_close(FuseProbabilitiesd("pred", "mean")(item)["pred"], torch.tensor([[[0.8, 0.15]]]))
    with pytest.raises(InputError, match="two planes"):
        transform({"pred": torch.zeros(1, 2, 2)})
    with pytest.raises(ConfigError, match="fusion is 'xor'"):
        FuseProbabilitiesd("pred", "xor")  # type: ignore[arg-type]
