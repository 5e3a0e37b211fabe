"""The variants of a bundle: overlays among its configurations, and the commands that train and score one of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.files import sha256_of

__all__ = ["BundleConfigs", "Variant", "check_commands", "find_bundle", "refuse_overrides"]

DEFAULT_FOLDER = "recalibration"
AS_IT_IS = "default"
_NO_KEYS = frozenset({"config_file", "run_id", "args_file", "meta_file", "logging_file"})
"""Options of a bundle's command that are no keys of the configuration."""
_SAME_OVERLAY = {"isic2017": "isic2018"}
"""Data sets that share the overlay of another."""


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared.

    Attributes:
        name: as given by the user, such as "ssr" or "recipes/paper".
        overlay: the configuration that makes it, None for the bundle as it is.
    """

    name: str
    overlay: Path | None

    @property
    def folder_name(self) -> str:
        """The name as a single folder."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class BundleConfigs:
    """The configurations of a bundle that a cross-validation uses.

    Attributes:
        root: folder of the bundle.
        overlays: configurations that every run has besides train.json, in their order: recipes, then the data set's.
    """

    root: Path
    overlays: tuple[Path, ...] = ()

    def having(self, overlays: Sequence[str], *, dataset: str | None = None) -> BundleConfigs:
        """Return the same with overlays for every run.

        Args:
            overlays: their names with their folders, such as ``recipes/paper``.
            dataset: name of a data set, whose overlay in ``configs/datasets`` comes last, where there is one.

        Raises:
            InputError: when there is no such overlay; the message lists those there are.
        """
        paths = []
        for name in overlays:
            path = self._find(name)
            if path is None:
                raise InputError(f"{self.root} has no overlay {name!r}: expected {', '.join(self.names()) or 'none'}")
            paths.append(path)
        if dataset is not None:
            own = self.root / "configs" / "datasets" / f"{_SAME_OVERLAY.get(dataset, dataset)}.json"
            paths += [own] if own.is_file() else []
        return replace(self, overlays=tuple(paths))

    def variant(self, name: str) -> Variant:
        """Find a variant.

        Args:
            name: of a file in ``configs/recalibration`` without its suffix; with a folder, such as ``recipes/paper``,
                of a file in that folder; ``default`` for the bundle without an overlay.

        Raises:
            InputError: when there is no such file; the message lists those there are.
        """
        path = self._find(name)
        if path is not None or name == AS_IT_IS:
            return Variant(name, path)
        raise InputError(
            f"{self.root} has no variant {name!r}: expected {', '.join(self.names())}, or {AS_IT_IS} (no overlay)"
        )

    def names(self) -> list[str]:
        """Return the names of all variants: those of ``configs/recalibration``, then those of other folders."""
        configs = self.root / "configs"
        own = sorted(path.stem for path in (configs / DEFAULT_FOLDER).glob("*.json"))
        others = sorted(
            f"{path.parent.name}/{path.stem}"
            for path in configs.glob("*/*.json")
            if path.parent.name not in (DEFAULT_FOLDER, "datasets")
        )
        return own + others

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of train.json, evaluate.json and the overlays of every run, by path in the bundle."""
        files = [*(self.root / "configs" / name for name in ("train.json", "evaluate.json")), *self.overlays]
        return {str(path.relative_to(self.root)): sha256_of(path) for path in files}

    def training_files(self, variant: Variant) -> list[Path]:
        """Return the configuration files of a training, in their order."""
        own = [variant.overlay] if variant.overlay is not None else []
        return [self.root / "configs" / "train.json", *self.overlays, *own]

    def evaluation_files(self, variant: Variant) -> list[Path]:
        """Return the configuration files of an evaluation; evaluate.json last, since it replaces handlers."""
        return [*self.training_files(variant), self.root / "configs" / "evaluate.json"]

    def takes(self, key: str, *, config: str = "train") -> bool:
        """Say whether train.json, or another configuration, has a key at its top."""
        content = json.loads((self.root / "configs" / f"{config}.json").read_text(encoding="utf-8"))
        return key in content

    def command(self, run_id: str, files: Sequence[Path], options: Mapping[str, str]) -> list[str]:
        """Return the arguments of a process that runs the bundle.

        Args:
            run_id: "training" or "evaluating".
            files: its configuration files.
            options: value of each overridden key, as it is typed on a command line.
        """
        names = repr([str(path) for path in files])
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", names]
        return [*command, f"--bundle_root={self.root}", *(f"--{key}={value}" for key, value in options.items())]

    def _find(self, name: str) -> Path | None:
        """Return the file of an overlay, None when there is none inside the bundle."""
        configs = (self.root / "configs").resolve()
        path = (configs / f"{name if '/' in name else f'{DEFAULT_FOLDER}/{name}'}.json").resolve()
        return path if path.is_file() and path.is_relative_to(configs) else None


def find_bundle(bundle: str | os.PathLike[str]) -> BundleConfigs:
    """Open a bundle.

    Args:
        bundle: its folder.

    Raises:
        ConfigError: when the folder is missing, or has no train.json or evaluate.json that can be read.
    """
    root = Path(bundle).expanduser().resolve()
    if not root.is_dir():
        raise ConfigError(f"{root}: this bundle does not exist; give the folder that holds configs/train.json")
    for name in ("train.json", "evaluate.json"):
        path = root / "configs" / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: cannot be read ({error}); a bundle to cross-validate has configs/train.json and evaluate.json"
            ) from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: holds a {type(content).__name__}; expected an object")
    return BundleConfigs(root)


def refuse_overrides(overrides: Iterable[str], ours: Iterable[str], reason: str) -> None:
    """Refuse overrides of keys that an experiment sets itself, or that are no keys of the configuration.

    Args:
        overrides: the keys that are to be overridden.
        ours: the keys that the experiment sets.
        reason: why those cannot be overridden, for the error.

    Raises:
        InputError: when one of them is overridden.
    """
    taken = sorted(set(overrides) & (_NO_KEYS | set(ours)))
    if taken:
        raise InputError(f"{taken[0]} cannot be overridden: {reason}")


def check_commands(commands: Iterable[Sequence[str]]) -> None:
    """Check the overrides of commands, so that a misspelt key does not show after hours.

    Args:
        commands: of ``BundleConfigs.command``.

    Raises:
        ConfigError: when an override names no key.
    """
    from msrf_monai.bundle.overrides import check_overrides

    for command in commands:
        check_overrides(command[3:])  # after: python -m monai.bundle
