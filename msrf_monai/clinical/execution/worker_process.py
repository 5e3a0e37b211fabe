"""A worker as a process of this computer: it talks through a pipe, and ends when the process that started it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import NoReturn

from msrf_monai.clinical.execution.messages import Message, decode, encode
from msrf_monai.clinical.execution.worker_work import serve

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work for the process that has started this one: its arguments are a search path, a pipe and that process."""
    _end_with(int(sys.argv[-1]))
    sys.exit(0 if serve(_Channel(Connection(int(sys.argv[-2])))) else 1)


def _end_with(parent: int) -> None:
    """Let the system end this process when its parent ends, even in the middle of a decoder's work."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _leave()


def _leave() -> NoReturn:
    """End at once: nobody waits for results any more, and what is not whole yet is done by the next run."""
    os._exit(1)


class _Channel:
    """The pipe to the process that has started this one; a thread listens to it all the time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: SimpleQueue[Message] = SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, name="listener", daemon=True).start()

    def wait(self) -> Message:
        """Return the next message, as soon as there is one."""
        return self._heard.get()

    def next_at_hand(self) -> Message | None:
        """Return the next message, if there is one by now."""
        try:
            return self._heard.get_nowait()
        except Empty:
            return None

    def send(self, message: Message) -> None:
        """Tell something; called by any thread."""
        content = encode(message)
        try:
            with self._sending:
                self._connection.send_bytes(content)
        except OSError:
            _leave()

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(decode(self._connection.recv_bytes()))
        except (EOFError, OSError):
            _leave()
