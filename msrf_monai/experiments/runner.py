"""Run a command in a process of its own, with a log."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msrf_monai.errors import StorageError

__all__ = ["ProcessRunner", "Runner", "last_lines"]

_GRACE_S = 10.0  # between asking a process to end and ending it
_TAIL_BYTES = 16_384


class Runner(Protocol):
    """Whatever runs a command to its end; tests put a stand-in here."""

    def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
        """Run a command, append its output to ``log``, and return its exit code."""
        ...


class ProcessRunner:
    """Run commands one after the other, each in a process of its own, without a shell.

    Args:
        waiting: called about every ``interval_s`` seconds while a process runs.
        interval_s: seconds.
    """

    def __init__(self, *, waiting: Callable[[], None] | None = None, interval_s: float = 1.0) -> None:
        self.waiting = waiting
        self.interval_s = interval_s

    def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
        """Run a command to its end; whatever ends this process first ends that one too.

        Args:
            command: program and arguments.
            log: file to which the command, its standard output and its errors are appended.
            keep_open: file descriptors that the process inherits, such as that of a lock.

        Returns:
            The exit code; a negative number is the signal that killed the process.

        Raises:
            StorageError: when the log cannot be written or the process cannot be started.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as handle:
                handle.write(f"$ {shlex.join(command)}\n".encode())
                handle.flush()
                process = subprocess.Popen(  # noqa: S603 - a list of arguments, our own interpreter
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    pass_fds=tuple(keep_open),
                )
                return self._wait(process)
        except OSError as error:
            raise StorageError(f"cannot run with the log {log}: {error.strerror or error}") from error

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            while True:
                try:
                    return process.wait(self.interval_s)
                except subprocess.TimeoutExpired:
                    if self.waiting is not None:
                        self.waiting()
        finally:
            _end(process)


def last_lines(log: Path, count: int = 8) -> list[str]:
    """Return the last lines of a log that are not empty; none when there is no log."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = handle.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
