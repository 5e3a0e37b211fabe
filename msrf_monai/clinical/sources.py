"""Which files each result was made from: the one file of a result folder that holds paths, for its owner only.

Paths may name patients, so they are in no log line, report or manifest. Who has to find the file behind a failure
finds it here; who passes results on leaves this file out, or has none made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from msrf_monai.clinical.line_file import LineFile

__all__ = ["SOURCES", "SourceList"]

SOURCES = "sources.private.jsonl"
"""Name of the file in the result folder; readable for its owner only."""


class SourceList:
    """The list of a folder, open for adding lines.

    Args:
        folder: the result folder, which exists.

    Raises:
        StorageError: when the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = LineFile(folder / SOURCES, 0o600)
        self.folders: dict[str, set[str]] = {}
        """For each path the folders whose results were made from it."""
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
        absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (keeps names that are no Unicode)
        if any(folder not in self.folders.get(path, ()) for path in absolute):
            self._lines.append(json.dumps({"folder": folder, "sources": absolute}).encode())
            self._learn(folder, absolute)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _learn(self, folder: str, paths: list[str]) -> None:
        for path in paths:
            self.folders.setdefault(path, set()).add(folder)
