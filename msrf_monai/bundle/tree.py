"""The files of a bundle's folder: what belongs to it, and what runs and users leave there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LEFTOVERS", "bundle_files", "is_leftover", "links", "specials"]

LEFTOVERS = frozenset({"__pycache__", "data", "eval", "mlruns", "runs", "trt", "wandb"})
"""Folders that runs write, or that hold a user's images; no part of the bundle."""

_STATE = ("models", "state")  # what training continues from
_LEFTOVER_SUFFIXES = (".pyc", ".pyo", ".part", ".swp", "~")
_KEPT = frozenset({".gitkeep"})


def bundle_files(root: Path, *, with_leftovers: bool = False) -> Iterator[Path]:
    """Yield the files below a bundle's folder, sorted by name; links are not followed and not yielded.

    Args:
        root: the bundle's folder.
        with_leftovers: also what runs and editors left behind.
    """
    found = []
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in files:
            path = Path(folder) / name
            relative = path.relative_to(root)
            if path.is_file() and not path.is_symlink() and (with_leftovers or not is_leftover(relative)):
                found.append(path)
        folders[:] = [name for name in folders if not (Path(folder) / name).is_symlink()]
    yield from sorted(found, key=lambda path: path.relative_to(root).as_posix())


def links(root: Path) -> Iterator[Path]:
    """Yield the symbolic links below a bundle's folder, to files and to folders."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=False):
        found += [path for name in (*folders, *files) if (path := Path(folder) / name).is_symlink()]
    yield from sorted(found)


def specials(root: Path) -> Iterator[Path]:
    """Yield what is neither a file, a folder nor a link: pipes, sockets, devices."""
    found = []
    for folder, _, files in os.walk(root, followlinks=False):
        found += [path for name in files if not (path := Path(folder) / name).is_file() and not path.is_symlink()]
    yield from sorted(found)


def is_leftover(relative: Path) -> bool:
    """Say whether a file, given relative to the bundle, is a run's or an editor's and no part of the bundle."""
    parts = relative.parts
    is_hidden = any(part.startswith(".") and part not in _KEPT for part in parts)
    in_folder = parts[0] in LEFTOVERS or parts[:2] == _STATE or "__pycache__" in parts[:-1]
    return is_hidden or in_folder or relative.name.endswith(_LEFTOVER_SUFFIXES)
