"""Desks: a place inside the result folder for each worker, without which it cannot change a result.

A worker makes its results at its desk and publishes them by renaming them from there. A worker that counts as dead may
only be out of reach, and still be writing; its desk is then taken away before another one gets its work. From then on
whatever it renames is not there any more, so that it neither writes into the files of its replacement nor publishes
over them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from msrf_monai.errors import StorageError

__all__ = ["DESK", "OLD", "TakenAwayError", "open_desk", "take_away", "take_away_all"]

DESK, OLD = ".desk-", ".old-"
"""How the names of desks, and of what only waits to be removed, begin in a result folder."""
_TRIES = 5


class TakenAwayError(StorageError):
    """The desk that results were to be made at is no longer there; nothing was published."""


def open_desk(root: Path) -> str:
    """Make a desk.

    Args:
        root: the result folder.

    Returns:
        Its name, which no other one ever has.

    Raises:
        StorageError: when it cannot be made.
    """
    name = f"{DESK}{secrets.token_hex(8)}"
    try:
        (root / name).mkdir()
    except OSError as error:
        raise StorageError(
            f"cannot make a folder in {root}: {error.strerror}; free some space or give this user the right to write "
            "there, then run the same command with --resume"
        ) from error
    return name


def take_away(root: Path, name: str) -> None:
    """Take a desk away with all that lies on it; once this returns, nothing gets from it into the results.

    Args:
        root: the result folder.
        name: of the desk; one that is gone already stays gone.

    Raises:
        StorageError: when it cannot be taken away.
    """
    gone = root / f"{OLD}{name.removeprefix('.')}"
    try:
        # at once for all who know it by its path; what one of them is making meanwhile may take another try to remove
        (root / name).rename(gone)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"cannot take a worker's folder out of {root}: {error.strerror}; give this user the right to write there, "
            "then run the same command with --resume"
        ) from error
    for _ in range(_TRIES):
        shutil.rmtree(gone, ignore_errors=True)
        if not gone.exists():
            return


def take_away_all(root: Path) -> None:
    """Take away the desks of an earlier run, whose workers may outlive it by a moment; for who holds the folder."""
    with suppress(FileNotFoundError), os.scandir(root) as found:
        names = [each.name for each in found if each.name.startswith(DESK)]
        for name in names:
            take_away(root, name)
