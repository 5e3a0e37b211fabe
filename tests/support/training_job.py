"""A small but complete training, built as a bundle builds it; as a script it is killed at set moments and resumed."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import Activationsd, AsDiscreted, Compose, RandFlipd, RandGaussianNoised
from torch import nn

from msrf_monai.engines import (
    EarlyStop,
    ExponentialMovingAverage,
    History,
    LoadWeights,
    SaveBest,
    SeedEpochs,
    TrainingState,
)
from msrf_monai.metrics import MacroScoreHandler
from support.processes import exit_code_of

ROWS, COLUMNS = 24, 16


class ToyNet(nn.Module):
    """Convolution, BatchNorm, dropout, convolution; ``features`` wide, logits (B, 1, ., .)."""

    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.features = features
        self.stem = nn.Conv2d(3, features, 3, padding=1)
        self.norm = nn.BatchNorm2d(features)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Conv2d(features, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.stem(x)))))


def items(count: int, seed: int) -> list[dict[str, Any]]:
    """Images (3, COLUMNS, ROWS) in MONAI's axis order with a bright rectangle, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        label = torch.zeros(1, COLUMNS, ROWS)
        left, top = (int(torch.randint(0, 6, (), generator=generator)) for _ in range(2))
        label[:, left : left + 7, top : top + 11] = 1
        image = (0.3 + 0.4 * label + 0.15 * torch.randn(3, COLUMNS, ROWS, generator=generator)).clamp(0, 1)
        meta = {"filename_or_obj": f"/data/set/images/case_{index:02d}.png"}
        made.append({"image": MetaTensor(image, meta=meta), "label": MetaTensor(label)})
    return made


def build(
    folder: Path,
    *,
    epochs: int,
    resume: bool | str = False,
    workers: int = 0,
    features: int = 4,
    patience: int = 0,
    schedule_length: int = 4,
    weights: Path | None = None,
    extra: list[Any] | None = None,
    validation_handlers: list[Any] | None = None,
    train_items: list[dict[str, Any]] | None = None,
    learning_rate: float = 0.05,
    seed: int = 3,
) -> dict[str, Any]:
    """Build the training; ``weights`` are loaded first, ``extra`` are further handlers."""
    torch.manual_seed(11)
    augment = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=0), RandGaussianNoised("image", prob=0.7)])
    loader = DataLoader(
        Dataset(items(7, 1) if train_items is None else train_items, augment),
        batch_size=3,
        shuffle=True,
        num_workers=workers,
    )
    validation = DataLoader(Dataset(items(5, 2)), batch_size=2)
    network = ToyNet(features)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule_length)
    ema = ExponentialMovingAverage(network, momentum=0.1, momentum_warmup=0.5, warmup_iters=5)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=validation,
        network=ema.ema_model,
        postprocessing=Compose([Activationsd("pred", sigmoid=True), AsDiscreted("pred", threshold=0.5)]),
        key_val_metric={"val_dice": MacroScoreHandler("dice", output_transform=from_engine(["pred", "label"]))},
        val_handlers=[SaveBest(str(folder / "models"), seed=seed), *(validation_handlers or [])],
    )
    saved = {"network": network, "optimizer": optimizer, "lr_scheduler": scheduler, "ema": ema}
    history, state = records(folder, saved, evaluator, optimizer, resume=resume)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=[
            *([] if weights is None else [LoadWeights(str(weights), {"model": network})]),
            SeedEpochs(seed),
            ValidationHandler(1, evaluator),
            LrScheduleHandler(scheduler, print_lr=False),
            EarlyStop(evaluator, patience=patience),
            ema,
            history,
            *(extra or []),
            state,
        ],
    )
    return locals()


def records(
    folder: Path, saved: dict[str, Any], evaluator: Any, optimizer: torch.optim.Optimizer, *, resume: bool | str
) -> tuple[History, TrainingState]:
    """Return the history of a training, and the handler that saves it and what else is to be saved."""
    history = History(str(folder), validator=evaluator, optimizer=optimizer)
    return history, TrainingState(
        str(folder), save_dict={**saved, "history": history}, validator=evaluator, resume=resume
    )


def result(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Everything by which two trainings must agree."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in job["history"].rows]
    return {
        "network": {name: tensor.tolist() for name, tensor in job["network"].state_dict().items()},
        "ema": {name: tensor.tolist() for name, tensor in job["ema"].state_dict().items()},
        "saved": {
            name: tensor.tolist()
            for name, tensor in torch.load(folder / "models" / "model.pt", weights_only=True).items()
        },
        "rows": rows,
        "best": [job["evaluator"].state.best_metric_epoch, float(job["evaluator"].state.best_metric)],
        "learning_rate": job["optimizer"].param_groups[0]["lr"],
        "counters": [job["trainer"].state.epoch, job["trainer"].state.iteration],
    }


class KillAfter:
    """SIGKILL this process after some iterations of its own, or in the middle of one of its own saves."""

    def __init__(self, *, iterations: int = 0, in_save: int = 0) -> None:
        self.iterations = iterations
        self.in_save = in_save

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._before_save)

    def _after_iteration(self) -> None:
        self.iterations -= 1
        if self.iterations == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _before_save(self) -> None:
        self.in_save -= 1
        if self.in_save == 0:
            torch.save = _half_a_save


def _half_a_save(content: Any, handle: Any) -> None:
    handle.write(b"half a file")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder: Path, *, epochs: int, workers: int, kill: dict[str, int] | None) -> int:
    """Train in a forked process; return its exit status."""

    def work() -> None:
        extra = [] if kill is None else [KillAfter(**kill)]
        job = build(folder, epochs=epochs, resume="auto", workers=workers, extra=extra)
        job["trainer"].run()
        (folder / "result.json").write_text(json.dumps(result(folder, job)))

    return exit_code_of(work)


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # the first optimiser would import it, in each forked process anew
    codes = {
        folder: [attempt(Path(folder), epochs=plan["epochs"], workers=plan["workers"], kill=kill) for kill in kills]
        for folder, kills in plan["attempts"].items()
    }
    sys.stdout.write(json.dumps(codes))
