"""Two processes that train together; the second one's first batch is bad in one of the runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from support import training_job as job
from support.processes import exit_as_two, join_two


def process(rank: int, folder: Path) -> None:
    """Train two epochs as one of two processes, on images of which rank 1's first has a NaN."""
    from ignite.engine import Events
    from monai.data import DataLoader, Dataset
    from monai.engines import SupervisedEvaluator, SupervisedTrainer
    from monai.handlers import ValidationHandler, from_engine
    from monai.transforms import Activationsd, AsDiscreted, Compose

    from msrf_monai.engines import (
        ExponentialMovingAverage,
        History,
        NaNGuard,
        SaveBest,
        SeedEpochs,
        SegmentationReport,
        TrainingState,
    )
    from msrf_monai.metrics import MacroScoreHandler

    join_two(rank, folder)
    torch.manual_seed(11)
    train = job.items(8, 1)
    train[3]["image"][0, 0, 0] = float("nan")
    train_set, validation_set = Dataset(train), Dataset(job.items(5, 2))
    network = DistributedDataParallel(job.ToyNet())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    ema = ExponentialMovingAverage(network, momentum=0.2)
    validated: dict[str, Any] = {}
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(validation_set, sampler=DistributedSampler(validation_set, shuffle=False)),
        network=ema.ema_model,
        postprocessing=Compose([Activationsd("pred", sigmoid=True), AsDiscreted("pred", threshold=0.5)]),
        key_val_metric={"val_dice": MacroScoreHandler("dice", output_transform=from_engine(["pred", "label"]))},
        val_handlers=[SaveBest(str(folder / "models")), SegmentationReport(str(folder))],
    )
    evaluator.add_event_handler(
        Events.EPOCH_STARTED,
        lambda: validated.update({name: tensor.tolist() for name, tensor in ema.state_dict().items()}),
    )
    history = History(str(folder), validator=evaluator, optimizer=optimizer)
    save_dict: dict[str, Any] = {"network": network, "optimizer": optimizer, "history": history}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(train_set, batch_size=2, sampler=DistributedSampler(train_set)),
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.BCEWithLogitsLoss(),
        train_handlers=[
            SeedEpochs(3),
            ema,
            ValidationHandler(1, evaluator),
            NaNGuard(max_consecutive=2),
            history,
            TrainingState(str(folder), save_dict=save_dict, validator=evaluator),
        ],
    )
    trainer.run()
    outcome = {
        "stem": network.module.stem.weight.tolist(),
        "validated": validated,
        "rows": [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows],
        "macro_dsc": evaluator.state.metrics["macro_dsc"],
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(outcome))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch._dynamo

    exit_as_two(process, Path(sys.argv[1]))
