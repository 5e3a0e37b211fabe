"""What the exact low-resolution form of IMFF-Net's attention-pooling fusion saves of the whole network's time.

The literal form and the low-resolution form of the same network (one set of weights) take turns in one process.
Printed: median wall and CPU time of the evaluation, the saving, and the largest difference of the logits.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from msrf_monai.networks import IMFFNet
from msrf_monai.runtime import tune_allocator

FORMS = ("literal", "low_resolution")


def main() -> None:
    """Time both forms in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_allocator()
    torch.manual_seed(0)
    features = [options.features * 2**k for k in range(5)]
    nets = {form: IMFFNet(features=features, apf_form=form).eval() for form in FORMS}
    nets["low_resolution"].load_state_dict(nets["literal"].state_dict())
    print(f"IMFF-Net, {options.features} features, {options.size}x{options.size}, {options.threads} threads")
    for name, layout in (("NCHW", torch.contiguous_format), ("channels last", torch.channels_last)):
        x = torch.rand(1, 3, options.size, options.size).to(memory_format=layout)
        walls: dict[str, list[float]] = {form: [] for form in FORMS}
        cpus: dict[str, list[float]] = {form: [] for form in FORMS}
        outputs = {}
        with torch.inference_mode():
            for repeat in range(options.repeats + 1):
                for form, net in nets.items():
                    net.to(memory_format=layout)
                    wall, cpu = time.perf_counter(), time.process_time()
                    outputs[form] = net(x)
                    if repeat:  # the first round warms up
                        walls[form].append(time.perf_counter() - wall)
                        cpus[form].append(time.process_time() - cpu)
        wall = {form: statistics.median(walls[form]) for form in FORMS}
        cpu = {form: statistics.median(cpus[form]) for form in FORMS}
        difference = (outputs["literal"] - outputs["low_resolution"]).abs().max().item()
        saved = [1 - times["low_resolution"] / times["literal"] for times in (wall, cpu)]
        print(
            f"{name:14} literal {wall['literal']:.3f} s, low resolution {wall['low_resolution']:.3f} s: "
            f"saves {saved[0]:.1%} wall, {saved[1]:.1%} CPU; largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
