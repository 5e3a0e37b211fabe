"""The whole chain of vessel inference on one fundus picture of 999x960 pixels: which share the network has.

The chain is the bundle's own ``inference.json``: read, field of view, normalise, windows, network, decide, write; with
``--measures`` also the vessel measures. The weights are random: they change no time. Printed: median wall and CPU time
of each part, and the network's share of the whole. The target is 85 % or more without measures.
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
from monai.bundle import ConfigParser
from monai.data.utils import decollate_batch, list_data_collate
from PIL import Image

from msrf_monai.data.synthetic import synthesize_image
from msrf_monai.runtime import tune_allocator

BUNDLE = Path(__file__).parent.parent / "bundles" / "imff_net_retinal_vessel_segmentation"
PARTS = ("read and normalise", "windows", "network", "decide and write")


def main() -> None:
    """Time the chain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="a fundus picture; default: a drawn one, as JPEG")
    parser.add_argument("--features", type=int, default=16, help="of the first stage")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measures", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_allocator()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(options.image or Path(folder) / "fundus.jpg")
        if not options.image:
            Image.fromarray(synthesize_image("vessels", seed=1, size=(960, 999))[0]).save(source, quality=95)
        walls, cpus = measure(source, Path(folder) / "out", options)
        with Image.open(source) as picture:
            print(f"{picture.width}x{picture.height}, {options.features} features, {options.threads} threads")
    total = sum(statistics.median(walls[part]) for part in PARTS)
    for part in PARTS:
        wall, cpu = statistics.median(walls[part]), statistics.median(cpus[part])
        print(f"{part:20} {wall * 1e3:8.1f} ms wall {wall / total:7.1%} {cpu * 1e3:8.1f} ms CPU")


def measure(source: Path, out: Path, options: argparse.Namespace) -> tuple[dict[str, list[float]], ...]:
    """Run the chain several times, the first one to warm up."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser["bundle_root"], parser["dataset_dir"], parser["output_dir"] = str(BUNDLE), str(source), str(out)
    parser["features"] = [options.features * 2**k for k in range(5)]
    parser["save_measures"], parser["device"] = options.measures, "$torch.device('cpu')"
    before, after, inferer, network = (
        parser.get_parsed_content(key) for key in ("preprocessing", "postprocessing", "inferer", "network")
    )
    network.eval()
    walls: dict[str, list[float]] = {part: [] for part in PARTS}
    cpus: dict[str, list[float]] = {part: [] for part in PARTS}
    inside = [0.0, 0.0]

    def timed_network(x: torch.Tensor) -> torch.Tensor:
        logits, wall, cpu = timed(lambda: network(x))
        inside[0] += wall
        inside[1] += cpu
        return logits

    def run_once() -> list[list[float]]:
        inside[:] = 0.0, 0.0
        batch, *read = timed(lambda: list_data_collate([before({"image": str(source)})]))
        pred, *infer = timed(lambda: inferer(batch["image"], timed_network))
        _, *write = timed(lambda: [after(item) for item in decollate_batch({**batch, "pred": pred})])
        return [read, [infer[0] - inside[0], infer[1] - inside[1]], list(inside), write]

    with torch.inference_mode():
        for repeat in range(options.repeats + 1):
            times = run_once()
            if repeat:
                for part, (wall, cpu) in zip(PARTS, times, strict=True):
                    walls[part].append(wall)
                    cpus[part].append(cpu)
    return walls, cpus


def timed(step: Callable[[], Any]) -> tuple[Any, float, float]:
    """Run a step and return its result, wall time and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    return result, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
