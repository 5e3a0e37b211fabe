"""A whole slide, window by window, with a network that costs next to nothing: time and peak memory of each way.

The slide is generated: JPEG tiles of 512 x 512 pixels, 0.25 micrometres, levels 1:4 and 1:16, a third of it tissue.
It is written tile by tile, so that 50,000 x 50,000 pixels need no more memory than 10,000 x 10,000. Each way runs in a
process of its own. The ways by hand decode the same tiles, run the same network and keep the mask in memory; they
blend nothing, write nothing and check nothing.

Run:
    python benchmarks/slide_tiling.py [--size 10000] [--tile 512] [--ways skip overlap tifffile …] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from msrf_monai.clinical.slides import PyramidSink, TileOptions, open_slide, plan_tiles, predict_slide

STORED, STEP, LEVELS = 512, 4, 3
APERIO = "Aperio Image Library\r\n|AppMag = 40|MPP = 0.25"
Pixels = npt.NDArray[np.uint8]

WAYS = {
    "skip": "predict_slide, overlap 25 %, glass skipped",
    "overlap": "predict_slide, overlap 25 %, every window",
    "plain": "predict_slide, no overlap, every window",
    "tifffile": "by hand with tifffile, no overlap, every tile",
    "tiffslide": "by hand with tiffslide, the windows of 'overlap', the last one wins",
}


def main() -> None:
    """Generate the slide and measure each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="height and width in pixels")
    parser.add_argument("--tile", type=int, default=512, help="of the network's windows")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="keep the slide here; default: a folder that is removed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.folder / "slide.svs", options.one, options.tile)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = options.folder or Path(folder)
        path = options.folder / "slide.svs"
        if not path.exists():
            started = time.perf_counter()
            write_slide(path, options.size)
            took = time.perf_counter() - started
            print(f"slide: {path.stat().st_size >> 20} MiB in {took:.1f} s, peak {peak_mib():.0f} MiB", flush=True)
        results = {way: in_own_process(options, way) for way in options.ways}
    report(options, results)


def report(options: argparse.Namespace, results: dict[str, dict[str, float]]) -> None:
    """Print what was measured."""
    base = results.get("tifffile", {}).get("wall_s")
    print(f"{options.size} x {options.size}, windows of {options.tile}, load {os.getloadavg()[0]:.1f}")
    for way, found in results.items():
        ratio = f" x{found['wall_s'] / base:5.2f}" if base else ""
        print(
            f"{way:10} {found['wall_s']:8.1f} s wall{ratio} {found['cpu_s']:8.1f} s CPU {found['peak_mib']:7.0f} MiB "
            f"{found['windows']:7.0f} windows {found['foreground']:12.0f} px  {WAYS[way]}"
        )


def in_own_process(options: argparse.Namespace, way: str) -> dict[str, float]:
    """Measure one way in a fresh process, so that peaks do not mix."""
    command = [sys.executable, __file__, "--one", way, "--tile", str(options.tile), "--folder", str(options.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(path: Path, way: str, tile: int) -> dict[str, float]:
    """Run one way and return its figures."""
    started, cpu = time.perf_counter(), time.process_time()
    windows, foreground = {"tifffile": by_tifffile, "tiffslide": by_tiffslide}.get(way, ours(way))(path, tile)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "windows": windows,
        "foreground": foreground,
    }


def peak_mib() -> float:
    """Return this program's peak memory; getrusage would count from before it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def network(windows: Pixels) -> npt.NDArray[np.float32]:
    """Probabilities that cost one pass over the pixels: the darker the green, the surer."""
    return np.clip((200 - windows[..., 1].astype(np.float32)) / 160, 0, 1)[:, None]


def ours(way: str) -> Callable[[Path, int], tuple[int, int]]:
    """Return the package's way: blended, written as pyramid OME-TIFF, verified."""

    def run(path: Path, tile: int) -> tuple[int, int]:
        options = TileOptions(tile=(tile, tile), overlap=0.0 if way == "plain" else 0.25, skip_background=way == "skip")
        with open_slide(path) as slide:
            result = predict_slide(slide, network, PyramidSink(path.with_suffix(".ome.tif")), options)
        return result.windows - result.skipped, sum(result.pixels)

    return run


def by_tifffile(path: Path, tile: int) -> tuple[int, int]:
    """Decode every stored tile in turn, run the network on it, and keep the mask."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        mask = np.zeros(page.shape[:2], np.uint8)
        count = 0
        for pixels, place, _ in page.segments(maxworkers=1):
            y, x = place[2], place[3]
            found = (network(pixels[0][None])[0, 0] >= 0.5).astype(np.uint8)
            part = mask[y : y + STORED, x : x + STORED]
            part[:] = found[: part.shape[0], : part.shape[1]]
            count += 1
    return count, int(mask.sum(dtype=np.int64))


def by_tiffslide(path: Path, tile: int) -> tuple[int, int]:
    """Read the windows of the plan with tiffslide, run the network on each, and keep the mask."""
    import tiffslide

    with open_slide(path) as slide:
        plan = plan_tiles(slide, TileOptions(tile=(tile, tile), skip_background=False))
    with tiffslide.TiffSlide(path) as slide:
        mask = np.zeros(slide.dimensions[::-1], np.uint8)
        for top, lefts in plan.rows():
            for left in lefts:
                pixels = slide.read_region((left, top), 0, (tile, tile), as_array=True)
                mask[top : top + tile, left : left + tile] = network(pixels[None])[0, 0] >= 0.5
    return plan.kept.size, int(mask.sum(dtype=np.int64))


def write_slide(path: Path, size: int) -> None:
    """Write a slide from a small stock of tiles, each compressed once a level."""
    stock = [drawn(seed) for seed in range(8)]
    kinds = laid_out(-(-size // STORED))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(LEVELS):
            side = -(-size // STEP**level)
            writer.write(
                level_tiles(stock, kinds, level, -(-side // STORED)),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(STORED, STORED),
                compression="jpeg",
                photometric="rgb",
                description=APERIO if level == 0 else None,
                subfiletype=int(level > 0),
                metadata=None,
            )


def drawn(seed: int) -> Pixels:
    """Draw a tile: number 0 is glass, the others are tissue with nuclei."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 2, (STORED, STORED, 3))
    if seed == 0:
        return np.clip(noise + np.array([245, 244, 246]), 0, 255).astype(np.uint8)
    tile = np.full((STORED, STORED, 3), (215, 150, 190), np.uint8)
    for x, y in random.integers(0, STORED, (160, 2)).tolist():
        cv2.circle(tile, (x, y), int(random.integers(4, 11)), (95, 50, 130), -1, cv2.LINE_AA)
    return np.clip(tile + noise, 0, 255).astype(np.uint8)


def laid_out(across: int) -> Pixels:
    """Return which tile lies where: tissue in an ellipse off the centre."""
    y, x = np.mgrid[:across, :across] / across
    inside = ((y - 0.6) / 0.32) ** 2 + ((x - 0.4) / 0.33) ** 2 < 1
    kinds = np.random.default_rng(1).integers(1, 8, (across, across))
    return np.where(inside, kinds, 0).astype(np.uint8)


def level_tiles(stock: list[Pixels], kinds: Pixels, level: int, across: int) -> Iterator[bytes]:
    """Yield the compressed tiles of one level, row by row; equal ones are compressed once."""
    many, small = STEP**level, STORED // STEP**level
    parts = [cv2.resize(tile, (small, small), interpolation=cv2.INTER_AREA) for tile in stock]
    known: dict[bytes, bytes] = {}
    for row in range(across):
        for column in range(across):
            here = np.zeros((many, many), np.uint8)
            part = kinds[row * many : (row + 1) * many, column * many : (column + 1) * many]
            here[: part.shape[0], : part.shape[1]] = part
            key = here.tobytes()
            if key not in known:
                tile = np.vstack([np.hstack([parts[kind] for kind in line]) for line in here])
                if level > 0:
                    # there nearly every tile is another one
                    known.clear()
                known[key] = bytes(imagecodecs.jpeg8_encode(tile, level=80, colorspace="RGB", outcolorspace="RGB"))
            yield known[key]


if __name__ == "__main__":
    main()
