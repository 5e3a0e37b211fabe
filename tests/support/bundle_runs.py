"""Runs of the bundles as their users start them: `python -m monai.bundle run …` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MSRF = ROOT / "bundles" / "msrf_net_polyp_segmentation"
SSR = ROOT / "bundles" / "ssr_unet_skin_lesion_segmentation"
IMFF = ROOT / "bundles" / "imff_net_retinal_vessel_segmentation"
HIGMIS = ROOT / "bundles" / "higmisnet_breast_ultrasound_segmentation"


def run_bundle(
    run_id: str,
    *configs: str,
    bundle: Path = MSRF,
    torchrun: int = 0,
    preexec: Callable[[], None] | None = None,
    **overrides: object,
) -> subprocess.CompletedProcess[str]:
    """Start configurations of a bundle with overrides; ``__`` in a name stands for ``::``."""
    files = [str(bundle / "configs" / name) for name in configs]
    command = [sys.executable, "-m", "monai.bundle"]
    if torchrun:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc_per_node={torchrun}"]
        command = [sys.executable, *launcher, "-m", "monai.bundle"]
    command += ["run", run_id, "--config_file", repr(files) if len(files) > 1 else files[0]]
    for name, value in overrides.items():
        command += [f"--{name.replace('__', '::')}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=900, preexec_fn=preexec
    )


# A network and images small enough for a test, through overrides that any user can type.
SMALL = {
    "network_def__features": 2,
    "network_def__wiring": "head7",
    "image_size": "[48,32]",
    "patch_size": "[48,32]",
    "batch_size": 4,
    "learning_rate": 0.005,
}
SMALL_INFERENCE = {k: v for k, v in SMALL.items() if k not in ("batch_size", "learning_rate")}

SMALL_SSR = {
    "network_def__features": "[4,8,16,32]",
    "image_size": "[64,48]",
    "patch_size": "[64,48]",
    "batch_size": 4,
    "learning_rate": 0.005,
}
SMALL_SSR_INFERENCE = {k: v for k, v in SMALL_SSR.items() if k not in ("batch_size", "learning_rate")}

SMALL_IMFF_INFERENCE = {"features": "[4,8,8]", "window_size": "[48,48]"}
SMALL_IMFF = {
    **SMALL_IMFF_INFERENCE,
    "patch_size": "[32,32]",
    "crops_per_image": 8,
    "batch_size": 4,
    "learning_rate": 0.02,
    "ema__momentum": 0.2,
}


# Hi-gMISnet is trained inside the tests' own process, where values need no shell.
SMALL_HIGMIS_INFERENCE: dict[str, object] = {
    "features": 4,
    "backbones": [],
    "image_size": [40, 32],
    "patch_size": [40, 32],
    "device": "cpu",
}
SMALL_HIGMIS: dict[str, object] = {
    **SMALL_HIGMIS_INFERENCE,
    "discriminator_channels": [4, 8],
    "batch_size": 2,
    "max_epochs": 1,
    "learning_rate": 0.005,
}


@dataclass(frozen=True)
class MainJob:
    """A bundle root with weights trained in this session, and the data it was trained on."""

    root: Path
    data: Path
    log: str
