"""The app's folder: MONAI Label's own bundle app as it came, our class over it, and copies of the bundles."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msrf_monai.errors import EngineError
from msrf_monai.files import write_text
from msrf_monai.label.environment import Environment

__all__ = ["STOCK", "AppFolder", "stock_command"]

STOCK = "monaibundle"
"""Name of MONAI Label's app for bundles."""

_MAIN = '''"""MONAI Label starts here: its own app for bundles, with what our bundles need on top."""

import stock  # MONAI Label's app as it came, beside this file
from monailabel.interfaces.app import MONAILabelApp

from msrf_monai.label.app import BundleAppMixin


class BundleApp(BundleAppMixin, stock.MyApp, MONAILabelApp):
    """MONAI Label looks for a class whose direct base is MONAILabelApp."""
'''
_LEFT_OUT = shutil.ignore_patterns("eval", "__pycache__", ".*", "*.ts", "*.onnx")


class AppFolder:
    """The folder that MONAI Label is given as ``--app``.

    Args:
        root: where it is, or is to be.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().absolute()

    @property
    def bin(self) -> Path:
        """Programs that come first on the server's PATH."""
        return self.root / "bin"

    def bundle(self, name: str) -> Path:
        """Return where the copy of a bundle is."""
        return self.root / "model" / name

    def lay_out(self, bundles: Sequence[Path], environment: Environment) -> list[str]:
        """Make what is missing; what is there stays as it is, above all weights that were fine-tuned.

        Args:
            bundles: folders to copy from.
            environment: with MONAI Label in it.

        Returns:
            Sentences that the user should read.

        Raises:
            EngineError: when MONAI Label does not give its app.
            StorageError: when a file cannot be written.
        """
        if not (self.root / "stock.py").is_file():
            self._take_stock_app(environment)
        write_text(self.root / "main.py", _MAIN)
        self._write_segmenter(environment)
        return [note for bundle in bundles for note in self._copy(bundle)]

    def _take_stock_app(self, environment: Environment) -> None:
        waiting = self.root.with_name(f".{self.root.name}.part")
        shutil.rmtree(waiting, ignore_errors=True)
        command = stock_command(environment, waiting)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise EngineError(
                f"MONAI Label did not give its app {STOCK}: {said[-1] if said else done.returncode}; make its "
                "environment anew with msrf-monai label --make-environment"
            )
        taken = waiting / STOCK
        (taken / "main.py").rename(taken / "stock.py")
        # its logs and caches will hold patients' images and numbers
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # stock.py last: it says that all others are there
        for path in sorted(taken.iterdir(), key=lambda path: path.name == "stock.py"):
            target = self.root / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        shutil.rmtree(waiting, ignore_errors=True)

    def _write_segmenter(self, environment: Environment) -> None:
        path = self.bin / "itkimage2segimage"
        # the folder of pydicom 3 goes first, so that the writer of segmentations has it and the server has not
        lines = [
            "#!/bin/sh",
            "# Writes segmentations of 2-D images, and hands volumes to dcmqi; see docs/monai-label.md.",
            f'PYTHONPATH={shlex.quote(str(environment.dicom3))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
            f"MSRF_LABEL_APP={shlex.quote(str(self.root))}",
            "export PYTHONPATH MSRF_LABEL_APP",
            f'exec {shlex.quote(str(environment.python))} -m msrf_monai.label.segimage "$@"',
        ]
        write_text(path, "\n".join(lines) + "\n")
        path.chmod(0o755)

    def _copy(self, bundle: Path) -> list[str]:
        target = self.bundle(bundle.name)
        if target.is_dir():
            theirs, ours = _version(bundle), _version(target)
            if theirs == ours:
                return []
            return [
                f"{target} is version {ours or 'unknown'} of the bundle, and {bundle} is {theirs or 'unknown'}; the "
                "former is used. Move it away to start from the latter; its folder models holds your own weights"
            ]
        waiting = target.with_name(f".{target.name}.part")
        shutil.rmtree(waiting, ignore_errors=True)
        shutil.copytree(bundle, waiting, ignore=_LEFT_OUT)
        waiting.replace(target)
        return []


def stock_command(environment: Environment, output: Path) -> list[str]:
    """Return MONAI Label's own command that copies its app for bundles into a folder."""
    start = [str(environment.python), "-m", "monailabel.main"]
    return [*start, "apps", "--download", "--name", STOCK, "--output", str(output)]


def running_environment() -> Environment:
    """Return the environment that this process runs in."""
    return Environment(sys.prefix)


def _version(bundle: Path) -> str:
    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(metadata.get("version", "")) if isinstance(metadata, dict) else ""
