"""The folder of a run's results: everything of one input appears in it at once, whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msrf_monai.clinical.crashes import CRASH, JOURNAL
from msrf_monai.clinical.desks import DESK, OLD, TakenAwayError
from msrf_monai.clinical.ledger import MANIFEST, OutputRecord
from msrf_monai.clinical.lock import LOCK
from msrf_monai.clinical.naming import is_safe_name
from msrf_monai.clinical.pacs.delivery import DELIVERIES
from msrf_monai.errors import InputError, StorageError
from msrf_monai.files import sha256_of

__all__ = ["ResultFolder"]

_PART = ".part-"
_OURS = (LOCK, JOURNAL, CRASH, DELIVERIES)


class ResultFolder:
    """The root of a run's results.

    Args:
        root: the folder; ``check_is_ours`` and ``make`` come first.
        desk: name of the worker's desk in it, of ``open_desk``; none for the run that holds the folder.
    """

    def __init__(self, root: Path, desk: str = "") -> None:
        self.root = root
        self._desk = root / desk

    def check_is_ours(self) -> None:
        """Refuse a folder that holds something else, before anything is changed in it.

        Raises:
            InputError: when it is no folder, or holds files and no manifest.
        """
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise InputError(f"{self.root} is no folder; name a folder for the results with --output")
        if not (self.root / MANIFEST).exists() and self._held():
            raise InputError(
                f"{self.root} is not empty and holds no results of msrf-monai; name a new or empty folder with --output"
            )

    def check_is_new(self, *, resume: bool) -> None:
        """Refuse a folder that holds results; with ``resume`` it may. Raises ``InputError``."""
        if not resume and self.root.exists() and self._held():
            raise InputError(
                f"{self.root} holds results already; go on there with --resume, or name a new folder with --output"
            )

    def make(self) -> None:
        """Make the folder when it is missing; raises ``StorageError`` when that is not possible."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make {self.root}: {error.strerror}; choose a place that this user may write to"
            ) from error

    def clean(self) -> None:
        """Remove what a run that was killed had not finished."""
        for name in self._names():
            if name.startswith((_PART, OLD)):
                _remove(self.root / name)

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Give a temporary folder that becomes the folder ``name`` when the block ends without an error.

        Args:
            name: of the input's folder. What it held before is replaced as a whole.

        Yields:
            The temporary folder, empty. Its files and itself are synced to the disk before it is renamed.

        Raises:
            StorageError: when the name would lead out of the result folder; ``TakenAwayError`` when the desk is gone.
            OSError: as the system raises it; what was there before stays, and the temporary folder goes.
        """
        final = self.path_of(name)
        temporary = self._desk / f"{_PART}{name}"
        _remove(temporary)
        try:
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            self._set_aside(final)
            try:
                temporary.rename(final)
            except OSError:
                self._put_back(final)
                raise
        except BaseException as error:
            _remove(temporary)
            if isinstance(error, Exception) and self._desk != self.root and not self._desk.is_dir():
                raise TakenAwayError(
                    "the folder of a worker among the results was removed while it was at work; leave the result "
                    "folder alone, then run the same command with --resume"
                ) from error
            raise
        _sync(self.root)
        _remove(self._aside(final))

    def discard(self, name: str) -> None:
        """Remove the results of an input, which no longer hold; they vanish at once."""
        final = self.path_of(name)
        self._set_aside(final)
        _remove(self._aside(final))

    def holds(self, outputs: Iterable[OutputRecord]) -> bool:
        """Return whether files are all there and are, byte for byte, those that were written."""
        return all(self._is_intact(output) for output in outputs)

    def path_of(self, name: str) -> Path:
        """Return the path of an input's folder.

        Raises:
            StorageError: when the name would lead anywhere but directly into the result folder.
        """
        path = self.root / name
        if not is_safe_name(name) or path.is_symlink() or path.resolve().parent != self.root.resolve():
            raise StorageError("a result's name leads out of the result folder; nothing was written there")
        return path

    def _held(self) -> set[str]:
        """Return the names of what is in the folder, without what any run leaves behind."""
        return {name for name in self._names() if name not in _OURS and not name.startswith((_PART, OLD, DESK))}

    def _names(self) -> list[str]:
        with os.scandir(self.root) as found:
            return [each.name for each in found]

    def _is_intact(self, output: OutputRecord) -> bool:
        path = self.root / output.path
        try:
            if not path.resolve().is_relative_to(self.root.resolve()) or not path.is_file():
                return False
            return path.stat().st_size == output.size and sha256_of(path) == output.sha256
        except OSError:
            return False

    def _aside(self, final: Path) -> Path:
        return self._desk / f"{OLD}{final.name}"

    def _set_aside(self, final: Path) -> None:
        """Rename a folder that is there; a folder with files in it cannot be replaced by renaming."""
        if final.exists():
            _remove(self._aside(final))
            final.rename(self._aside(final))

    def _put_back(self, final: Path) -> None:
        with suppress(OSError):  # what stopped the new result may stop this too
            self._aside(final).rename(final)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    for name, _, files in os.walk(folder):
        for file in files:
            _sync(Path(name) / file)
        _sync(Path(name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if path.is_dir():
            with suppress(OSError):  # some network drives cannot sync a folder
                os.fsync(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
