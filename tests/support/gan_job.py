"""A small training of Hi-gMISnet, built as its bundle builds it; as a script two processes share it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import Compose, RandFlipd
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from msrf_monai.engines import (
    ChooseFusion,
    CoupledGanTrainer,
    ExponentialMovingAverage,
    History,
    KeyMetric,
    NaNGuard,
    SaveBest,
    SeedEpochs,
)
from msrf_monai.inferers import GeneratorPairInferer
from msrf_monai.losses import HiGMISDiscriminatorLoss, HiGMISGeneratorLoss, ReciprocalLoss
from msrf_monai.networks import HiGMISNet, PatchDiscriminator
from msrf_monai.transforms import DecideMaskd, FuseProbabilitiesd
from support import training_job as toy
from support.processes import exit_as_two, join_two

BRANCHES = ("lesion", "background")


def networks(seed: int = 11, **options: Any) -> tuple[HiGMISNet, dict[str, PatchDiscriminator]]:
    """Return a pair of generators and their discriminators, as small as they get."""
    torch.manual_seed(seed)
    network = HiGMISNet(features=4, backbones=(), **options)
    return network, {branch: PatchDiscriminator(channels=(4, 8)) for branch in BRANCHES}


def trainer(
    network: Any, discriminators: Any, items: list[dict[str, Any]], *, epochs: int = 1, **options: Any
) -> CoupledGanTrainer:
    """Build a trainer alone, for single iterations of two items each."""
    inner = [getattr(judge, "module", judge) for judge in discriminators.values()]
    settings: dict[str, Any] = {
        "optimizer": torch.optim.Adam(network.parameters(), lr=options.pop("learning_rate", 2e-3), betas=(0.5, 0.999)),
        "discriminator_optimizer": torch.optim.Adam([p for judge in inner for p in judge.parameters()], lr=2e-4),
        "loss_function": {branch: HiGMISGeneratorLoss(branch) for branch in BRANCHES},
        "discriminator_loss": HiGMISDiscriminatorLoss(),
        "reciprocal_loss": ReciprocalLoss(),
        "train_data_loader": DataLoader(Dataset(items), batch_size=2),
    }
    return CoupledGanTrainer(
        device="cpu", max_epochs=epochs, network=network, discriminators=discriminators, **(settings | options)
    )


def build(
    folder: Path, *, epochs: int, resume: bool | str = False, use_ema: bool = True, extra: list[Any] | None = None
) -> dict[str, Any]:
    """Build the whole training: four images a epoch, validation, choice of the fusion, exact resume."""
    network, discriminators = networks()
    augment = RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)
    loader = DataLoader(Dataset(toy.items(4, 1), augment), batch_size=2, shuffle=True)
    ema = ExponentialMovingAverage(network, momentum=0.2)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(toy.items(2, 2)), batch_size=1),
        network=ema.ema_model if use_ema else network,
        inferer=GeneratorPairInferer(roi_size=(toy.COLUMNS, toy.ROWS)),
        postprocessing=Compose(
            [
                FuseProbabilitiesd("pred", ema.ema_model if use_ema else network, pair_key="pair"),
                DecideMaskd("pred"),
            ]
        ),
        key_val_metric={"val_dice": ChooseFusion(output_transform=from_engine(["pair", "label"]))},
        val_handlers=[SaveBest(str(folder / "models"))],
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.999))
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0)
    parameters = [p for judge in discriminators.values() for p in judge.parameters()]
    discriminator_optimizer = torch.optim.Adam(parameters, lr=5e-4)
    saved = {
        "network": network,
        "optimizer": optimizer,
        "lr_scheduler": scheduler,
        "lesion_discriminator": discriminators["lesion"],
        "background_discriminator": discriminators["background"],
        "discriminator_optimizer": discriminator_optimizer,
        "ema": ema,
    }
    history, state = toy.records(folder, saved, evaluator, optimizer, resume=resume)
    trained = trainer(
        network,
        discriminators,
        [],
        epochs=epochs,
        train_data_loader=loader,
        optimizer=optimizer,
        discriminator_optimizer=discriminator_optimizer,
        train_handlers=[
            SeedEpochs(3),
            ema,
            ValidationHandler(1, evaluator),
            history,
            LrScheduleHandler(scheduler, print_lr=False, step_transform=KeyMetric(evaluator)),
            *(extra or []),
            state,
        ],
    )
    return {"trainer": trained, "network": network, "history": history, "evaluator": evaluator, "state": state}


def result(folder: Path) -> dict[str, Any]:
    """Everything by which two trainings must agree: the saved state but for its clock."""
    saved = torch.load(folder / "training_state.pt", weights_only=True)
    for row in saved["objects"]["history"]["rows"]:
        row.pop("seconds")
    objects = {name: comparable(value) for name, value in saved["objects"].items()}
    return objects | {"best": saved["best"], "epoch": saved["epoch"], "iteration": saved["iteration"]}


def comparable(value: Any) -> Any:
    """Put the digest of its bits in the place of each tensor."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {str(key): comparable(item) for key, item in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list | tuple) else value


def process(rank: int, folder: Path) -> None:
    """Train as one of two processes on eight images of which rank 1's first has a NaN."""
    join_two(rank, folder)
    items = toy.items(8, 1)
    items[1]["image"][0, 0, 0] = float("nan")
    network, discriminators = networks()
    wrapped = {branch: DistributedDataParallel(judge) for branch, judge in discriminators.items()}
    sampler = DistributedSampler(items, shuffle=False)
    history = History(str(folder))
    trained = trainer(
        DistributedDataParallel(network),
        wrapped,
        [],
        train_data_loader=DataLoader(Dataset(items), batch_size=2, sampler=sampler),
        train_handlers=[SeedEpochs(3), NaNGuard(max_consecutive=2), history],
    )
    trained.run()
    saved = {"network": network.state_dict()} | {name: judge.state_dict() for name, judge in discriminators.items()}
    # each process has its own running statistics of the discriminators' norms, which nothing uses
    values = {
        f"{name}.{key}": comparable(tensor)
        for name, state in saved.items()
        for key, tensor in state.items()
        if not (name in BRANCHES and key.startswith("norms") and "running" in key)
    }
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
    (folder / f"rank{rank}.json").write_text(json.dumps({"values": values, "rows": rows}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    exit_as_two(process, Path(sys.argv[1]), seconds=240)
