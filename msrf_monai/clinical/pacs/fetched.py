"""Which studies of an archive are predicted already, so that a resumed run does not fetch them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msrf_monai.clinical.line_file import LineFile
from msrf_monai.clinical.naming import short_hash
from msrf_monai.files import Closing

__all__ = ["FETCHED", "FetchedStudies"]

FETCHED = "fetched.jsonl"
"""Name of the file in the result folder."""


class FetchedStudies(Closing):
    """The list of a result folder, open for adding lines. It holds hashes and names of result folders, no UID.

    Args:
        folder: the result folder, which exists.

    Raises:
        StorageError: when the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = LineFile(folder / FETCHED)
        self._folders: dict[str, list[str]] = {}
        for line in self._lines.content.splitlines():
            try:
                values = json.loads(line)
                self._folders[values["study"]] = list(values["folders"])
            except (ValueError, KeyError, TypeError):
                continue  # then that study is fetched once more

    def folders(self, uids: Sequence[str]) -> list[str] | None:
        """Return the result folders of a study; None when it is new, or has other objects than before.

        Args:
            uids: of the study and of all its objects, in the archive's order.
        """
        return self._folders.get(short_hash(*uids))

    def add(self, uids: Sequence[str], folders: Sequence[str]) -> None:
        """Note that a study is predicted.

        Args:
            uids: as above.
            folders: its inputs' result folders.

        Raises:
            StorageError: when the disk is full or fails.
        """
        key = short_hash(*uids)
        self._lines.append(json.dumps({"study": key, "folders": list(folders)}).encode())
        self._folders[key] = list(folders)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
