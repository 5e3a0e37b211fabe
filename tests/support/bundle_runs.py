"""Jobs of the bundles: in a process of their own, as users start them, or in the process of the tests."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from support.warm_programs import warm_program

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "monai.bundle"

Overrides = dict[str, Any]
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle, and overrides that any user can type, which make its jobs small enough for a test."""

    name: str
    folder_name: str
    data: str
    """The drawn data set that it learns: ``lesions`` or ``vessels``."""
    metric: str
    """What decides which weights are kept."""
    columns: frozenset[str]
    """Columns of the history, among others."""
    network: Overrides
    """Overrides of every job: a small network and small images."""
    training: Overrides
    """Overrides of training and evaluation beside these."""
    other_network: Overrides
    """A network of another width, which the trained weights do not fit."""
    first_training: Overrides = field(default_factory=dict)
    """More overrides of the training that the tests share."""
    inference: Overrides = field(default_factory=dict)
    """More overrides of the inference that the tests share."""
    widest: int = 10_000
    """Width in pixels of the widest image that it segments."""

    @property
    def folder(self) -> Path:
        """Folder of the bundle."""
        return ROOT / "bundles" / self.folder_name

    @property
    def configs(self) -> Path:
        """Folder of its configurations."""
        return self.folder / "configs"

    def small(self, *configs: str) -> Overrides:
        """Overrides for a job that these configurations make."""
        return dict(self.network) if "inference.json" in configs else {**self.network, **self.training}


@dataclass(frozen=True, eq=False)
class MainJob:
    """A bundle root with weights trained in this session, and the data it was trained on."""

    bundle: Bundle
    root: Path
    data: Path


Train = Callable[[Bundle], MainJob]
Evaluate = Callable[[MainJob], Path]
Segment = Callable[[MainJob], tuple[Path, Path]]


MSRF = Bundle(
    name="msrf",
    folder_name="msrf_net_polyp_segmentation",
    data="lesions",
    metric="val_dice",
    columns=frozenset({"train_loss", "val_dice", "val_iou"}),
    network={
        "network_def::features": 2,
        "network_def::wiring": "head7",
        "image_size": [48, 32],
        "patch_size": [48, 32],
    },
    training={"batch_size": 4, "learning_rate": 0.005},
    other_network={"network_def::features": 4},
    first_training={"tensorboard": True},
)
SSR = Bundle(
    name="ssr",
    folder_name="ssr_unet_skin_lesion_segmentation",
    data="lesions",
    metric="val_dice",
    columns=frozenset({"train_loss", "val_dice", "val_iou"}),
    network={"network_def::features": [4, 8, 16, 32], "image_size": [64, 48], "patch_size": [64, 48]},
    training={"batch_size": 4, "learning_rate": 0.005},
    other_network={"network_def::features": [4, 8, 16, 16]},
)
IMFF = Bundle(
    name="imff",
    folder_name="imff_net_retinal_vessel_segmentation",
    data="vessels",
    metric="val_f1",
    columns=frozenset({"train_loss", "val_f1", "val_sensitivity", "val_mcc"}),
    network={"features": [4, 8, 8], "window_size": [48, 48]},
    # soft clDice joins from the first epoch, so that a resumed training has to go on with its growing weight
    training={
        "patch_size": [32, 32],
        "crops_per_image": 8,
        "batch_size": 4,
        "learning_rate": 0.02,
        "ema::momentum": 0.2,
        "cldice_weight": 0.2,
        "cldice_after": 0,
    },
    other_network={"features": [4, 8, 16]},
    inference={"tta": True},
    widest=500,
)
HIGMIS = Bundle(
    name="higmis",
    folder_name="higmisnet_breast_ultrasound_segmentation",
    data="lesions",
    metric="val_dice",
    columns=frozenset({"train_loss", "val_dice"}),
    network={"features": 4, "backbones": [], "image_size": [40, 32], "patch_size": [40, 32]},
    training={"discriminator_channels": [4, 8], "batch_size": 4, "learning_rate": 0.005},
    other_network={"features": 8},
)
BUNDLES = (MSRF, SSR, IMFF, HIGMIS)


def arguments(bundle: Bundle, run_id: str, *configs: str, **overrides: Any) -> list[str]:
    """Return the words after ``python -m monai.bundle``."""
    files = [str(bundle.configs / name) for name in configs]
    words = ["run", run_id, "--config_file", repr(files) if len(files) > 1 else files[0]]
    for name, value in overrides.items():
        words += [f"--{name}", str(value).replace(" ", "") if isinstance(value, list) else str(value)]
    return words


def run_bundle(
    bundle: Bundle,
    run_id: str,
    *configs: str,
    torchrun: int = 0,
    preexec: Callable[[], None] | None = None,
    **overrides: Any,
) -> Done:
    """Start configurations of a bundle with overrides as ``python -m monai.bundle`` in a process of its own.

    It is forked from one that has imported what it needs, unless it is to be prepared by ``preexec``.
    """
    command = [sys.executable if preexec else warm_program("python")]
    if torchrun:
        command = [warm_program("torchrun"), "--standalone", "--nnodes=1", f"--nproc_per_node={torchrun}"]
    command += ["-m", PROGRAM, *arguments(bundle, run_id, *configs, **overrides)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=900, preexec_fn=preexec
    )


def finished(done: Done) -> Done:
    """Return what a run said that must have ended well."""
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def error_line(done: Done) -> str:
    """Return the last line of stderr, which must be the one sentence, of a run that failed."""
    assert done.returncode == 1, done.stdout[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr[-2000:]
    return last


def program_here(bundle: Bundle, run_id: str, *configs: str, **overrides: Any) -> Done:
    """Run the program of ``run_bundle`` inside this process, which saves the seconds that its imports take.

    The program finds its own command line, and an exception goes to the hook that the program set, as when the
    interpreter ends. The log is left as it is.
    """
    words = arguments(bundle, run_id, *configs, **overrides, logging_file=False)
    hook, factory = sys.excepthook, logging.getLogRecordFactory()
    code, out, err = 0, io.StringIO(), io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", [PROGRAM, *words])
            with one_thread():
                runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    except Exception as error:
        code = 1
        with contextlib.redirect_stderr(err):
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.excepthook = hook
        logging.setLogRecordFactory(factory)
    return Done(words, code, out.getvalue(), err.getvalue())


def run_here(bundle: Bundle, *configs: str, **overrides: Any) -> ConfigWorkflow:
    """Run configurations in this process, where values need no shell; the properties that MONAI asks for are there."""
    workflow = ConfigWorkflow(
        config_file=[str(bundle.configs / name) for name in configs],
        workflow_type="infer" if "inference.json" in configs else "train",
        logging_file=False,
        **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
    )
    with one_thread():
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()
    return workflow


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with as many threads as the processes of ``run_bundle``, to have their bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
