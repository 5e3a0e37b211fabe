"""The app's folder: MONAI Label's own bundle app as it came, our class over it, and copies of the bundles."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from msrf_monai.bundle.package import packaged_files
from msrf_monai.errors import EngineError, InputError
from msrf_monai.files import storing, write_text
from msrf_monai.label.environment import Environment

__all__ = ["STOCK", "AppFolder", "bundle_version", "running_environment"]

STOCK = "monaibundle"
"""Name of MONAI Label's app for bundles."""

_MAIN = '''"""MONAI Label starts here: its own app for bundles, with what our bundles need on top."""

import stock  # MONAI Label's app as it came, beside this file
from monailabel.interfaces.app import MONAILabelApp

from msrf_monai.label.app import BundleAppMixin


class BundleApp(BundleAppMixin, stock.MyApp, MONAILabelApp):
    """MONAI Label looks for a class whose direct base is MONAILabelApp."""
'''
_MARK = ".msrf-monai-app"
"""File that says that a folder is one of these; without it nothing is replaced."""
_NOT_STOCK = shutil.ignore_patterns("logs", "model", "__pycache__")


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
        """Lay MONAI Label's app anew, and make what else is missing.

        Copies of bundles that are there stay as they are, above all weights that were fine-tuned.

        Args:
            bundles: folders to copy from.
            environment: with MONAI Label in it.

        Returns:
            Sentences that the user should read.

        Raises:
            EngineError: when MONAI Label does not give its app.
            InputError: when the folder holds other things; nothing is changed there.
            StorageError: when a file cannot be written.
        """
        with storing(self.root):
            # its logs and caches will hold patients' images and numbers
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_is_ours()
            write_text(self.root / _MARK, "Made by msrf-monai label, which lays its files anew at each start.\n")
            self._take_stock_app(environment)
            write_text(self.root / "main.py", _MAIN)
            self._write_segmenter(environment)
            return [*self._close(), *(note for bundle in bundles for note in self._copy(bundle))]

    def _check_is_ours(self) -> None:
        held = sorted(path.name for path in self.root.iterdir() if not path.name.startswith((".", "lost+found")))
        if held and not (self.root / _MARK).is_file():
            raise InputError(
                f"{self.root} holds other things ({', '.join(held[:3])}), which MONAI Label's app would replace; "
                "name a new or empty folder by --app-dir"
            )

    def _close(self) -> list[str]:
        """Keep others out, also of a folder that was there before."""
        if not self.root.stat().st_mode & 0o077:
            return []
        try:
            self.root.chmod(0o700)
        except PermissionError:
            return [
                f"other users of this computer may look into {self.root}, which is not yours to close; it will hold "
                "images and patient numbers"
            ]
        return []

    def _take_stock_app(self, environment: Environment) -> None:
        """Lay MONAI Label's app anew at each start, so that it is that of the environment and nobody else's."""
        stock = _stock_app(environment)
        # inside the folder, which may be a file system of its own, or the only place that this user may write to
        waiting = self.root / ".stock.part"
        shutil.rmtree(waiting, ignore_errors=True)
        shutil.copytree(stock, waiting, ignore=_NOT_STOCK)
        (waiting / "main.py").rename(waiting / "stock.py")
        for path in sorted(waiting.iterdir()):
            target = self.root / path.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            path.replace(target)
        waiting.rmdir()

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
            theirs, ours = bundle_version(bundle), bundle_version(target)
            if theirs == ours:
                return []
            return [
                f"{target} is version {ours or 'unknown'} of the bundle, and {bundle} is {theirs or 'unknown'}; the "
                "former is used. Move it away to start from the latter; its folder models holds your own weights"
            ]
        waiting = target.with_name(f".{target.name}.part")
        shutil.rmtree(waiting, ignore_errors=True)
        root = bundle.resolve()
        for path in packaged_files(root):
            (waiting / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, waiting / path.relative_to(root))
        waiting.replace(target)
        return []


def running_environment() -> Environment:
    """Return the environment that this process runs in."""
    return Environment(sys.prefix)


def bundle_version(bundle: Path) -> str:
    """Return the version in a bundle's metadata, or nothing where it has none."""
    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(metadata.get("version", "")) if isinstance(metadata, dict) else ""


def _stock_app(environment: Environment) -> Path:
    """Return where pip put MONAI Label's app for bundles."""
    for place in (environment.folder, environment.folder / "local"):
        path = place / "monailabel" / "sample-apps" / STOCK
        if (path / "main.py").is_file():
            return path
    raise EngineError(
        f"the environment {environment.folder} holds no app {STOCK} of MONAI Label; make it anew with "
        "msrf-monai label --make-environment"
    )
