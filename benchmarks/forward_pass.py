"""Evaluation forward of MSRF-Net (chain10, 256x256), IMFF-Net (512x512) and Hi-gMISnet's generator (256x256), batch 1.

The baseline is the plain network, NCHW, eager, with glibc's default allocator, and with what was published where ours
has an equal faster form by default: IMFF-Net's fusion at twice the size, PyTorch's own instance norm in the generator.
The faster forms: the fusion at the low resolution, the generator's norm as a group norm, channels-last layout, folded
norms with merged convolutions, the allocator setting, huge pages, and OpenVINO. Every form runs in a process of its
own, since the allocator cannot be set back, and the forms take turns so that a change in the machine's load meets all
of them. Printed: median and minimum wall time, process CPU time, the ratio to the baseline, GFLOP/s beside what the
machine's best 3x3 convolution reaches, and the largest difference of the logits from the baseline's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from msrf_monai.networks import HiGMISNetGenerator, IMFFNet, MSRFNet
from msrf_monai.networks.blocks import AttentionPoolingFusion, ImageNorm
from msrf_monai.networks.inference import OpenVINONetwork, optimize_for_inference
from msrf_monai.runtime import tune_allocator

NETWORKS = {"msrf_net": (256, 32), "imff_net": (512, 64), "higmis_net": (256, 32)}
"""Image size and number of features of the published networks."""
FORMS = (
    "published, NCHW",
    "plain NCHW",
    "group norm",
    "channels last",
    "folded and merged",
    "… and allocator",
    "… and huge pages",
    "OpenVINO",
    "… with huge pages",
)
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1"}
"""Environment in which glibc and PyTorch ask the kernel for pages of 2 MiB where it grants them on request."""


def forms_of(network: str) -> list[str]:
    """Return the forms that differ for a network.

    Only the generator has norms of each image; only IMFF-Net has a fusion whose published form is not the default.
    """
    only = {"group norm": "higmis_net", "published, NCHW": "imff_net"}
    return [form for form in FORMS if only.get(form, network) == network]


def make(network: str, size: int, features: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """Make a network with norms that are not the identity, and an image."""
    if network == "msrf_net":
        net, channels = MSRFNet(features=features), 4
    elif network == "imff_net":
        net, channels = IMFFNet(features=[features * 2**k for k in range(5)]), 3
    else:
        net, channels = HiGMISNetGenerator(features=features), 3
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return net.eval(), torch.rand(1, channels, size, size)


def prepare(form: str, net: torch.nn.Module, x: torch.Tensor, threads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make one form of the network."""
    if form == "published, NCHW":
        for fusion in (m for m in net.modules() if isinstance(m, AttentionPoolingFusion)):
            fusion.form = "literal"
    if form == "plain NCHW":
        return with_plain_norms(net)
    if form == "channels last":
        return net.to(memory_format=torch.channels_last)
    if form in ("OpenVINO", "… with huge pages"):
        return OpenVINONetwork(net, x, threads=threads)
    if form in ("… and allocator", "… and huge pages"):
        tune_allocator()
    return net if form in ("published, NCHW", "group norm") else optimize_for_inference(net)


def with_plain_norms(net: torch.nn.Module) -> torch.nn.Module:
    """Put PyTorch's own instance norm in the place of ours."""
    for parent in list(net.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, ImageNorm):
                plain = torch.nn.InstanceNorm2d(norm.num_features, norm.eps, affine=True)
                plain.load_state_dict(norm.state_dict())
                setattr(parent, name, plain)
    return net


def measure(form: str, network: str, size: int, features: int, repeats: int, threads: int) -> dict[str, object]:
    """Time one form in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net, x = make(network, size, features)
    with torch.inference_mode():
        expected = net(x)
        run = prepare(form, net, x, threads)
        for _ in range(2):
            out = run(x)
        walls, cpus = [], []
        for _ in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            run(x)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    return {"walls": walls, "cpus": cpus, "difference": (out - expected).abs().max().item()}


def conv_ceiling(threads: int) -> float:
    """Return the GFLOP/s of the best of a few large 3x3 convolutions in channels-last layout."""
    torch.set_num_threads(threads)
    best = 0.0
    for channels, size in ((64, 128), (128, 64), (256, 64)):
        x = torch.rand(1, channels, size, size).to(memory_format=torch.channels_last)
        weight = torch.rand(channels, channels, 3, 3).to(memory_format=torch.channels_last)
        flop = 2 * channels * channels * 9 * size * size
        with torch.inference_mode():
            for _ in range(8):
                start = time.perf_counter()
                F.conv2d(x, weight, padding=1)
                best = max(best, flop / (time.perf_counter() - start) / 1e9)
    return best


def main() -> None:
    """Run the networks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, help="default: all")
    parser.add_argument("--size", type=int, help="default: as published")
    parser.add_argument("--features", type=int, help="of the first stage; default: as published")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for network in [options.network] if options.network else NETWORKS:
        size, features = options.size or NETWORKS[network][0], options.features or NETWORKS[network][1]
        if options.form:
            print(json.dumps(measure(options.form, network, size, features, options.repeats, options.threads)))
        else:
            compare(network, size, features, options.rounds, options.repeats, options.threads)


def compare(network: str, size: int, features: int, rounds: int, repeats: int, threads: int) -> None:
    """Run every form several times in turn and print the table."""
    forms = forms_of(network)
    walls: dict[str, list[float]] = {form: [] for form in forms}
    cpus: dict[str, list[float]] = {form: [] for form in forms}
    differences: dict[str, float] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    for _ in range(rounds):
        for form in forms:
            settings = HUGE_PAGES if form.endswith("huge pages") else {}
            command = [sys.executable, __file__, "--form", form, "--network", network, "--size", str(size)]
            command += ["--features", str(features), "--repeats", str(repeats), "--threads", str(threads)]
            answer = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment | settings
            ).stdout
            result = json.loads(answer.strip().splitlines()[-1])
            walls[form] += result["walls"]
            cpus[form] += result["cpus"]
            differences[form] = result["difference"]
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        net, x = make(network, size, features)
        net(x)
    gflop = counter.get_total_flops() / 1e9
    ceiling = conv_ceiling(threads)
    base, base_cpu = statistics.median(walls[forms[0]]), statistics.median(cpus[forms[0]])
    print(f"{network}, {features} features, {size}x{size}, {threads} threads")
    print(
        f"{gflop:.0f} GFLOP an image; best 3x3 convolution here: {ceiling:.0f} GFLOP/s; load {os.getloadavg()[0]:.1f}"
    )
    widths = {
        "wall s": 9,
        "(min)": 9,
        "ratio": 8,
        "CPU s": 9,
        "CPU ratio": 10,
        "GFLOP/s": 9,
        "of best": 9,
        "max diff": 11,
    }
    print(f"{'form':24}" + "".join(f"{title:>{width}}" for title, width in widths.items()))
    for form in forms:
        wall, cpu = statistics.median(walls[form]), statistics.median(cpus[form])
        rate = gflop / min(walls[form])
        print(
            f"{form:24}{wall:9.3f}{min(walls[form]):9.3f}{base / wall:8.2f}{cpu:9.3f}{base_cpu / cpu:10.2f}"
            f"{rate:9.0f}{rate / ceiling:9.0%}{differences[form]:11.1e}"
        )


if __name__ == "__main__":
    main()
