"""Bundles small enough to predict with in tests, ours by overrides and stock MONAI ones, and pictures for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.predictor import Predictor, PredictorOptions
from msrf_monai.clinical.reading import open_case

__all__ = ["OURS", "ROOT", "Tiny", "gap_threshold", "picture", "save_case", "shake", "stock_config", "stock_metadata"]

ROOT = Path(__file__).resolve().parents[2] / "bundles"
OURS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "msrf": (
        "msrf_net_polyp_segmentation",
        (
            ("network_def::features", 2),
            ("network_def::wiring", "head7"),
            ("image_size", [48, 32]),
            ("patch_size", [48, 32]),
        ),
    ),
    "ssr": (
        "ssr_unet_skin_lesion_segmentation",
        (("network_def::features", [4, 8, 16, 32]), ("image_size", [64, 48]), ("patch_size", [64, 48])),
    ),
    "imff": ("imff_net_retinal_vessel_segmentation", (("features", [4, 8, 8]), ("window_size", [48, 48]))),
    "higmis": (
        "higmisnet_breast_ultrasound_segmentation",
        (("features", 4), ("backbones", []), ("image_size", [40, 32]), ("patch_size", [40, 32])),
    ),
}
"""Folder and overrides of each of our bundles."""


@dataclass(frozen=True)
class Tiny:
    """A bundle that takes no time, and its weights."""

    bundle: Path
    overrides: tuple[tuple[str, Any], ...]
    weights: Path

    def predictor(self, *more: tuple[str, Any], **options: Any) -> Predictor:
        """Return its predictor on the CPU, with the probabilities kept."""
        settings = {"device": "cpu", "keep_probabilities": True, "weights": self.weights, **options}
        return Predictor.from_bundle(self.bundle, PredictorOptions(overrides=(*self.overrides, *more), **settings))

    def evaluate(self, images: Path, output: Path, *more: tuple[str, Any]) -> Path:
        """Let MONAI run the bundle's own configuration, as ``python -m monai.bundle run`` does; return its results."""
        workflow = ConfigWorkflow(
            config_file=str(self.bundle / "configs" / "inference.json"),
            meta_file=str(self.bundle / "configs" / "metadata.json"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(self.bundle),
            dataset_dir=str(images),
            output_dir=str(output),
            weights=str(self.weights),
            device="$torch.device('cpu')",
            **dict((*self.overrides, *more)),
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return output


def shake(network: torch.nn.Module) -> torch.nn.Module:
    """Give a network weights whose masks are neither empty nor full, and norms that are not the identity."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def stock_config(channels: int, planes: int) -> dict[str, Any]:
    """A configuration of MONAI's own parts, as in MONAI's model zoo."""
    activation = {"sigmoid": True} if planes == 1 else {"softmax": True}
    decision = {"threshold": 0.5} if planes == 1 else {"argmax": True}
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/none",
        "weights": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cpu')",
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 2,
            "in_channels": channels,
            "out_channels": planes,
            "channels": [4, 8],
            "strides": [2],
            "norm": "batch",
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "ScaleIntensityd", "keys": "image"},
                {"_target_": "Resized", "keys": "image", "spatial_size": [40, 28]},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': name} for name in sorted(glob.glob(@dataset_dir + '/*'))]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [24, 16],
            "sw_batch_size": 3,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", **activation},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
                {"_target_": "AsDiscreted", "keys": "pred", **decision},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_ext": ".png",
                    "output_postfix": "seg",
                    "separate_folder": False,
                    "resample": False,
                    "print_log": False,
                },
            ],
        },
        "handlers": [
            {"_target_": "CheckpointLoader", "load_path": "@weights", "load_dict": {"model": "@network"}},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
        "finalize": [],
    }


def stock_metadata(channels: int, planes: int) -> dict[str, Any]:
    """The metadata that says what goes in and out."""
    names = {str(number): "background" if number == 0 else f"organ{number}" for number in range(max(planes, 2))}
    image = {"type": "image", "num_channels": channels, "spatial_shape": [24, 16], "dtype": "float32"}
    pred = {"type": "image", "num_channels": planes, "spatial_shape": [24, 16], "channel_def": names}
    data_format = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    return {"name": "stock", "version": "0.3.1", "network_data_format": data_format}


def picture(rows: int = 47, columns: int = 61, seed: int = 0) -> np.ndarray:
    """An asymmetric RGB picture: a bright disc off the middle with coloured marks, on black."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    disc = (y - rows * 0.55) ** 2 + (x - columns * 0.45) ** 2 < (0.42 * rows) ** 2
    values = np.stack([120 + x, 60 + 2 * y, 30 + x + y], axis=-1) + generator.integers(0, 40, (rows, columns, 3))
    values[: rows // 4, : columns // 3] //= 2
    return (np.clip(values, 0, 255) * disc[..., None]).astype(np.uint8)


def save_case(path: Path, pixels: np.ndarray) -> Case:
    """Write pixels as a PNG file and open it."""
    Image.fromarray(pixels).save(path)
    return open_case(path)


def gap_threshold(probabilities: np.ndarray) -> float:
    """A threshold about the median with no probability near it, so that no rounding decides."""
    values = np.unique(probabilities.astype(np.float32))
    middle = values[int(0.3 * len(values)) : int(0.7 * len(values)) + 2]
    index = int(np.argmax(np.diff(middle)))
    return float((middle[index] + middle[index + 1]) / 2)
