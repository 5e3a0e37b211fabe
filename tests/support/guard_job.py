"""Two processes that train together; from the second epoch on, the second one's images have NaNs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from msrf_monai.engines import NaNGuard, SeedEpochs, TrainingState
from msrf_monai.errors import NonFiniteLossError
from support import training_job as job
from support.processes import exit_as_two, join_two


def process(rank: int, folder: Path) -> None:
    """Train as one of two processes until the guard stops it; write what it says."""
    join_two(rank, folder)
    items = job.items(8, 1)
    torch.manual_seed(11)
    network = DistributedDataParallel(job.ToyNet())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=DataLoader(Dataset(items), batch_size=2, sampler=DistributedSampler(items, shuffle=False)),
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.BCEWithLogitsLoss(),
        train_handlers=[
            SeedEpochs(3),
            NaNGuard(max_consecutive=2),
            TrainingState(str(folder), save_dict={"network": network, "optimizer": optimizer}),
        ],
    )

    @trainer.on(Events.EPOCH_STARTED(once=2))
    def spoil() -> None:
        for item in items[1::2]:  # the second process's
            item["image"][0, 0, 0] = float("nan")

    try:
        trainer.run()
    except NonFiniteLossError as error:
        (folder / f"rank{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch._dynamo

    exit_as_two(process, Path(sys.argv[1]))
