"""The folder that keeps what a PACS sent until it is done: each object is there whole, on the disk, or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from msrf_monai.clinical.naming import short_hash
from msrf_monai.errors import InputError
from msrf_monai.files import atomic_write, storing

__all__ = ["Inbox"]

_SUFFIX = ".dcm"
_TEMPORARY = ".*.part"
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What network drives answer that offer no syncing of folders."""


class Inbox:
    """A folder of studies, each a folder of objects; both are named by hashes of UIDs, so no header leads out of it.

    Several threads may store at once while another lists and removes. One process at a time may call ``clean``.

    Args:
        root: the folder; made, for this user alone, when missing.

    Raises:
        StorageError: when it cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = threading.Lock()
        """Held while a study's folder gets its first file, or goes with its last."""
        self._listed: dict[Path, tuple[int, int, int]] = {}
        with storing(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            root.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            _sync(root.parent)

    def store(self, content: bytes | Iterable[bytes], *, study: str, instance: str) -> Path:
        """Put an object on the disk; the same object again takes the place of the first.

        Args:
            content: the file's bytes, or pieces of them, which are never held together.
            study: its study instance UID, or whatever stands for one; only its hash is used.
            instance: its SOP instance UID, likewise.

        Returns:
            The file, ``<root>/<hash of study>/<hash of instance>.dcm``, which a power cut now leaves whole.

        Raises:
            InputError: when a UID is empty.
            StorageError: when the disk is full or fails; what was there before is untouched, and nothing else stays.
        """
        names = [uid.strip(" \0") for uid in (study, instance)]
        if not all(names):
            raise InputError("an object without a study and a SOP instance UID has no place in an inbox")
        folder = self.folder_of(names[0])
        path = folder / f"{short_hash(names[1])}{_SUFFIX}"
        try:
            self._write(path, (content,) if isinstance(content, bytes) else content)
        except _SourceError as error:
            raise error.cause from None
        with storing(path), suppress(FileNotFoundError):  # it may be taken up, done and removed already
            _sync(folder)
        with storing(path):
            _sync(self._root)
        return path

    def _write(self, path: Path, pieces: Iterable[bytes]) -> None:
        with ExitStack() as stack:
            with self._folders, storing(path):
                path.parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
                handle = stack.enter_context(atomic_write(path))
            os.fchmod(handle.fileno(), _PRIVATE_FILE)
            for piece in _read(pieces):
                handle.write(piece)

    def folder_of(self, study: str) -> Path:
        """Return the folder that holds a study's objects, when there are any.

        Args:
            study: its study instance UID, or what ``store`` was given for one.
        """
        return self._root / short_hash(study.strip(" \0"))

    def scratch(self) -> IO[bytes]:
        """Return a nameless file on the inbox's disk, which is gone when it is closed or the process is killed.

        Raises:
            OSError: when the system refuses.
        """
        return tempfile.TemporaryFile(dir=self._root)

    def studies(self) -> list[Path]:
        """Return the folders that hold objects, the one that has been quiet longest first."""
        return [folder for _, folder in self._ages()]

    def quiet(self, seconds: float) -> list[Path]:
        """Return the folders that hold objects and have received nothing for so long, the quietest first.

        Args:
            seconds: how long; a folder whose time lies as far in the future counts too, for clocks are set back.
        """
        now = time.time()
        return [folder for changed, folder in self._ages() if abs(now - changed) >= seconds]

    def _ages(self) -> list[tuple[float, Path]]:
        found = []
        for folder in self._root.iterdir():
            # a folder may go while others are looked at
            with suppress(FileNotFoundError):
                if folder.is_dir() and any(folder.glob(f"*{_SUFFIX}")):
                    found.append((folder.stat().st_mtime, folder))
        return sorted(found)

    def files(self, study: Path) -> list[Path]:
        """Return the objects of a study, and remember them for ``remove``.

        Args:
            study: one of ``studies()``.
        """
        found = {}
        for path in sorted(self._child(study, self._root).glob(f"*{_SUFFIX}")):
            with suppress(FileNotFoundError):
                found[path] = _identity(path)
        self._listed.update(found)
        return list(found)

    def remove(self, study: Path, files: Iterable[Path]) -> None:
        """Remove objects that are done, and their study's folder when that leaves it empty.

        What came later stays: other objects, and also an object of ``files`` that was sent anew since ``files(study)``
        listed it.

        Args:
            study: one of ``studies()``.
            files: objects in it.

        Raises:
            InputError: when a path is not in the study, or the study is not in the inbox.
            StorageError: when the system refuses.
        """
        self._child(study, self._root)
        for path in files:
            self._child(path, study)
            listed = self._listed.pop(path, None)
            with storing(path), suppress(FileNotFoundError):
                if listed is None or _identity(path) == listed:
                    path.unlink()
        with self._folders, suppress(OSError):
            study.rmdir()

    def clean(self) -> None:
        """Remove what a process that was killed had begun to write, and folders that hold nothing.

        Raises:
            StorageError: when the system refuses.
        """
        for folder in [each for each in self._root.iterdir() if each.is_dir()]:
            for path in folder.glob(_TEMPORARY):
                with storing(path):
                    path.unlink(missing_ok=True)
            with self._folders, suppress(OSError):
                folder.rmdir()

    def _child(self, path: Path, folder: Path) -> Path:
        if path.parent != folder or path.name in ("", ".."):
            raise InputError(f"{path} is not in {folder}; give what this inbox has listed")
        return path


class _SourceError(Exception):
    """What went wrong where the content comes from, kept apart from what the disk says."""

    def __init__(self, cause: OSError) -> None:
        super().__init__()
        self.cause = cause


def _read(pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except OSError as error:
        raise _SourceError(error) from error


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _sync(folder: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
