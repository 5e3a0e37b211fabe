"""Whole data sets of drawn pictures, laid out as ``prepare`` lays out real ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from msrf_monai.data.folder import Entry, new_dataset_folder, write_datalist
from msrf_monai.data.pictures import encode_png
from msrf_monai.data.splits import PARTS, assign_folds
from msrf_monai.data.synthetic.lesions import draw_lesions
from msrf_monai.data.synthetic.nuclei import draw_nuclei
from msrf_monai.data.synthetic.vessels import draw_vessels
from msrf_monai.errors import InputError

__all__ = ["SyntheticCase", "SyntheticKind", "synthesize_case", "synthesize_dataset", "synthesize_image"]

SyntheticKind = Literal["lesion", "nuclei", "vessels"]

SMALLEST_PX = 32
_SUBJECTS = {
    "lesion": "drawn mucosa with polyp-like lesions",
    "nuclei": "drawn cell nuclei, fluorescent or stained",
    "vessels": "drawn retinas with vessel trees",
}
_LABELS = {"lesion": "lesion", "nuclei": "nucleus", "vessels": "vessel"}


@dataclass(frozen=True)
class SyntheticCase:
    """A drawn picture and everything that is known of it.

    Attributes:
        image: RGB, uint8, (H, W, 3).
        mask: the objects as drawn, before any blur, uint8 {0, 255}, (H, W).
        instances: number of the object at each pixel from 1, 0 elsewhere, int32, (H, W); nuclei only.
        field_of_view: uint8 {0, 255}, (H, W); vessels only.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.int32] | None = None
    field_of_view: NDArray[np.uint8] | None = None


def synthesize_case(kind: str, seed: int, size: tuple[int, int]) -> SyntheticCase:
    """Draw one picture with its mask and what else is known of it.

    Args:
        kind: "lesion" (an endoscope's view), "nuclei" (a microscope's) or "vessels" (a fundus camera's).
        seed: the same number draws the same picture, whatever was drawn before.
        size: height and width in pixels, 32 or more each.

    Returns:
        The picture, its mask, and instances or field of view.

    Raises:
        InputError: when the kind is unknown, the seed negative or the size too small.
    """
    _check(kind, seed, size)
    rng = np.random.default_rng([get_args(SyntheticKind).index(kind), seed])
    if kind == "lesion":
        return SyntheticCase(*draw_lesions(rng, size))
    if kind == "nuclei":
        return SyntheticCase(*draw_nuclei(rng, size))
    image, mask, field_of_view = draw_vessels(rng, size)
    return SyntheticCase(image, mask, field_of_view=field_of_view)


def synthesize_image(kind: str, seed: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one picture and its mask; arguments and errors are those of ``synthesize_case``.

    Returns:
        RGB uint8 (H, W, 3), and the mask uint8 {0, 255} (H, W).

    Example:
        >>> image, mask = synthesize_image("lesion", seed=1, size=(96, 128))
        >>> image.shape, mask.shape
        ((96, 128, 3), (96, 128))
    """
    case = synthesize_case(kind, seed, size)
    return case.image, case.mask


def synthesize_dataset(
    kind: str,
    out: str | os.PathLike[str],
    *,
    counts: tuple[int, int, int] = (80, 10, 10),
    size: tuple[int, int] = (256, 256),
    size_jitter: float = 0.0,
    seed: int = 0,
    folds: int = 5,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a data set and write it as ``prepare_dataset`` would, so that ``load_datalist`` reads it.

    Drawn retinas come with their field of view, as the vessel data sets do.

    Args:
        kind: see ``synthesize_case``.
        out: folder to make.
        counts: number of training, validation and test pictures.
        size: height and width in pixels.
        size_jitter: largest relative change of height and of width from picture to picture, from 0 to 0.5.
        seed: number that chooses the pictures.
        folds: number of folds over training and validation pictures, 0 for none.
        overwrite: replace ``out`` when it holds a data set.
        progress: called with the number of pictures done and the number of all.

    Returns:
        The folder.

    Raises:
        InputError: when an argument is out of range.
        DataError: when ``out`` is in use.
        StorageError: when the folder cannot be written; ``out`` is as it was before.
    """
    _check(kind, seed, size)
    if len(counts) != len(PARTS) or min(counts) < 0 or counts[0] < 1:
        raise InputError(f"counts is {counts}; expected three numbers: training (1 or more), validation, test")
    if not 0 <= size_jitter <= 0.5:
        raise InputError(f"size_jitter is {size_jitter}; expected 0 to 0.5")
    if folds < 0 or folds == 1:
        raise InputError(f"folds is {folds}; expected 0 for none, or 2 and more")
    out = Path(out).expanduser().resolve()
    parts = [part for part, count in zip(PARTS, counts, strict=True) for _ in range(count)]
    names = [f"{kind}_{index:05d}" for index in range(len(parts))]
    kept = {name: None for name, part in zip(names, parts, strict=True) if part != "test"}
    folds = min(folds, len(kept))
    fold_of = assign_folds(kept, folds=folds, seed=seed) if folds > 1 else {}
    digests: dict[str, str] = {}
    places = ("images", "labels", *(("fov",) if kind == "vessels" else ()))
    with new_dataset_folder(out, overwrite=overwrite) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        for place in places:
            (folder / place).mkdir()
        draw = partial(_draw_files, folder=folder, kind=kind, seed=seed, size=size, size_jitter=size_jitter)
        for done, written in enumerate(pool.map(draw, range(len(names)), names), start=1):
            digests.update(written)
            if progress is not None:
                progress(done, len(names))
        entries = [
            Entry(
                name,
                f"images/{name}.png",
                f"labels/{name}.png",
                part,
                fold_of.get(name),
                fov=f"fov/{name}.png" if "fov" in places else None,
            )
            for name, part in zip(names, parts, strict=True)
        ]
        write_datalist(folder, _header(kind, seed, len(set(fold_of.values()))), entries, digests)
    return out


def _draw_files(
    index: int, name: str, *, folder: Path, kind: str, seed: int, size: tuple[int, int], size_jitter: float
) -> dict[str, str]:
    """Draw picture number ``index``, write it and its masks, and return the digests by path."""
    own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    changes = np.random.default_rng([own_seed, 1]).uniform(1 - size_jitter, 1 + size_jitter, 2)
    height, width = (
        max(SMALLEST_PX, round(length * float(change))) for length, change in zip(size, changes, strict=True)
    )
    case = synthesize_case(kind, own_seed, (height, width))
    drawn = {"images": case.image, "labels": case.mask, "fov": case.field_of_view}
    digests = {}
    for place, pixels in drawn.items():
        if pixels is None:
            continue
        path = f"{place}/{name}.png"
        content = encode_png(pixels)
        (folder / path).write_bytes(content)
        digests[path] = hashlib.sha256(content).hexdigest()
    return digests


def _check(kind: str, seed: int, size: tuple[int, int]) -> None:
    if kind not in get_args(SyntheticKind):
        raise InputError(f"kind is {kind!r}; expected one of {', '.join(get_args(SyntheticKind))}")
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")
    if len(size) != 2 or min(size) < SMALLEST_PX:
        raise InputError(f"size is {size}; expected height and width of {SMALLEST_PX} pixels or more")


def _header(kind: str, seed: int, folds: int) -> dict[str, object]:
    return {
        "name": f"synthetic_{kind}",
        "description": f"Synthetic: {_SUBJECTS[kind]}",
        "reference": "",
        "licence": "Apache-2.0, as the package that draws it; no person is shown",
        "citation": "",
        "modality": {"0": "RGB"},
        "labels": {"0": "background", "1": _LABELS[kind]},
        "split": "official",
        "seed": seed,
        "numFolds": folds,
        "notes": [],
    }
