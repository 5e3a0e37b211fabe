"""A training iteration of Hi-gMISnet's small configuration: which share of its time the networks have.

The bundle is opened as it is, at its default size, through MONAI's ConfigWorkflow. An iteration is all that
one costs: the batch with its augmentation, both generators and both discriminators forward and backward, losses,
optimisers, moving average. Counted as the networks' are the calls of the networks and the backward passes (which take
in those of the losses). The target is a share of at least 0.9.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from msrf_monai.data import synthesize_dataset

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "higmisnet_breast_ultrasound_segmentation" / "configs"


class Stopwatch:
    """Adds up the time spent in the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted."""

        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        return run


def main() -> None:
    """Time some iterations and print the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        size = [options.image_size, options.image_size]
        images = options.batch_size * (options.steps + 1)
        synthesize_dataset("lesion", Path(name) / "data", counts=(images, 1, 1), size=(options.image_size,) * 2)
        workflow = ConfigWorkflow(
            config_file=str(CONFIGS / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=name,
            dataset_dir=str(Path(name) / "data"),
            image_size=size,
            patch_size=size,
            batch_size=options.batch_size,
            max_epochs=1,
        )
        workflow.initialize()
        trainer = workflow.trainer
        watch = Stopwatch()
        for network in (trainer.network, *trainer.discriminators.values()):
            network.forward = watch.timed(network.forward)
        torch.Tensor.backward = watch.timed(torch.Tensor.backward)
        wholes, shares = [], []

        def start() -> None:
            watch.seconds, watch.start = 0.0, time.perf_counter()

        def stop() -> None:
            wholes.append(time.perf_counter() - watch.start)
            shares.append(watch.seconds / wholes[-1])

        trainer.add_event_handler(Events.GET_BATCH_STARTED, start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)  # after all others
        workflow.run()
    wholes, shares = wholes[1:], shares[1:]  # the first one warms up
    print(f"{options.image_size}x{options.image_size}, batch {options.batch_size}, {options.threads} threads")
    print(f"an iteration {statistics.median(wholes):.2f} s; the networks have {statistics.median(shares):.3f} of it")


if __name__ == "__main__":
    main()
