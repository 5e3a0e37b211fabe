"""The coupled training of Hi-gMISnet: what each step changes, what is logged, and what bad data cannot do."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from msrf_monai.engines import CoupledGanTrainer, History, KeyMetric, NaNGuard, draw_curves
from msrf_monai.errors import CheckpointError, ConfigError, NonFiniteLossError
from msrf_monai.losses import HiGMISGeneratorLoss, ReciprocalLoss
from support import gan_job
from support.processes import run_script


@pytest.fixture(scope="session")
def gan() -> ModuleType:
    """The module ``gan_job``."""
    return gan_job


def items(count: int = 2, size: tuple[int, int] = (32, 32), fill: float | None = None) -> list[dict[str, Tensor]]:
    """Bright rectangles, or masks that are all background or all foreground."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for index in range(count):
        label = torch.zeros(1, *size) if fill is None else torch.full((1, *size), fill)
        if fill is None:
            label[:, 6 : 16 + index, 8:20] = 1
        image = (0.2 + 0.5 * label + 0.1 * torch.randn(3, *size, generator=generator)).clamp(0, 1)
        made.append({"image": image, "label": label})
    return made


class Watch:
    """Copies of the discriminators' gradients and states, and a generator's weight, at moments of an iteration."""

    MOMENTS = (
        IterationEvents.FORWARD_COMPLETED,
        IterationEvents.LOSS_COMPLETED,
        IterationEvents.BACKWARD_COMPLETED,
        IterationEvents.MODEL_COMPLETED,
    )

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules = modules
        self.seen: dict[str, list[Tensor | None]] = {}

    def attach(self, engine: Any) -> None:
        for moment in self.MOMENTS:
            engine.add_event_handler(moment, self._copy, moment.name)

    def _copy(self, name: str) -> None:
        found: list[Tensor | None] = []
        for module in self.modules:
            found += [None if p.grad is None else p.grad.clone() for p in module.parameters()]
            found += [tensor.clone() for tensor in module.state_dict().values()]
        self.seen[name] = found


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    pairs = zip(one, other, strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def test_generators_step_leaves_the_discriminators_as_their_own_step_made_them(gan: ModuleType) -> None:
    network, discriminators = gan.networks()
    judges = list(discriminators.values())
    before = copy.deepcopy([judge.state_dict() for judge in judges])
    watch = Watch(judges)

    gan.trainer(network, discriminators, items(), train_handlers=[watch]).run()

    assert not same(watch.seen["FORWARD_COMPLETED"], watch.seen["LOSS_COMPLETED"])  # they were trained in between
    assert same(watch.seen["LOSS_COMPLETED"], watch.seen["BACKWARD_COMPLETED"])
    assert same(watch.seen["LOSS_COMPLETED"], watch.seen["MODEL_COMPLETED"])
    assert all(p.requires_grad for judge in judges for p in judge.parameters())
    after = [judge.state_dict() for judge in judges]
    assert all(not torch.equal(a["head.weight"], b["head.weight"]) for a, b in zip(before, after, strict=True))


def test_discriminators_learn_from_true_and_predicted_masks_of_their_own_side(gan: ModuleType) -> None:
    network, discriminators = gan.networks()
    before = copy.deepcopy(discriminators)
    history = History(".")
    history._write = lambda: None  # type: ignore[method-assign]  # nothing to keep
    batch = items()
    image, mask = (torch.stack([item[key] for item in batch]) for key in ("image", "label"))

    gan.trainer(network, discriminators, batch, train_handlers=[history]).run()

    (row,) = history.rows
    for branch, true in (("lesion", mask), ("background", 1 - mask)):
        expected = 0.5 * (1 - before[branch](image, true)).abs().mean().detach()
        assert row[f"train_loss_discriminator_{branch}_real"] == pytest.approx(float(expected), abs=1e-6)
        assert 0 < row[f"train_loss_discriminator_{branch}_fake"] < 0.5


def test_loss_is_the_sum_of_the_logged_terms_and_of_the_published_losses(gan: ModuleType, tmp_path: Path) -> None:
    network, discriminators = gan.networks(dropout=0.0)
    reference = copy.deepcopy(network).train()
    history = History(str(tmp_path))
    batch = items()

    gan.trainer(network, discriminators, batch, reciprocal_weight=0.5, train_handlers=[history]).run()

    (row,) = history.rows
    terms = {name.removeprefix("train_loss_"): v for name, v in row.items() if name.startswith("train_loss_")}
    of_generators = {name: v for name, v in terms.items() if not name.startswith("discriminator")}
    assert len(of_generators) == 2 * 8 + 3
    assert row["train_loss"] == pytest.approx(sum(of_generators.values()), rel=1e-5)
    image, mask = (torch.stack([item[key] for item in batch]) for key in ("image", "label"))
    with torch.no_grad():
        maps = reference(image)
    for branch in gan.BRANCHES:
        supervised = sum(
            v for name, v in of_generators.items() if name.startswith(branch) and "adversarial" not in name
        )
        assert supervised == pytest.approx(float(HiGMISGeneratorLoss(branch)(getattr(maps, branch), mask)), rel=1e-5)
    reciprocal = sum(v for name, v in of_generators.items() if name.startswith("reciprocal"))
    expected = 0.5 * ReciprocalLoss()(maps.lesion.mask, maps.background.mask, image, mask)
    assert reciprocal == pytest.approx(float(expected), rel=1e-5)
    columns = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert set(row) <= set(columns)


def test_terms_get_panels_of_their_own_in_the_curves(tmp_path: Path) -> None:
    from PIL import Image

    row = {"epoch": 1, "train_loss": 3.0, "val_dice": 0.5}
    draw_curves([row], tmp_path / "plain.png")
    terms = {f"train_loss_{name}": 1.0 for name in ("lesion_mask", "lesion_alpha1", "reciprocal_area", "other")}
    draw_curves([row | terms], tmp_path / "terms.png")
    heights = [Image.open(tmp_path / f"{name}.png").size[1] for name in ("plain", "terms")]
    assert heights[1] == pytest.approx(3 * heights[0], abs=3)  # three groups, two panels in a line


def test_without_reciprocal_weight_the_term_is_not_computed(gan: ModuleType) -> None:
    network, discriminators = gan.networks()
    seen: list[str] = []
    trainer = gan.trainer(network, discriminators, items(), reciprocal_weight=0.0, decollate=False)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.extend(engine.state.output))
    trainer.run()
    assert "loss_lesion_mask" in seen
    assert not any("reciprocal" in name for name in seen)


@pytest.mark.parametrize(
    ("size", "fill"),
    [((37, 45), None), ((32, 32), 0.0), ((32, 32), 1.0)],
    ids=["odd size", "all background", "all foreground"],
)
def test_odd_sizes_and_empty_masks_stay_finite(gan: ModuleType, size: tuple[int, int], fill: float | None) -> None:
    network, discriminators = gan.networks()
    guard = NaNGuard()
    trainer = gan.trainer(network, discriminators, items(size=size, fill=fill), epochs=2, train_handlers=[guard])
    trainer.run()
    assert math.isfinite(trainer.state.output[0]["loss"])
    assert trainer.state.output[0]["pred"].shape == (1, *size)
    modules = (network, *discriminators.values())
    assert all(torch.isfinite(tensor).all() for module in modules for tensor in module.state_dict().values())


def test_images_of_background_alone_can_be_learnt_as_such(gan: ModuleType) -> None:
    network, discriminators = gan.networks(dropout=0.0, fusion="lesion")
    batch = items(fill=0.0)
    image = torch.stack([item["image"] for item in batch])
    with torch.no_grad():
        before = network.eval()(image)
    gan.trainer(network, discriminators, batch, epochs=8, learning_rate=2e-2).run()
    with torch.no_grad():
        after = network.eval()(image)
    assert (before >= 0.5).any()
    assert not (after >= 0.5).any()


def test_a_batch_that_is_not_finite_touches_none_of_the_four_networks(gan: ModuleType) -> None:
    network, discriminators = gan.networks()
    modules = [network, *discriminators.values()]
    before = copy.deepcopy([module.state_dict() for module in modules])
    batch = items()
    batch[1]["image"][0, 3, 4] = float("nan")

    with pytest.raises(NonFiniteLossError, match="the training loss is nan"):
        gan.trainer(network, discriminators, batch, train_handlers=[NaNGuard()]).run()
    gan.trainer(network, discriminators, batch, train_handlers=[NaNGuard(max_consecutive=2)]).run()  # left out

    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_reduced_precision_is_for_the_generators_alone(gan: ModuleType) -> None:
    network, discriminators = gan.networks()
    kinds: set[torch.dtype] = set()
    convolved: set[torch.dtype] = set()
    discriminators["lesion"].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    network.lesion.head.register_forward_hook(lambda module, inputs, output: convolved.add(output.dtype))
    trainer = gan.trainer(network, discriminators, items(), amp=True, amp_kwargs={"dtype": torch.bfloat16})
    with pytest.warns(UserWarning, match="CUDA is not available"):  # MONAI's gradient scaler says so on a CPU
        trainer.run()
    assert convolved == {torch.bfloat16}
    assert kinds == {torch.float32}
    assert math.isfinite(trainer.state.output[0]["loss"])


def test_a_training_broken_off_in_an_epoch_ends_with_the_bits_of_one_without_a_stop(
    gan: ModuleType, tmp_path: Path
) -> None:
    class PowerCutError(RuntimeError):
        pass

    class Cut:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), self)  # the first one of the second epoch

        def __call__(self) -> None:
            raise PowerCutError

    gan.build(tmp_path / "whole", epochs=2)["trainer"].run()
    with pytest.raises(PowerCutError):
        gan.build(tmp_path / "broken", epochs=2, extra=[Cut()])["trainer"].run()
    torch.manual_seed(99)  # whatever the second process drew before
    gan.build(tmp_path / "broken", epochs=2, resume=True)["trainer"].run()

    whole, broken = (gan.result(tmp_path / name) for name in ("whole", "broken"))
    assert whole == broken
    assert {"lesion_discriminator", "background_discriminator", "discriminator_optimizer"} <= whole.keys()
    rows = whole["history"]["rows"]
    assert len(rows) == 2
    assert rows[1]["val_dice"] == max(value for name, value in rows[1].items() if name.startswith("val_dice_"))


def test_two_processes_keep_the_four_networks_alike_and_leave_a_bad_batch_out_together(tmp_path: Path) -> None:
    done = run_script(gan_job.__file__, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert "the batch is left out" in done.stderr
    assert math.isfinite(first["rows"][0]["train_loss"])
    assert any(name.startswith("background.head") for name in first["values"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": nn.Linear(1, 1)}, "network is a Linear; expected msrf_monai.networks.HiGMISNet"),
        ({"discriminators": {"lesion": nn.Linear(1, 1)}}, r"discriminators is {'lesion': 'Linear'}; expected a Patch"),
        (
            {"loss_function": {"lesion": HiGMISGeneratorLoss(), "background": HiGMISGeneratorLoss()}},
            r"loss_function\['background'\] has branch='lesion'",
        ),
        ({"reciprocal_weight": -1.0}, "reciprocal_weight is -1.0"),
    ],
)
def test_wrong_parts_are_named(gan: ModuleType, wrong: dict[str, Any], message: str) -> None:
    network, discriminators = gan.networks()
    optimizer = torch.optim.Adam(network.parameters())
    parts = {
        "network": network,
        "discriminators": discriminators,
        "loss_function": {branch: HiGMISGeneratorLoss(branch) for branch in gan.BRANCHES},
        "discriminator_loss": None,
        "optimizer": optimizer,
        "discriminator_optimizer": optimizer,
    }
    with pytest.raises(ConfigError, match=message):
        CoupledGanTrainer("cpu", 1, [], **(parts | wrong))


def test_key_metric_is_the_validators_last_value_or_an_error() -> None:
    validator = SimpleNamespace(state=SimpleNamespace(key_metric_name="val_iou", metrics={}))
    with pytest.raises(ConfigError, match="no key metric yet"):
        KeyMetric(validator)()
    validator.state.metrics["val_iou"] = 0.25
    assert KeyMetric(validator)(object()) == 0.25


def test_a_file_of_weights_is_compared_with_its_digest(tmp_path: Path) -> None:
    import hashlib

    from msrf_monai.engines import verified_file

    path = tmp_path / "vgg.pt"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert verified_file(path, sha256=digest.upper()) == verified_file(path) == str(path)
    assert verified_file(None) is None
    with pytest.raises(CheckpointError, match="is not the expected file"):
        verified_file(path, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="there is no file of weights"):
        verified_file(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="without a file"):
        verified_file(None, sha256=digest)
