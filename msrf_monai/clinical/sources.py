"""Which files each result was made from: the one file of a result folder that holds paths, for its owner only.

Paths may name patients, so they are in no log line, report or manifest. Who has to find the file behind a failure
finds it here; who passes results on leaves this file out, or has none made. Then a list of hashes takes its place: a
run has to know which result goes when a file that is given again has become something else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from msrf_monai.clinical.line_file import LineFile
from msrf_monai.clinical.naming import short_hash

__all__ = ["HASHED_SOURCES", "SOURCES", "SourceList"]

SOURCES = "sources.private.jsonl"
"""Name of the file in the result folder; readable for its owner only."""
HASHED_SOURCES = "sources.hashed.jsonl"
"""Name of the one without paths."""


class SourceList:
    """The list of a folder, open for adding lines.

    Args:
        folder: the result folder, which exists.
        hashed: write hashes instead of paths.

    Raises:
        StorageError: when the file cannot be written.
    """

    def __init__(self, folder: Path, *, hashed: bool = False) -> None:
        self._lines = LineFile(folder / (HASHED_SOURCES if hashed else SOURCES), 0o600)
        self._name = short_hash if hashed else str
        self._folders: dict[str, set[str]] = {}
        for line in self._lines.content.splitlines():
            try:
                values = json.loads(line)
                self._learn(values["folder"], values["sources"])
            except (ValueError, KeyError, TypeError):
                continue  # nothing but a convenience is lost

    def add(self, folder: str, paths: tuple[str, ...]) -> None:
        """Note the files behind a result.

        Args:
            folder: the input's folder.
            paths: its files.

        Raises:
            StorageError: when the disk is full or fails.
        """
        names = [self._name_of(path) for path in paths]
        if any(folder not in self._folders.get(name, ()) for name in names):
            self._lines.append(json.dumps({"folder": folder, "sources": names}).encode())
            self._learn(folder, names)

    def folders_of(self, path: str) -> frozenset[str]:
        """Return the folders whose results were made from a file, in this run or before."""
        return frozenset(self._folders.get(self._name_of(path), ()))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _name_of(self, path: str) -> str:
        return self._name(os.path.abspath(path))  # noqa: PTH100 (keeps names that are no Unicode)

    def _learn(self, folder: str, names: list[str]) -> None:
        for name in names:
            self._folders.setdefault(name, set()).add(folder)
