"""Decisions against the plain formulas; selection on what MONAI's trainer really hands to its post-processing."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset
from monai.data.meta_tensor import MetaTensor
from monai.engines.trainer import SupervisedTrainer
from monai.transforms.compose import Compose

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms import DecideMask, DecideMaskd, SelectMask, SelectMaskd, decide_mask


def scores(planes: int) -> torch.Tensor:
    return torch.randn(planes, 31, 17, generator=torch.Generator().manual_seed(planes)) * 2


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_plane_is_compared_with_the_threshold(threshold: float, dtype: torch.dtype) -> None:
    probability = scores(1).sigmoid().to(dtype)

    mask = decide_mask(probability, threshold)

    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 31, 17)
    assert torch.equal(mask.bool(), probability >= threshold)


def test_a_probability_at_the_threshold_is_foreground() -> None:
    assert decide_mask(torch.full((1, 2, 3), 0.5)).all()
    assert decide_mask(torch.zeros(1, 2, 3), from_logits=True).all()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_one_plane_of_logits_is_decided_without_sigmoid(threshold: float) -> None:
    expected = scores(1).double().sigmoid() >= threshold

    assert torch.equal(decide_mask(scores(1), threshold, from_logits=True).bool(), expected)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("from_logits", [False, True])
def test_two_planes_are_compared_with_each_other(threshold: float, from_logits: bool) -> None:
    probability = scores(2).double().softmax(0)

    mask = decide_mask(scores(2) if from_logits else probability.float(), threshold, from_logits=from_logits)

    assert mask.shape == (1, 31, 17)
    assert torch.equal(mask[0].bool(), probability[1] > threshold)


def test_two_planes_agree_with_argmax_also_where_they_tie() -> None:
    planes = scores(2).round()
    assert (planes[0] == planes[1]).any()

    assert torch.equal(decide_mask(planes)[0].long(), planes.argmax(0))


@pytest.mark.parametrize("planes", [3, 5])
def test_more_planes_give_the_class_of_the_largest(planes: int) -> None:
    assert torch.equal(decide_mask(scores(planes)), scores(planes).argmax(0, keepdim=True).to(torch.uint8))


def test_overlapping_classes_are_decided_one_by_one() -> None:
    mask = DecideMask(0.3, multilabel=True)(scores(3).sigmoid())

    assert torch.equal(mask.bool(), scores(3).sigmoid() >= 0.3)


def test_one_or_two_planes_never_pass_through_argmax(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("argmax was called")

    monkeypatch.setattr(torch.Tensor, "argmax", refuse)

    assert decide_mask(scores(1)).sum() > 0
    assert decide_mask(scores(2)).sum() > 0


def test_decision_keeps_metadata_and_ignores_gradients() -> None:
    pred = MetaTensor(scores(1), meta={"filename_or_obj": "a.png"}).requires_grad_()

    out = DecideMaskd("pred", from_logits=True)({"pred": pred})["pred"]

    assert out.meta["filename_or_obj"] == "a.png"
    assert not out.requires_grad


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1, 2])
def test_thresholds_outside_zero_and_one_are_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        DecideMaskd("pred", threshold)


def test_scores_without_planes_are_refused() -> None:
    with pytest.raises(InputError, match="at least one plane"):
        decide_mask(torch.zeros(0, 3, 3))


class Output(NamedTuple):
    mask: torch.Tensor
    edge: torch.Tensor


def test_first_output_and_first_planes_are_selected() -> None:
    label = MetaTensor(scores(3), meta={"filename_or_obj": "a.png"})

    out = SelectMaskd(("pred", "label"), (None, 2))({"pred": Output(scores(2), scores(1)), "label": label})

    assert torch.equal(out["pred"], scores(2))
    assert torch.equal(out["label"].as_tensor(), scores(3)[:2])
    assert out["label"].meta["filename_or_obj"] == "a.png"


def test_plain_masks_pass_unchanged() -> None:
    mask = scores(1)

    assert SelectMask(1)(mask) is mask


@pytest.mark.parametrize("given", [(), [], "text", ("a",), None])
def test_anything_without_a_tensor_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="tensor"):
        SelectMask()(given)


def test_too_few_planes_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 planes are to be kept.*\(2, 31, 17\)"):
        SelectMask(3)(scores(2))


def test_no_planes_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SelectMaskd(channels=0)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(4, 1, 1)

    def forward(self, image: torch.Tensor) -> Output:
        logits = self.head(image)
        return Output(logits, logits.sigmoid())


def loss(output: Output, target: torch.Tensor) -> torch.Tensor:
    return (output.mask - target[:, :1]).square().mean() + (output.edge - target[:, 1:]).square().mean()


def test_training_step_with_named_tuple_output_gives_masks_to_its_metrics() -> None:
    items = [
        {"image": torch.rand(4, 9, 12), "label": MetaTensor(torch.ones(2, 9, 12), meta={"filename_or_obj": f"{n}.png"})}
        for n in range(4)
    ]
    network = Network()
    seen: list[Any] = []

    def keep(item: Any) -> Any:
        seen.append(item)
        return item

    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.0),
        loss_function=loss,
        postprocessing=Compose([SelectMaskd(), DecideMaskd("pred", from_logits=True), keep]),
    )

    trainer.run()

    assert len(seen) == 4
    assert [item["label"].shape for item in seen] == [(1, 9, 12)] * 4
    assert [item["label"].meta["filename_or_obj"] for item in seen] == ["0.png", "1.png", "2.png", "3.png"]
    with torch.no_grad():
        expected = [network(item["image"][None]).mask[0] >= 0 for item in items]
    assert all(
        torch.equal(torch.as_tensor(item["pred"]).bool(), mask) for item, mask in zip(seen, expected, strict=True)
    )
    assert {item["pred"].dtype for item in seen} == {torch.uint8}
