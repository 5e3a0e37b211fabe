"""Exported networks that are kept from run to run, since exporting one takes from ten seconds to minutes.

A network is one file, ``<key>.<sha256>.onnx``. The key is a digest of all that decides its content; the second part is
the digest of the content itself, by which a file is checked each time before it is used. A file appears by one rename,
whole. One process at a time exports into a folder, and others that want the same network wait for it.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msrf_monai.errors import ConfigError, StorageError
from msrf_monai.files import sha256_of

__all__ = ["SWITCH", "NetworkCache", "folder_of_process", "folder_of_user"]

_log = logging.getLogger(__name__)

SWITCH = "MSRF_NETWORK_CACHE"
"""Environment variable: another folder than the user's own, or ``off``."""

_DRAFT = ".export-"
_MOST_KEPT = 8
_NAME = re.compile(r"[0-9a-f]{32}\.(?P<digest>[0-9a-f]{64})\.onnx")


def folder_of_user() -> Path | None:
    """Return where exported networks are kept: ``$MSRF_NETWORK_CACHE``, or ``msrf-monai/networks`` in the user's cache.

    The user's cache is ``$XDG_CACHE_HOME``, by default ``~/.cache``.

    Returns:
        The folder, which may be missing; None when the variable says ``off`` or the user has no home.

    Raises:
        ConfigError: when the variable holds a relative path.
    """
    told = os.environ.get(SWITCH, "")
    if told.lower() == "off":
        return None
    if told:
        if not Path(told).is_absolute():
            raise ConfigError(f"{SWITCH} is {told!r}; expected the full path of a folder, or off")
        return Path(told)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the standard says that relative ones do not count
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "msrf-monai" / "networks"


_of_process: list[Path] = []


def folder_of_process() -> Path:
    """Return a temporary folder that goes with this process, the same one in each call."""
    if not _of_process:
        _of_process.append(Path(tempfile.mkdtemp(prefix="msrf-monai-networks-")))
        atexit.register(shutil.rmtree, _of_process[0], ignore_errors=True)
    return _of_process[0]


class NetworkCache:
    """A folder of exported networks; the eight that were used last are kept.

    Args:
        folder: made when missing, readable for its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """Return a network whose content is what was kept; one that has changed is removed.

        Args:
            key: 32 hexadecimal digits.

        Returns:
            Its file, or None.
        """
        for path in self.folder.glob(f"{key}.*.onnx"):
            named = _NAME.fullmatch(path.name)
            if named is None:
                continue
            with suppress(OSError):  # another process may have removed it
                if sha256_of(path) == named["digest"]:
                    _touch(path)
                    return path
                _log.warning("an exported network in the cache was damaged; it is exported again")
                self._remove(path)
        return None

    @contextmanager
    def exporting(self) -> Iterator[Path]:
        """Give a folder for a draft while no other process exports here.

        Yields:
            The folder; it goes at the end of the block.

        Raises:
            StorageError: when the cache's folder cannot be made or held.
        """
        with self._held(), tempfile.TemporaryDirectory(dir=self.folder, prefix=_DRAFT) as work:
            yield Path(work)

    def keep(self, key: str, draft: Path) -> Path:
        """Keep a network; called while ``exporting``.

        Args:
            key: 32 hexadecimal digits.
            draft: its file, in the folder for drafts; it is moved.

        Returns:
            Its file in the cache.
        """
        path = self.folder / f"{key}.{sha256_of(draft)}.onnx"
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        draft.replace(path)
        _touch(path)
        for old in sorted(self.folder.glob("*.onnx"), key=_last_used)[:-_MOST_KEPT]:
            self._remove(old)
        return path

    def is_approved(self, path: Path, runtime: str) -> bool:
        """Tell whether a network was found to give eager PyTorch's results in a runtime."""
        return self._approval(path, runtime).is_file()

    def approve(self, path: Path, runtime: str) -> None:
        """Note that it does.

        Args:
            path: its file in the cache.
            runtime: name and version, such as ``"openvino-2026.4.1"``.
        """
        with suppress(OSError):  # it is compared again then
            self._approval(path, runtime).touch()

    def _approval(self, path: Path, runtime: str) -> Path:
        return path.with_name(f"{path.stem}.{re.sub(r'[^0-9A-Za-z.+-]', '_', runtime)}.equal")

    def _remove(self, path: Path) -> None:
        """Remove a network and what belongs to it: notes of comparisons, engines."""
        for part in [path, *self.folder.glob(f"{path.stem}.*")]:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._failed(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                for left in self.folder.glob(f"{_DRAFT}*"):  # of a process that was killed: nobody exports now
                    shutil.rmtree(left, ignore_errors=True)
            except OSError as error:
                raise self._failed(error) from error
            yield
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write the exported network to {self.folder}: {error.strerror or error}")


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
