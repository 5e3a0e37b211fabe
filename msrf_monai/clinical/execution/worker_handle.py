"""A worker process as the run that started it sees it: begun, given inputs, listened to, ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from msrf_monai.clinical.execution.messages import Message, decode, encode
from msrf_monai.clinical.execution.workplace import Worker

__all__ = ["PROGRAM", "Processes", "WorkerHandle"]

PROGRAM = "from msrf_monai.clinical.execution.worker_process import main; main()"
"""What a worker runs, with the same search path for modules as this process has."""

_PATIENCE = 10.0
"""Seconds that an orderly end may take."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerHandle(Worker):
    """A worker process; it begins at once.

    It is a fresh interpreter and no fork, so that it shares nothing with the threads of this process. It ends when this
    process does, however that happens.

    Args:
        setup: its first message.
        threads: of one operation in it.
    """

    def __init__(self, setup: Message, threads: int) -> None:
        super().__init__()
        self.connection, theirs = Pipe()
        start = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {PROGRAM}"
        arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
        # -P: a folder that the run is started in must not hide the standard library's json
        command = [sys.executable, "-P", "-X", f"utf8={sys.flags.utf8_mode}", "-c", start, *arguments]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (this very interpreter)
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a bundle prints must not mix with the one JSON object of the command
                env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
                process_group=0,  # Ctrl-C is for the run, which ends its workers
            )
        self._send(setup)

    def receive(self) -> Message | None:
        """Wait for its next message; None when it has ended, and it has for certain."""
        with suppress(EOFError, OSError):
            return decode(self.connection.recv_bytes())
        self.kill()  # it cannot tell anything any more, and what it had in work may go to another one only now
        return None

    def end(self) -> None:
        """Wait until it has ended as it was asked to; not for ever."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self.connection.close()

    @property
    def status(self) -> str:
        """How it has ended: its exit status, or the signal's number as a negative one."""
        return f"status {self._process.wait()}"

    @property
    def number(self) -> int:
        """Its process number."""
        return self._process.pid

    def _send(self, message: Message) -> None:
        with suppress(OSError):
            self.connection.send_bytes(encode(message))


class Processes:
    """This computer, whose processes are the workers."""

    def count(self, asked: int) -> int:
        """Return what is asked for; one worker is the least that makes sense."""
        return max(1, asked)

    def threads(self, count: int) -> int:
        """Return an equal part of the processors, at least 1."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable // count)

    def begin(self, setup: Message, threads: int) -> WorkerHandle:
        """Begin a process."""
        return WorkerHandle(setup, threads)

    def with_news(self, workers: Sequence[Any]) -> Sequence[WorkerHandle]:
        """Wait until a pipe has something to read, or is closed."""
        by_pipe = {worker.connection: worker for worker in workers}
        return [by_pipe[connection] for connection in wait(list(by_pipe))]

    def close(self) -> None:
        """Do nothing: a process that has ended leaves nothing."""
