"""CPU time of everything around the network for one image: this package against a chain of stock MONAI transforms.

The network is replaced by a constant tensor. Both chains read one 1280 x 1024 image, bring it to the network's size,
and from the network's output save a mask of 1280 x 1024 as PNG. The stock chain is what bundles of the model zoo do:
two output planes, softmax, ``Invertd`` and ``argmax``. Times are CPU time of the process (all threads), the median of
some runs in which the chains take turns; waiting for the disk is not in them.

Run:
    python benchmarks/pre_post_chain.py [--size 256] [--runs 15] [--image FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    CastToTyped,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    Resized,
    SaveImaged,
    ScaleIntensityd,
    ScaleIntensityRanged,
    SqueezeDimd,
)
from PIL import Image

from msrf_monai.transforms import DecideMaskd, EdgeMapd, LoadImage2Dd, Resize2Dd, RestoreSized, SaveMaskd
from msrf_monai.transforms.resampling import ResizeMode

WIDTH, HEIGHT = 1280, 1024
TARGET_MS = 45.0
Steps = list[tuple[str, Callable[[Any], Any]]]
Network = Callable[[torch.Tensor], torch.Tensor]
Chain = tuple[Steps, Network, Steps]


def source_image(given: str | None) -> Image.Image:
    """Return a 1280 x 1024 RGB image: the given one, one of Kvasir-SEG below MSRF_DATA_DIR, or a drawn one."""
    folder = Path(os.environ.get("MSRF_DATA_DIR", "")) / "Kvasir-SEG" / "images"
    found = [Path(given)] if given else sorted(folder.glob("*.jpg"))[:1]
    if found:
        with Image.open(found[0]) as image:
            return image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH, 3), np.float32), (0, 0), 25)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 220
    return Image.fromarray(np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8))


def lesion(size: int) -> torch.Tensor:
    """Return logits (size, size) of a few soft blobs, as a trained network gives them."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).random((size, size)).astype(np.float32), (0, 0), size / 12)
    return torch.from_numpy((noise - np.quantile(noise, 0.8)) / noise.std() * 4)


def ours(size: int, folder: Path, restore: str, mode: ResizeMode) -> Chain:
    """Return the chain that the bundles use: (before the network, network, after it)."""
    resize = Resize2Dd("image", size, mode)
    scale = ScaleIntensityRanged("image", 0, 255, 0, 1)
    before: Steps = [
        ("load", LoadImage2Dd("image")),
        ("resize", resize),
        ("edge map", EdgeMapd("image")),
        ("scale, type", Compose([scale, EnsureTyped("image", dtype=torch.float32)])),
    ]
    logits = lesion(size)[None]
    restorer = (
        Invertd("pred", transform=Compose([resize]), orig_keys="image", nearest_interp=False)
        if restore == "Invertd"
        else RestoreSized("pred")
    )
    after: Steps = [
        ("activate", Activationsd("pred", sigmoid=True)),
        ("restore", restorer),
        ("decide", DecideMaskd("pred")),
        ("save", SaveMaskd("pred", folder, data_root_dir=folder)),
        ("squeeze", SqueezeDimd("pred", dim=0)),
    ]
    return before, lambda _: logits, after


def stock(size: int, folder: Path) -> Chain:
    """Return a chain of MONAI's own transforms, as the zoo's 2-D bundles write it."""
    load, first = LoadImaged("image", reader="PILReader"), EnsureChannelFirstd("image")
    resize = Resized("image", (size, size), mode="bilinear")
    scale, kind = ScaleIntensityd("image"), EnsureTyped("image")
    before: Steps = [("load", Compose([load, first])), ("resize", resize), ("scale, type", Compose([scale, kind]))]
    logits = torch.stack([-lesion(size) / 2, lesion(size) / 2])
    whole = Compose([load, first, resize, scale, kind])
    after: Steps = [
        ("activate", Activationsd("pred", softmax=True)),
        ("restore", Invertd("pred", transform=whole, orig_keys="image", nearest_interp=False)),
        ("decide", Compose([AsDiscreted("pred", argmax=True), CastToTyped("pred", dtype=torch.uint8)])),
        (
            "save",
            SaveImaged("pred", output_dir=folder, output_ext=".png", scale=255, separate_folder=False, print_log=False),
        ),
        ("squeeze", SqueezeDimd("pred", dim=0)),
    ]
    return before, lambda _: logits, after


def measure(
    chains: dict[str, Chain], path: Path, runs: int
) -> tuple[dict[str, dict[str, float]], dict[str, torch.Tensor]]:
    """Return milliseconds of CPU time for each chain and step (medians), and the last mask of each chain."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in chains}
    masks: dict[str, torch.Tensor] = {}
    for run in range(runs + 1):
        for name, (before, network, after) in chains.items():
            data: dict[str, Any] = {"image": str(path)}
            start, into = time.process_time(), times[name] if run else {}
            for step, transform in before:
                data = _timed(transform, data, into.setdefault(step, []))
            # what an engine does between: the output carries the metadata of the input
            data["pred"] = MetaTensor(network(data["image"]).clone()).copy_meta_from(data["image"])
            for step, transform in after:
                data = _timed(transform, data, into.setdefault(step, []))
            into.setdefault("all", []).append(time.process_time() - start)
            masks[name] = data["pred"]
    medians = {
        name: {step: 1e3 * float(np.median(values)) for step, values in steps.items()} for name, steps in times.items()
    }
    return medians, masks


def _timed(step: Callable[[Any], Any], data: Any, into: list[float]) -> Any:
    start = time.process_time()
    result = step(data)
    into.append(time.process_time() - start)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for a JPEG and a PNG file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="side of the network's input (default 256)")
    parser.add_argument("--runs", type=int, default=15, help="runs of which the median is taken (default 15)")
    parser.add_argument("--image", help="image to use instead of one from MSRF_DATA_DIR or a drawn one")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    image = source_image(options.image)
    load = os.getloadavg()[0]
    print(f"load of the machine: {load:.1f} on {os.cpu_count()} CPUs; a busy core shows more ms for the same work\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, settings in (("JPEG", {"quality": 90}), ("PNG", {})):
            path = folder / kind.lower() / f"case.{kind.lower()}"
            path.parent.mkdir()
            image.save(path, **settings)
            chains = {
                "ours": ours(options.size, folder / "ours", "RestoreSized", "lanczos"),
                "ours, Invertd": ours(options.size, folder / "invertd", "Invertd", "lanczos"),
                "ours, area": ours(options.size, folder / "area", "RestoreSized", "area"),
                "stock MONAI": stock(options.size, folder / "stock"),
            }
            times, masks = measure(chains, path, options.runs)
            report(kind, options.size, times)
            same = (masks["ours"] == masks["stock MONAI"]).float().mean().item()
            print(f"masks equal in {100 * same:.3f} % of the pixels\n")


def report(kind: str, size: int, columns: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    print(f"{kind}, {WIDTH} x {HEIGHT} to {size} x {size} and back, CPU ms (median)")
    print(f"{'step':<12}" + "".join(f"{name:>15}" for name in columns))
    for step in columns["ours"]:
        cells = (f"{times[step]:15.1f}" if step in times else f"{'-':>15}" for times in columns.values())
        print(f"{step:<12}" + "".join(cells))
    ratio = columns["stock MONAI"]["all"] / columns["ours"]["all"]
    print(f"ratio stock / ours: {ratio:.1f}")
    if kind == "PNG":
        print("most of a PNG's time is decoding it (inflate and unfilter), which no chain can avoid")
        return
    verdict = "met" if columns["ours"]["all"] <= TARGET_MS else "MISSED"
    print(f"target for JPEG: at most {TARGET_MS:.0f} ms: {verdict}")


if __name__ == "__main__":
    main()
