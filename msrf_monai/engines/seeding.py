"""Random streams that depend on the seed, the epoch and the rank alone."""

from __future__ import annotations

import random
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from msrf_monai.errors import ConfigError, InputError

__all__ = ["SeedEpochs", "epoch_seed"]


def epoch_seed(seed: int, *, epoch: int, rank: int = 0) -> int:
    """Mix a run's seed with the epoch and the rank into one seed.

    Args:
        seed: the run's seed, 0 or more.
        epoch: number of the epoch, counted from 1.
        rank: number of the process, counted from 0.

    Returns:
        An integer in [0, 2**31), the same for the same three numbers on every machine; neighbouring epochs and ranks
        get unrelated ones.

    Raises:
        InputError: when one of the numbers is negative.
    """
    if min(seed, epoch, rank) < 0:
        raise InputError(f"seed, epoch and rank must be 0 or more, got {seed}, {epoch} and {rank}")
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0] >> 1)


class SeedEpochs:
    """Reseed every random generator when an epoch starts, from the seed, the epoch and the rank.

    Python, NumPy, PyTorch (CPU and every CUDA device) and the random transforms of the training set are reseeded, and
    the data loader is asked for a new iterator, so that shuffling, worker seeds and augmentation of an epoch do not
    depend on what was drawn before. A run that is resumed at the start of an epoch then draws what the unbroken run
    would have drawn, with ``num_workers`` 0 or more.

    Args:
        seed: the run's seed, 0 or more.

    Example:
        >>> SeedEpochs(seed=7).seed
        7
    """

    def __init__(self, seed: int = 0) -> None:
        epoch_seed(seed, epoch=0)  # refuses a negative seed while the configuration is read
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register with a trainer; it needs a ``data_loader`` as every MONAI engine has.

        Raises:
            ConfigError: when the data loader keeps its workers alive between epochs, since their transforms would
                then carry random states on that no other process can know.
        """
        loader = getattr(engine, "data_loader", None)
        if getattr(loader, "persistent_workers", False):
            raise ConfigError(
                "SeedEpochs cannot reseed persistent data loader workers, and resume would not be exact; "
                "set persistent_workers to false in the training data loader"
            )
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Reseed for the epoch that starts."""
        seed = epoch_seed(self.seed, epoch=engine.state.epoch, rank=idist.get_rank())
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - third-party transforms may draw from NumPy's global generator
        torch.manual_seed(seed)
        loader: Any = getattr(engine, "data_loader", None)
        if loader is not None:
            # Workers seed their copies of the transforms from the loader's base seed, which torch draws below.
            set_rnd(getattr(loader, "dataset", None), seed=seed)
            # Otherwise, with an epoch_length other than the loader's length, an iterator would live on over the border.
            engine.set_data(loader)
