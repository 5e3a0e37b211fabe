"""Clinical batch prediction with the polyp bundle: what a run costs beside its network, its start, its memory.

ratio    ``msrf_monai.clinical.predict`` on pictures of 1280 x 1024 against the same predictor's ``infer`` on the same
         pictures, prepared beforehand: wall and CPU time, in one process. The pictures are done in rounds, each a run
         between two halves of the pure inference, so that the load of a shared machine, whose speed changes by a third
         within minutes, meets both. The target is 1.15.
startup  From the start of the program to the first line of an input in ``manifest.jsonl``, and how that splits into
         importing, loading the weights (exporting the network, where a backend needs that) and the first picture.
memory   Peak memory of ``msrf-monai predict`` on 100, 1,000 and 5,000 small pictures with a network of one
         convolution; the target is that it does not grow.

The network has the published width, the published size of images and seeded weights, which change no time; --features 8
--size 128 is what the bundle ships. Everything is written into a temporary
folder, exported networks too. Slides have ``benchmarks/slide_tiling.py``; 50,000 x 50,000 pixels are its ``--size
50000``.

Run:
    python benchmarks/clinical_pipeline.py [--parts ratio startup memory] [--images 200] [--backends eager openvino]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from msrf_monai.data.synthetic import synthesize_image

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "msrf_net_polyp_segmentation"
WIDTH, HEIGHT = 1280, 1024
TARGET = 1.15
PARTS = ("ratio", "startup", "memory")
TRIVIAL = {"_target_": "torch.nn.Conv2d", "in_channels": 4, "out_channels": 1, "kernel_size": 1}
SMALL = [64, 64]
STARTED = "CLINICAL_PIPELINE_STARTED"


def main() -> None:
    """Measure each part in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=200, help="pictures of 1280 x 1024 for the ratio")
    parser.add_argument("--rounds", type=int, default=10, help="runs that the pictures of the ratio are divided among")
    parser.add_argument("--backends", nargs="+", default=["eager", "openvino"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--features", type=int, default=32, help="width of the network; 32 is published")
    parser.add_argument("--size", type=int, default=256, help="to which pictures are resized; 256 is published")
    parser.add_argument("--starts", type=int, default=3, help="how often the start is measured")
    parser.add_argument("--files", type=int, nargs="+", default=[100, 1000, 5000], help="small pictures for the memory")
    parser.add_argument("--folder", type=Path, help="keep everything here; default: a folder that is removed")
    parser.add_argument("--one", choices=("weights", "ratio", "startup"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        child = {"weights": save_weights, "ratio": measured_ratio, "startup": measured_start}[options.one]
        print(json.dumps(child(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        options.folder = (options.folder or Path(name)).resolve()
        os.environ["XDG_CACHE_HOME"] = str(options.folder / "cache")
        in_own_process(options, "weights")
        for part in options.parts:
            {"ratio": report_ratio, "startup": report_start, "memory": report_memory}[part](options)


def report_ratio(options: argparse.Namespace) -> None:
    """Print what a run costs beside its network."""
    draw_pictures(options.folder / "pictures", options.images)
    for backend in options.backends:
        found = in_own_process(options, "ratio", backend)
        print(
            f"{backend}: {options.images} PNG of {WIDTH} x {HEIGHT}, {options.threads} threads, "
            f"load {os.getloadavg()[0]:.1f}"
        )
        for clock in ("wall", "cpu"):
            run, pure = found[f"run_{clock}"], found[f"pure_{clock}"]
            each = 1e3 * (run - pure) / options.images
            verdict = f" (target {TARGET})" if clock == "wall" else ""
            print(
                f"  {clock:4} whole run {run:8.2f} s, network alone {pure:8.2f} s, "
                f"ratio {run / pure:.3f}{verdict}, {each:6.1f} ms more a picture"
            )
        print(
            "  stages, mean ms a picture: "
            + ", ".join(f"{stage} {1e3 * seconds:.0f}" for stage, seconds in found["stages"].items())
            + f"; after the last line {1e3 * found['ending']:.0f} ms in all\n  ratio of each round: "
            + " ".join(f"{ratio:.2f}" for ratio in sorted(found["ratios"])),
            flush=True,
        )


def report_start(options: argparse.Namespace) -> None:
    """Print how long the first result takes."""
    draw_pictures(options.folder / "pictures", 1)
    for backend in options.backends:
        first = in_own_process(options, "startup", backend)
        # the first one also brings the files into the system's memory, and exports where a backend needs that
        print(f"{backend}: first start on this machine {first['total']:.2f} s, loading {first['weights']:.2f} s of it")
        splits = [in_own_process(options, "startup", backend) for _ in range(options.starts)]
        totals = [start_of_command(options, backend) for _ in range(options.starts)]
        stages = ", ".join(
            f"{stage} {statistics.median(split[stage] for split in splits):.2f}"
            for stage in ("import", "weights", "first picture")
        )
        print(
            f"  msrf-monai predict to the first line: {statistics.median(totals):.2f} s (least {min(totals):.2f}); "
            f"split of the same as a script, s: {stages}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def report_memory(options: argparse.Namespace) -> None:
    """Print the peak memory for different numbers of inputs."""
    least = None
    for number in options.files:
        folder = options.folder / f"small{number}"
        draw_pictures(folder, number, rows=48, columns=64)
        peak, seconds = peak_of_command(command(options, folder, options.folder / f"small{number}.out", trivial=True))
        least = least or peak
        print(
            f"{number:6} small pictures: peak {peak:6.0f} MiB, {peak - least:+5.0f} MiB, {seconds:6.1f} s, "
            f"{1e3 * seconds / number:5.1f} ms a picture",
            flush=True,
        )


def in_own_process(options: argparse.Namespace, what: str, backend: str = "eager") -> Any:
    """Measure one thing in a fresh process."""
    line = [sys.executable, __file__, "--one", what, "--backends", backend, "--folder", str(options.folder)]
    line += [
        "--rounds",
        str(options.rounds),
        "--threads",
        str(options.threads),
        "--features",
        str(options.features),
        "--size",
        str(options.size),
        "--images",
        str(options.images),
    ]
    environment = {**os.environ, STARTED: str(time.time())}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def network_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Return what makes the bundle's network the one that is measured."""
    size = [options.size, options.size]
    return {"network_def::features": options.features, "image_size": size, "patch_size": size}


def command(options: argparse.Namespace, inputs: Path, output: Path, *, trivial: bool, backend: str = "eager") -> Any:
    """Return the line that a user would type."""
    trivially = {"network_def": TRIVIAL, "image_size": SMALL, "patch_size": SMALL}
    overrides = trivially if trivial else network_overrides(options)
    line = [sys.executable, "-m", "msrf_monai.cli.main", "predict", str(BUNDLE), str(inputs), "--output", str(output)]
    line += ["--device", "cpu", "--backend", backend, "--threads", str(options.threads), "--quiet"]
    line += ["--weights", str(options.folder / ("trivial.pt" if trivial else "model.pt"))]
    for key, value in overrides.items():
        line += ["--set", f"{key}={json.dumps(value)}"]
    return line


def start_of_command(options: argparse.Namespace, backend: str) -> float:
    """Return the seconds from the start of the program to the first input's line."""
    output = options.folder / f"start{time.time_ns()}"
    manifest = output / "manifest.jsonl"
    started = time.perf_counter()
    process = subprocess.Popen(
        command(options, options.folder / "pictures" / "00000.png", output, trivial=False, backend=backend),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (manifest.exists() and b'"state"' in manifest.read_bytes()):
        if process.poll() not in (None, 0, 3):
            raise SystemExit("msrf-monai predict failed")
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    process.wait()
    return seconds


def peak_of_command(line: list[str]) -> tuple[float, float]:
    """Run a program; return the peak memory of it and its children in MiB, and its seconds."""
    started = time.perf_counter()
    peaks: dict[int, int] = {}
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        for number in family(process.pid):
            # the highest that the kernel has seen so far, so that nothing between two looks is missed
            peaks[number] = max(peaks.get(number, 0), high_water(number))
        time.sleep(0.02)
    if process.returncode not in (0, 3):
        raise SystemExit(f"msrf-monai predict ended with {process.returncode}")
    return sum(peaks.values()) / 1024, time.perf_counter() - started


def family(number: int) -> Iterable[int]:
    """Yield a process and those that it has started."""
    yield number
    try:
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def high_water(number: int) -> int:
    """Return the peak memory of a process in KiB; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def draw_pictures(folder: Path, number: int, *, rows: int = HEIGHT, columns: int = WIDTH) -> None:
    """Write PNG pictures, all different, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [path for path in (folder / f"{index:05}.png" for index in range(number)) if not path.exists()]
    if not missing:
        return
    stock = [synthesize_image("lesion", seed=seed, size=(rows, columns))[0] for seed in range(8)]
    for path in missing:
        index = int(path.stem)
        # a shift makes another picture of the same kind, and costs nothing
        drawn = np.roll(stock[index % len(stock)], (index // len(stock), index), (0, 1))
        cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))


def save_weights(options: argparse.Namespace) -> dict[str, float]:
    """Write seeded weights of both networks."""
    import torch

    from msrf_monai.bundle import build_network

    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, change in (("model", network_overrides(options)), ("trivial", {"network_def": TRIVIAL})):
        torch.save(build_network(BUNDLE, **change).state_dict(), options.folder / f"{name}.pt")
    return {}


def loaded(options: argparse.Namespace) -> Any:
    """Return the predictor; exported networks are in the cache folder that ``main`` has set."""
    from msrf_monai.clinical.predictor import Predictor, PredictorOptions

    settings = PredictorOptions(
        device="cpu",
        backend=options.backends[0],
        weights=options.folder / "model.pt",
        num_threads=options.threads,
        overrides=tuple(network_overrides(options).items()),
    )
    return Predictor.from_bundle(BUNDLE, settings)


def measured_ratio(options: argparse.Namespace) -> dict[str, Any]:
    """Time the network alone and a whole run with the same predictor."""
    from msrf_monai.clinical.ledger import read_manifest
    from msrf_monai.clinical.reading import open_case
    from msrf_monai.runtime import tune_allocator

    tune_allocator()  # as the command does, whose process this one stands for
    predictor = loaded(options)
    paths = sorted((options.folder / "pictures").iterdir())[: options.images]
    per_round = max(1, len(paths) // options.rounds)
    rounds = [paths[first : first + per_round] for first in range(0, len(paths), per_round)]
    for item in [predictor.prepare(open_case(path), 0) for path in paths[:2]]:
        predictor.infer(item)
    found = [
        timed_round(predictor, part, options.folder / f"ratio{time.time_ns()}-{number}", read_manifest)
        for number, part in enumerate(rounds)
    ]
    entries = [entry for each in found for entry in each["entries"]]
    if [entry.state for entry in entries] != ["done"] * len(paths):
        raise SystemExit("some pictures were not predicted")
    stages = {
        stage: statistics.fmean(entry.timings[stage] for entry in entries) for stage in ("read", "predict", "write")
    }
    sums = {key: sum(each[key] for each in found) for key in ("run_wall", "run_cpu", "pure_wall", "pure_cpu", "ending")}
    return {**sums, "stages": stages, "ratios": [each["run_wall"] / each["pure_wall"] for each in found]}


def timed_round(predictor: Any, paths: list[Path], output: Path, read_manifest: Any) -> dict[str, Any]:
    """Time a run on a few pictures between two halves of pure inference on the same ones."""
    from msrf_monai.clinical import predict
    from msrf_monai.clinical.reading import open_case

    items = [predictor.prepare(open_case(path), 0) for path in paths]
    half = len(items) // 2
    before = clocked(lambda: [predictor.infer(item)["seconds"] for item in items[:half]])
    watch = Watch()
    run = clocked(lambda: predict(predictor, paths, output, observer=watch))
    ending = time.perf_counter() - watch.last
    after = clocked(lambda: [predictor.infer(item)["seconds"] for item in items[half:]])
    return {
        "run_wall": run[0],
        "run_cpu": run[1],
        "pure_wall": before[0] + after[0],
        "pure_cpu": before[1] + after[1],
        "ending": ending,
        "entries": read_manifest(output).entries,
    }


def measured_start(options: argparse.Namespace) -> dict[str, float]:
    """Time the steps to the first result; what this script itself imports counts as importing."""
    started = float(os.environ[STARTED])
    from msrf_monai.clinical import predict
    from msrf_monai.clinical.predictor import Predictor

    imported = time.time()
    predictor: Predictor = loaded(options)
    weights = time.time()
    watch = Watch()
    predict(
        predictor,
        options.folder / "pictures" / "00000.png",
        options.folder / f"start{time.time_ns()}",
        observer=watch,
        report=False,
    )
    first = weights + watch.first - watch.made
    return {
        "import": imported - started,
        "weights": weights - imported,
        "first picture": first - weights,
        "total": first - started,
    }


class Watch:
    """Notes when the first and the last input were finished."""

    def __init__(self) -> None:
        self.made = time.perf_counter()
        self.first = 0.0
        self.last = 0.0

    def begin(self, inputs: int, frames: int) -> None:
        """Told the plan."""

    def ended(self, entry: Any, frames: int, is_new: bool) -> None:
        """Told of an input."""
        self.last = time.perf_counter()
        self.first = self.first or self.last


def clocked(call: Any) -> tuple[float, float]:
    """Return the wall and CPU seconds of a call, all threads counted."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
