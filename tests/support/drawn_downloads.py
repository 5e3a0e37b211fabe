"""Downloads as the documents name them, with few drawn pictures in the layouts of the real data sets."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from msrf_monai.data import synthesize_case
from msrf_monai.networks.backbones import DenseNet201Taps, VGG16Taps

SIZE = (36, 48)


def draw_pairs(folder: Path, count: int, stem: str = "p") -> None:
    """``images`` and ``masks``, as Kvasir-SEG and ISIC come."""
    for number in range(count):
        case = synthesize_case("lesion", number, SIZE)
        _save(case.image, folder / "images" / f"{stem}{number:02d}.jpg")
        _save(_white(case.mask), folder / "masks" / f"{stem}{number:02d}.png")


def draw_split(folder: Path, count: int, name: str, stem: str = "p") -> None:
    """The same with a splits.json, as the copies come that the shipped weights were trained on."""
    draw_pairs(folder, count, stem)
    names = [f"{stem}{number:02d}" for number in range(count)]
    parts = {"train": names[: count // 2], "val": names[count // 2 : -count // 4], "test": names[-count // 4 :]}
    (folder / "splits.json").write_text(json.dumps({name: parts}))


def draw_breasts(folder: Path, count: int) -> None:
    """A folder of each class with masks beside the images, as BUSI comes."""
    for number in range(count):
        case, kind = synthesize_case("lesion", number, SIZE), ("benign", "malignant")[number % 2]
        _save(case.image, folder / kind / f"{kind} ({number}).png")
        _save(_white(case.mask), folder / kind / f"{kind} ({number})_mask.png")


def draw_heads(folder: Path, count: int) -> None:
    """Volumes of four slices with bleeding in two of them, as PhysioNet's CT comes."""
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 80, (40, 32, 4)).astype(np.int16)
        mask = np.zeros((40, 32, 4), np.uint8)
        mask[8:20, 10:18, 1:3] = 1
        for kind, array in (("ct_scans", values), ("masks", mask)):
            path = folder / kind / f"{49 + number:03d}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([0.5, 0.5, 5, 1])), path)


def draw_children(folder: Path) -> None:
    """Both eyes of 14 children by two observers, as CHASE_DB1 comes."""
    for child in range(1, 15):
        for eye in "LR":
            case, stem = synthesize_case("vessels", 2 * child + (eye == "R"), SIZE), f"Image_{child:02d}{eye}"
            _save(case.image, folder / f"{stem}.jpg")
            _save(_white(case.mask), folder / f"{stem}_1stHO.png")
            _save(_white(np.roll(case.mask, 1, axis=1)), folder / f"{stem}_2ndHO.png")


def draw_trunks(folder: Path) -> None:
    """Random weights of the two trunks in torchvision's layout."""
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    for name, trunk in (("vgg16", VGG16Taps()), ("densenet201", DenseNet201Taps())):
        own = trunk.state_dict()
        state = {theirs: own[ours].clone() for ours, theirs in trunk.torchvision_names().items()}
        torch.save(state, folder / f"{name}.pth")


def _white(mask: np.ndarray) -> np.ndarray:
    return (mask > 0).astype(np.uint8) * 255


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
