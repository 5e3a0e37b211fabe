"""What a clinical run costs an image when there are many: by workers here, by Ray, from 100 to 10,000 images.

Small drawn PNG and a network of one convolution, so that nearly all of it is the run's own work: planning, handing out,
reading, writing, syncing and the manifest. For each number of images and each way of running, in its own processes:

time     wall and CPU milliseconds an image, from the first finished input to the last, so that the start is left out
start    seconds from the start of the program to the first finished input
memory   peak MiB of all processes of the run together, pages that they share counted in each

The target is that the time an image and the memory stay flat, within 5 %, from 100 to 10,000 images. What handing out
costs is the difference between one worker and none.

Run:
    python benchmarks/scale.py [--images 100 1000 10000] [--ways none local1 local2 ray1 ray2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clinical_pipeline import command, draw_pictures, family, high_water, in_own_process

WAYS: dict[str, list[str]] = {
    "none": [],
    "local1": ["--num-workers", "1"],
    "local2": ["--num-workers", "2"],
    "ray1": ["--num-workers", "1", "--engine", "ray"],
    "ray2": ["--num-workers", "2", "--engine", "ray"],
}


def main() -> None:
    """Measure every way with every number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="keep everything here; default: a folder that is removed")
    options = parser.parse_args()
    options.threads, options.features, options.rounds = 1, 4, 1
    with tempfile.TemporaryDirectory() as name:
        options.folder = (options.folder or Path(name)).resolve()
        os.environ.update(XDG_CACHE_HOME=str(options.folder / "cache"), OMP_NUM_THREADS="1")
        in_own_process(argparse.Namespace(**vars(options) | {"images": 1}), "weights")
        for way in options.ways:
            least: dict[str, float] = {}
            for number in options.images:
                draw_pictures(options.folder / f"pictures{number}", number, rows=48, columns=64)
                found = measured(options, way, number)
                least = least or found
                slower, larger = found["each"] / least["each"], found["peak"] / least["peak"]
                print(
                    f"{way:7} {number:6} images: {found['each']:6.1f} ms an image ({slower:.2f}), "
                    f"{found['cpu']:6.1f} ms of CPU, start {found['start']:5.1f} s, "
                    f"peak {found['peak']:6.0f} MiB ({larger:.2f}), load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )


def measured(options: argparse.Namespace, way: str, number: int) -> dict[str, float]:
    """Run the command once."""
    output = options.folder / f"{way}-{number}"
    line = [*command(options, options.folder / f"pictures{number}", output, trivial=True), "--outputs", "mask,stats"]
    line += [*WAYS[way], "--no-thumbnails"]
    manifest = output / "manifest.jsonl"
    began, before = time.perf_counter(), os.times()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    first = last = 0.0
    seen = 0
    while process.poll() is None:
        for each in family(process.pid):
            peaks[each] = max(peaks.get(each, 0), high_water(each))
        size = manifest.stat().st_size if manifest.exists() else 0
        if size > seen:
            last, seen = time.perf_counter(), size
            first = first or (last if _lines(manifest) else 0.0)
        time.sleep(0.02)
    after = os.times()
    if process.returncode not in (0, 3) or _lines(manifest) != number:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "each": 1e3 * (last - first) / max(1, number - 1),
        "cpu": 1e3 * cpu / number,
        "start": first - began,
        "peak": sum(peaks.values()) / 1024,
    }


def _lines(manifest: Path) -> int:
    """Return how many inputs are in a manifest; its first line is the header."""
    lines: list[dict[str, Any]] = []
    if manifest.exists():
        lines = [json.loads(line) for line in manifest.read_bytes().splitlines() if line.endswith(b"}")]
    return sum("state" in line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
