"""Which files each result was made from: the one file of a result folder that holds paths, for its owner only.

Paths may name patients, so they are in no log line, report or manifest. Who has to find the file behind a failure
finds it here; who passes results on leaves this file out, or has none made. Then a list of hashes takes its place: a
run has to know which result goes when a file that is given again has become something else. They are hashed with a key
of the folder's own, in another file: whoever has the list without it cannot try a path that he guesses. Both are for
the next run alone, and are left out too.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.clinical.line_file import LineFile
from msrf_monai.files import Closing

__all__ = ["HASHED_SOURCES", "SOURCES", "SOURCES_KEY", "FileMark", "KnownSources", "SourceList"]

SOURCES = "sources.private.jsonl"
"""Name of the file in the result folder; readable for its owner only."""
HASHED_SOURCES = "sources.hashed.jsonl"
"""Name of the one without paths."""
SOURCES_KEY = "sources.key"
"""Name of the file with the key of its hashes; readable for its owner only."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """What tells whether a file that comes again is still what a result was made from; empty where it is unknown."""

    digest: str = ""
    """SHA-256 of its content."""
    instance: str = ""
    """Hash of its SOP Instance UID."""


_UNKNOWN = FileMark()


class KnownSources:
    """What a list says.

    Args:
        content: its lines.
        key: of the hashes that stand for the paths; None where the paths themselves are written.
    """

    def __init__(self, content: bytes, key: bytes | None) -> None:
        self._key = key
        # tuples, since there may be a hundred thousand of each, most with one item
        self._folders: dict[str, tuple[str, ...]] = {}
        self._files: dict[str, tuple[tuple[str, FileMark], ...]] = {}
        for line in content.splitlines():
            try:
                values = json.loads(line)
                marks = [FileMark(*map(str, mark)) for mark in values.get("marks", ())]
                self._learn(values["folder"], _marked(values["sources"], marks))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # nothing but a convenience is lost

    @classmethod
    def of(cls, folder: Path, *, hashed: bool = False) -> KnownSources:
        """Read the list of a result folder and leave all as it is; a file that is missing says nothing.

        Args:
            folder: the result folder.
            hashed: read hashes instead of paths.
        """
        key = (_content(folder / SOURCES_KEY).splitlines() or [b""])[0] if hashed else None
        return cls(_content(folder / (HASHED_SOURCES if hashed else SOURCES)), key)

    def folders_of(self, path: str) -> frozenset[str]:
        """Return the folders whose results were made from a file, in this run or before."""
        return frozenset(self._folders.get(self.name_of(path), ()))

    def files_of(self, folder: str) -> Mapping[str, FileMark]:
        """Return the files behind a result in their order, by what ``name_of`` calls them."""
        return dict(self._files.get(folder, ()))

    def name_of(self, path: str) -> str:
        """Return what stands for a file in this list."""
        whole = os.path.abspath(path)  # noqa: PTH100 (keeps names that are no Unicode)
        return whole if self._key is None else hmac.digest(self._key, os.fsencode(whole), "sha256").hex()

    def _learn(self, folder: str, files: Mapping[str, FileMark]) -> None:
        for name, _ in self._files.get(folder, ()):
            self._folders[name] = tuple(each for each in self._folders[name] if each != folder)
        for name in files:
            self._folders[name] = (*self._folders.get(name, ()), folder)
        self._files[folder] = tuple(files.items())


class SourceList(KnownSources, Closing):
    """The list of a folder, open for adding lines.

    Args:
        folder: the result folder, which exists.
        hashed: write hashes instead of paths.

    Raises:
        StorageError: when the file cannot be written.
    """

    def __init__(self, folder: Path, *, hashed: bool = False) -> None:
        self._lines = LineFile(folder / (HASHED_SOURCES if hashed else SOURCES), 0o600)
        super().__init__(self._lines.content, _key(folder) if hashed else None)

    def add(self, folder: str, paths: tuple[str, ...], marks: Sequence[FileMark] = ()) -> None:
        """Note the files behind a result, in the place of those that were noted before.

        Args:
            folder: the input's folder.
            paths: its files.
            marks: of each file; none where nothing is known.

        Raises:
            StorageError: when the disk is full or fails.
        """
        names = [self.name_of(path) for path in paths]
        files = _marked(names, marks)
        if self._files.get(folder) != tuple(files.items()):
            told = {"marks": [[mark.digest, mark.instance] for mark in marks]} if marks else {}
            self._lines.append(json.dumps({"folder": folder, "sources": names, **told}).encode())
            self._learn(folder, files)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _marked(names: Sequence[str], marks: Sequence[FileMark]) -> dict[str, FileMark]:
    return dict(zip(names, marks or [_UNKNOWN] * len(names), strict=True))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _key(folder: Path) -> bytes:
    """Return the key of a folder, which is made when there is none."""
    lines = LineFile(folder / SOURCES_KEY, 0o600)
    try:
        known = lines.content.splitlines()
        if known:
            return known[0]
        made = secrets.token_hex(32).encode()
        lines.append(made)
        return made
    finally:
        lines.close()
