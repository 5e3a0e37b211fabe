"""What recalibration costs: evaluation, training step and peak memory of each block against the plain U-Net.

All networks are the published ones (features 32, 64, 128, 256, 224x224). In one process the networks take turns, so
that a change in the machine's load meets all of them; printed are the medians of wall time and of process CPU time
and their ratios to the plain U-Net. Peak memory is that of a training step, measured in a process of its own for each
network, above what the process had before the step.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from msrf_monai.networks import RecalibratedUNet
from msrf_monai.runtime import tune_allocator

KINDS: tuple[Any, ...] = (None, "cse", "ssr", "multifractal")
Case = tuple[Any, torch.Tensor, torch.Tensor]


def make(kind: Any, batch: int, layout: torch.memory_format) -> Case:
    """Make a network and a batch."""
    torch.manual_seed(0)
    net = RecalibratedUNet(recalibration=kind).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.rand(batch, 3, 224, 224).to(memory_format=layout)
    return net, x, (torch.rand(batch, 1, 224, 224) > 0.5).float()


def evaluate(case: Case) -> None:
    """Run one evaluation."""
    with torch.inference_mode():
        case[0](case[1])


def step(case: Case) -> None:
    """Run the forward and the backward pass of one training step."""
    net, x, y = case
    F.binary_cross_entropy_with_logits(net(x), y).backward()
    net.zero_grad()


def compare(what: str, run: Callable[[Case], None], cases: dict[Any, Case], repeats: int) -> None:
    """Time all networks in turns and print the ratios."""
    walls: dict[Any, list[float]] = {kind: [] for kind in cases}
    cpus: dict[Any, list[float]] = {kind: [] for kind in cases}
    for repeat in range(repeats + 1):
        for kind, case in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(case)
            if repeat:  # the first round warms up
                walls[kind].append(time.perf_counter() - wall)
                cpus[kind].append(time.process_time() - cpu)
    plain_wall, plain_cpu = statistics.median(walls[None]), statistics.median(cpus[None])
    for kind in cases:
        wall, cpu = statistics.median(walls[kind]), statistics.median(cpus[kind])
        name = kind or "plain U-Net"
        print(f"{what:44}{name:14}{wall:9.3f}{wall / plain_wall:7.2f}{cpu:9.3f}{cpu / plain_cpu:7.2f}", flush=True)


def peak_memory(kind: Any, batch: int) -> float:
    """Return the mebibytes that one training step needs above the process itself."""
    tune_allocator()
    case = make(kind, batch, torch.contiguous_format)
    step(make(kind, 1, torch.contiguous_format))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(case)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-batch", type=int, default=16)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of is not None:
        print(peak_memory(options.memory_of or None, options.memory_batch))
        return
    print(f"{'':44}{'':14}{'wall s':>9}{'ratio':>7}{'CPU s':>9}{'ratio':>7}")
    layouts = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
    for threads in options.threads:
        torch.set_num_threads(threads)
        for batch in options.batches:
            for name, layout in layouts.items():
                setting = f"{threads} threads, batch {batch}, {name}"
                repeats = options.repeats if batch == 1 else max(2, options.repeats // 2)
                cases = {kind: make(kind, batch, layout) for kind in KINDS}
                for case in cases.values():
                    case[0].eval()
                compare(f"evaluate, {setting}", evaluate, cases, repeats)
                for case in cases.values():
                    case[0].train()
                compare(f"training, {setting}", step, {kind: cases[kind] for kind in (None, "cse", "ssr")}, repeats)
    command = [sys.executable, __file__, "--memory-batch", str(options.memory_batch), "--memory-of"]
    for kind in KINDS:
        answer = subprocess.run([*command, kind or ""], check=True, capture_output=True, text=True).stdout
        print(f"peak memory, training, batch {options.memory_batch}: {kind or 'plain U-Net':14}{answer.strip()} MiB")


if __name__ == "__main__":
    main()
