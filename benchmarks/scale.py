"""What a clinical run costs an image when there are many: by workers here, by Ray, from 100 to 10,000 images.

Small drawn PNG and a network of one convolution, so that nearly all of it is the run's own work: planning, handing out,
reading, writing, syncing and the manifest. Each way of running does each number of images in processes of its own. The
numbers take turns, up and down again in every other round, so that the load of a shared machine meets all of them.

image    wall and CPU milliseconds an image between two numbers of images: what the larger run takes more, divided by
         the images that it has more. All grows into it, planning and the report too, and the start does not.
steady   wall milliseconds an image from the 20th line of the manifest to the 20th from its end
halves   processor time an image in the second half of a run, divided by that in the first half
speed    how fast the machine was meanwhile, beside the first number of images: a loop of Python is timed on the other
         processor ten times a second. A processor that is shared changes its speed by tens of percent
start    seconds from the start of the program to the first finished input
end      seconds from the last finished input to the end of the program
memory   peak MiB of the run's own process, of its largest worker, and of all processes together (the kernel's VmHWM,
         which counts pages that processes share in each of them)

The target is that the time an image and the memory of run and workers stay flat, within 5 %, from 100 to 10,000 images.
That the work itself does not grow is counted, not timed, by tests/clinical/pipeline/test_work_per_input.py.
What handing out costs is the difference between one worker and none.

Run:
    python benchmarks/scale.py [--images 100 1000 10000] [--ways none local1 local2 ray1 ray2] [--rounds 3]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
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
EDGE = 20
LOOK, LOOK_AT_PROCESSES = 0.02, 0.1
LOOP = 20_000
WORKER = (b"worker_process", b"ray::WorkerActor")
MEBI = 1024.0

Found = dict[str, float]


def main() -> None:
    """Measure every way with every number of images."""
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        options.folder = (options.folder or Path(name)).resolve()
        os.environ.update(XDG_CACHE_HOME=str(options.folder / "cache"), OMP_NUM_THREADS="1")
        in_own_process(argparse.Namespace(**vars(options) | {"images": 1}), "weights")
        for number in options.images:
            draw_pictures(options.folder / f"pictures{number}", number, rows=48, columns=64)
        told = {way: report(way, options.images, measure(options, way)) for way in options.ways}
    report_overhead(told, max(options.images))
    if options.json:
        text = json.dumps({"machine": {"processors": os.cpu_count()}, "ways": told}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


def read_options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000], help="above 40 each")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3, help="how often each number of images is done")
    parser.add_argument("--folder", type=Path, help="keep everything here; default: a folder that is removed")
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    options = parser.parse_args()
    options.threads, options.features, options.size = 1, 4, 64
    options.images = sorted(set(options.images))
    if options.images[0] <= 2 * EDGE:
        parser.error(f"--images: expected numbers above {2 * EDGE}")
    return options


def measure(options: argparse.Namespace, way: str) -> dict[int, list[Found]]:
    """Run every number of images so many times, in turn."""
    found: dict[int, list[Found]] = {number: [] for number in options.images}
    for turn in range(options.rounds):
        for number in options.images[:: -1 if turn % 2 else 1]:
            found[number].append(measured(options, way, number))
    return found


def report(way: str, numbers: Sequence[int], found: dict[int, list[Found]]) -> list[Found]:
    """Print one way of running: the middle of all rounds, and how it grows from the least number of images."""
    rows: list[Found] = []
    for number in numbers:
        row = {name: statistics.median(each[name] for each in found[number]) for name in found[number][0]}
        rows.append({"images": number, **row})
    print(f"{way}: {len(found[numbers[0]])} rounds, load {os.getloadavg()[0]:.1f}")
    for row in rows:
        memory = " ".join(
            f"{name} {row[name]:.0f} ({row[name] / rows[0][name]:.3f})" if row[name] else f"{name} -"
            for name in ("run", "worker", "all")
        )
        print(
            f"  {row['images']:6.0f} images: {row['total']:7.1f} s, start {row['start']:5.1f} s, "
            f"end {row['end']:5.1f} s, steady {row['steady']:6.2f} ms "
            f"({row['steady'] / rows[0]['steady']:.3f}), halves {row['halves']:.3f}, "
            f"speed {rows[0]['loop'] / row['loop']:.3f}, MiB {memory}"
        )
    for few, many in pairwise(rows):
        more = many["images"] - few["images"]
        many["wall_each"] = 1e3 * (many["total"] - few["total"]) / more
        many["cpu_each"] = 1e3 * (many["cpu"] - few["cpu"]) / more
        line = f"{many['wall_each']:6.2f} ms and {many['cpu_each']:6.2f} ms of CPU an image"
        if "wall_each" in few:
            line += f" ({many['wall_each'] / few['wall_each']:.3f}, {many['cpu_each'] / few['cpu_each']:.3f})"
        print(f"  {few['images']:6.0f} to {many['images']:6.0f}: {line}", flush=True)
    return rows


def report_overhead(told: dict[str, list[Found]], number: int) -> None:
    """Print what handing out to one worker costs."""
    if "none" not in told or "cpu_each" not in told["none"][-1]:
        return
    alone = told["none"][-1]
    for way in ("local1", "ray1"):
        if way in told:
            wall, cpu = (told[way][-1][name] - alone[name] for name in ("wall_each", "cpu_each"))
            print(f"handing out, {way} less none, at {number} images: {wall:+.2f} ms, {cpu:+.2f} ms of CPU an image")


def measured(options: argparse.Namespace, way: str, number: int) -> Found:
    """Run the command once."""
    output = options.folder / f"{way}-{number}"
    line = [*command(options, options.folder / f"pictures{number}", output, trivial=True), "--outputs", "mask,stats"]
    line += [*WAYS[way], "--no-thumbnails"]
    manifest = output / "manifest.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sizes: list[tuple[float, int]] = []
    peaks: dict[int, int] = {}
    spent: dict[int, float] = {}
    workers: set[int] = set()
    looked = 0.0
    loops: list[float] = []
    history: list[tuple[int, float]] = []
    while process.poll() is None:
        now = time.perf_counter()
        if now - looked > LOOK_AT_PROCESSES:
            looked = now
            loops.append(seconds_of_loop())
            for each in family(process.pid):
                peaks[each] = max(peaks.get(each, 0), high_water(each))
                spent[each] = max(spent.get(each, 0.0), seconds_of(each))
                workers |= {each} if is_worker(each) else set()
            history.append((sizes[-1][1] if sizes else 0, sum(spent.values())))
        size = manifest.stat().st_size if manifest.exists() else 0
        if size > (sizes[-1][1] if sizes else 0):
            sizes.append((now, size))
        time.sleep(LOOK)
    ended = time.perf_counter()
    if process.returncode not in (0, 3) or len(ends := ends_of_lines(manifest)) != number + 1:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    shutil.rmtree(output)
    first, last = (next(moment for moment, size in sizes if size >= ends[place]) for place in (1, -1))
    from_, to = (next(each for each in sizes if each[1] >= ends[place]) for place in (EDGE, -EDGE))
    lines = sum(from_[1] < end <= to[1] for end in ends)
    return {
        "total": ended - began,
        "start": first - began,
        "end": ended - last,
        "steady": 1e3 * (to[0] - from_[0]) / max(1, lines),
        "cpu": sum(spent.values()),
        "halves": second_half_by_first(history, ends),
        "loop": statistics.mean(loops),
        "run": peaks[process.pid] / MEBI,
        "worker": max((peaks[each] for each in workers), default=0) / MEBI,
        "all": sum(peaks.values()) / MEBI,
    }


def second_half_by_first(history: Sequence[tuple[int, float]], ends: Sequence[int]) -> float:
    """Return how much more processor time an image of the second half has taken than one of the first.

    Args:
        history: bytes of the manifest and seconds of all processes, as time went by.
        ends: where each line of the manifest ends.
    """
    seen = [next(each for each in history if each[0] >= ends[place]) for place in (EDGE, len(ends) // 2, -EDGE)]
    lines = [sum(end <= size for end in ends) for size, _ in seen]
    first, second = ((seen[i + 1][1] - seen[i][1]) / max(1, lines[i + 1] - lines[i]) for i in (0, 1))
    return second / first if first else 1.0


def seconds_of_loop() -> float:
    """Return the processor time that a fixed piece of work takes now."""
    began = time.process_time()
    sum(number * number for number in range(LOOP))
    return time.process_time() - began


def seconds_of(number: int) -> float:
    """Return the CPU time of a process so far."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_worker(number: int) -> bool:
    """Return whether a process is one of those that predict."""
    try:
        line = Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return False
    return any(word in line for word in WORKER)


def ends_of_lines(manifest: Path) -> list[int]:
    """Return where each line of a manifest ends; the first one is the header."""
    ends: list[int] = []
    for line in manifest.read_bytes().splitlines(keepends=True):
        known: dict[str, Any] = json.loads(line)
        if bool(ends) != ("state" in known):
            raise SystemExit(f"{manifest}: a line is not what it should be")
        ends.append((ends[-1] if ends else 0) + len(line))
    return ends


if __name__ == "__main__":
    sys.exit(main())
