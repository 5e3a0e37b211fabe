"""Open a file without being caught by what is no file: pipes, devices, links in circles, files without end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput

__all__ = ["check_inside", "digest_of", "read_head", "read_regular"]

_REASONS = {
    errno.ENOENT: (RefusalCode.MISSING, "the file does not exist, or is a link to nothing; check the path"),
    errno.ENOTDIR: (RefusalCode.MISSING, "a part of the path is no folder; check the path"),
    errno.EACCES: (RefusalCode.PERMISSION_DENIED, "the file may not be read; give this user the right to read it"),
    errno.EPERM: (RefusalCode.PERMISSION_DENIED, "the file may not be read; give this user the right to read it"),
    errno.ELOOP: (RefusalCode.LINK_LOOP, "the link leads back to itself; mend or remove it"),
    errno.ENXIO: (RefusalCode.NOT_REGULAR_FILE, "a regular file was expected, not a socket, pipe or device"),
    errno.EISDIR: (RefusalCode.NOT_REGULAR_FILE, "a regular file was expected, not a folder"),
}


def read_regular(path: Path, limits: Limits) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        limits: its size is held against ``limits.file_bytes`` before it is read.

    Returns:
        The bytes; never empty.

    Raises:
        RefusedInput: ``missing``, ``permission_denied``, ``link_loop``, ``not_regular_file``, ``empty_file``,
            ``too_large``, ``changed`` (while it was read) or ``io_error``.
    """
    return _read(path, limits, None)


def read_head(path: Path, limits: Limits, size: int = 512) -> bytes:
    """Read the first bytes of a file, to tell what it is; raises as ``read_regular`` does."""
    return _read(path, limits, size)


def _read(path: Path, limits: Limits, size: int | None) -> bytes:
    try:
        # without O_NONBLOCK, opening a pipe waits for a writer for ever
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as handle:
            status = os.fstat(handle.fileno())
            _check_status(status, limits)
            # no more than there is: room for the limit would be taken at once
            data = handle.read(status.st_size + 1 if size is None else size)
    except RefusedInput:
        raise
    except OSError as error:
        code, sentence = _REASONS.get(
            error.errno or 0,
            (RefusalCode.IO_ERROR, f"the system cannot read the file ({os.strerror(error.errno or 5)})"),
        )
        raise RefusedInput(code, sentence) from None
    except ValueError:
        raise RefusedInput(RefusalCode.MISSING, "the path holds a zero byte; check the path") from None
    if size is None and len(data) != status.st_size:
        how = "shorter" if len(data) < status.st_size else "longer"
        raise RefusedInput(RefusalCode.CHANGED, f"the file became {how} while it was read; wait until it is written")
    return data


def _check_status(status: os.stat_result, limits: Limits) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedInput(
            RefusalCode.NOT_REGULAR_FILE, "a regular file was expected, not a folder, pipe, socket or device"
        )
    if status.st_size == 0:
        raise RefusedInput(RefusalCode.EMPTY_FILE, "the file is empty (0 bytes); copy or export it again")
    if status.st_size > limits.file_bytes:
        raise _too_large(status.st_size, limits)


def _too_large(size: int, limits: Limits) -> RefusedInput:
    return RefusedInput(
        RefusalCode.TOO_LARGE,
        f"the file has {size} bytes, and the limit is {limits.file_bytes}; raise file_bytes if that is meant",
    )


def digest_of(data: bytes) -> str:
    """Return the hexadecimal SHA-256 digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path that leads out of the input folder by a link.

    Args:
        path: a path below ``root`` as it was found there.
        root: the input folder.

    Raises:
        RefusedInput: ``link_outside``, or ``link_loop``.
    """
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        raise RefusedInput(RefusalCode.LINK_LOOP, "the link leads back to itself; mend or remove it") from None
    if not inside:
        raise RefusedInput(
            RefusalCode.LINK_OUTSIDE, "the link leads out of the input folder; name its target as an input of its own"
        )
