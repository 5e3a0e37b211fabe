"""Training step rate with real data against the rate with constant tensors, on one network, in one run.

MSRF-Net's bundle is opened as it is, through MONAI's ConfigWorkflow. The same trainer's iteration runs on batches from
its data loader (cached images, augmentation, edge maps) and on one batch that never changes, in turns. The target is a
ratio of at least 0.95. Options of the bundle can be given, such as a smaller width.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from msrf_monai.data import prepare_dataset, synthesize_dataset

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "msrf_net_polyp_segmentation" / "configs"


def endless(loader: Any) -> Iterator[Any]:
    """Yield batches for ever."""
    while True:
        yield from loader


def data_folder(root: Path) -> Path:
    """Prepare real polyp images when MSRF_DATA_DIR holds them, else draw some."""
    out = root / "data"
    source = Path(os.environ.get("MSRF_DATA_DIR", "../shared/data")) / "Kvasir-SEG"
    if source.is_dir():
        prepare_dataset("kvasir_seg", source, out, images="reference")
        print("data: Kvasir-SEG")
    else:
        synthesize_dataset("lesion", out, counts=(40, 4, 4), size=(256, 320))
        print("data: drawn lesions")
    return out


def main() -> None:
    """Time both kinds of steps in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        workflow = ConfigWorkflow(
            config_file=str(CONFIGS / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=name,
            dataset_dir=str(data_folder(Path(name))),
            train_limit=40,
            batch_size=options.batch_size,
            **{"network_def::features": options.features},
        )
        workflow.initialize()
        trainer = workflow.trainer
        trainer.state.epoch_length = 10**6
        batches = endless(trainer.data_loader)
        constant = next(batches)
        times: dict[str, list[float]] = {"constant": [], "real": []}
        for step in range(options.steps + 1):
            for kind in times:
                start = time.perf_counter()
                batch = constant if kind == "constant" else next(batches)
                trainer._process_function(trainer, batch)
                if step:  # the first step of each kind warms up
                    times[kind].append(time.perf_counter() - start)
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, seconds in medians.items():
        print(f"{kind:9} batches of {options.batch_size}: {seconds:.3f} s a step (min {min(times[kind]):.3f})")
    print(f"real / constant rate: {medians['constant'] / medians['real']:.3f} (features {options.features})")


if __name__ == "__main__":
    main()
