"""What runs in a worker process: a predictor that is loaded once, and inputs through the stages as they come.

The worker writes result folders by itself, whole or not at all, and then says what the line about an input is; the
process that started it adds the line. A worker ends when that process does.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import cv2

from msrf_monai.clinical.execution.loading import load_predictor
from msrf_monai.clinical.execution.messages import (
    Message,
    decode,
    encode,
    entry_from,
    entry_message,
    input_from,
    options_from,
)
from msrf_monai.clinical.execution.opening import InputOpener, Opened
from msrf_monai.clinical.execution.stages import Stages
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry
from msrf_monai.clinical.privacy import PrivateLogs, where
from msrf_monai.clinical.reading import Limits
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.errors import MsrfError
from msrf_monai.runtime import tune_allocator

__all__ = ["main"]

_LOGGER = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work for the process that has started this one: its arguments are a search path, a pipe and that process."""
    _end_with(int(sys.argv[-1]))
    tune_allocator()
    channel = _Channel(Connection(int(sys.argv[-2])))
    privacy = PrivateLogs()
    status = 1
    with privacy.active():
        try:
            setup = channel.wait()
            logging.getLogger().addHandler(_Forward(channel))
            logging.getLogger("msrf_monai").setLevel(setup["log_level"])
            _work(channel, setup, privacy)
            status = 0
        except Exception as error:
            _LOGGER.debug(where(error))
            # the text of other libraries' errors may quote an input
            text = str(error) if isinstance(error, MsrfError) else ""
            channel.send({"kind": "stopped", "error": type(error).__name__, "text": text})
    sys.exit(status)


def _end_with(parent: int) -> None:
    """Let the system end this process when its parent ends, even in the middle of a decoder's work."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _leave()


def _leave() -> NoReturn:
    """End at once: nobody waits for results any more, and what is not whole yet is done by the next run."""
    os._exit(1)


def _work(channel: _Channel, setup: Message, privacy: PrivateLogs) -> None:
    # what these import takes seconds, and a mistake in the setup should show before
    from msrf_monai.clinical.result_writer import ResultWriter
    from msrf_monai.clinical.slide_writer import SlideWriter

    cv2.setNumThreads(setup["threads"])
    settings = options_from(setup["options"])
    predictor = load_predictor(
        Path(setup["bundle"]),
        settings,
        threads=setup["threads"],
        worker=setup["worker"],
    )
    identity = {"name": predictor.name, "version": predictor.version, "model_digest": predictor.model_digest}
    channel.send({"kind": "ready", **identity})
    results = ResultFolder(Path(setup["results"]))
    inputs = _Inputs(channel, settings.limits)
    opener = InputOpener(
        predictor,
        results,
        inputs.before,
        limits=settings.limits,
        convert_unusual=settings.convert_unusual,
        thumbnails=settings.thumbnails,
        journal=None,
    )
    write, write_slide = ResultWriter(predictor, settings), SlideWriter(predictor, settings)
    with Stages(
        predictor, write, write_slide, results, opener, inputs.record, readers=setup["readers"], privacy=privacy
    ) as stages:
        while (first := inputs.wait()) is not None:
            stages.work(chain([first], inputs.at_hand()))


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


class _Inputs:
    """The inputs that this worker is given, and what earlier runs have said of those in work."""

    def __init__(self, channel: _Channel, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        self._is_over = False
        self.before: dict[str, Entry] = {}

    def wait(self) -> PlannedInput | None:
        """Return the next input, as soon as there is one; None when there will be no more."""
        return None if self._is_over else self._taken(self._channel.wait())

    def at_hand(self) -> Iterator[PlannedInput]:
        """Yield inputs for as long as there is one at once."""
        while not self._is_over and (message := self._channel.next_at_hand()) is not None:
            planned = self._taken(message)
            if planned is not None:
                yield planned

    def record(self, ended: Opened) -> None:
        """Tell what the line about an input is."""
        self.before.pop(ended.planned.folder, None)
        self._channel.send({"kind": "ended", "entry": entry_message(ended.entry), "is_new": ended.is_new})

    def _taken(self, message: Message) -> PlannedInput | None:
        if message["kind"] == "end":
            self._is_over = True
            return None
        planned = input_from(message["input"], self._limits)
        before = entry_from(message["before"])
        if before is not None:
            self.before[planned.folder] = before
        return planned


class _Forward(logging.Handler):
    """Sends what is logged here, and has been made safe, to the log of the process that has started this one."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; see ``logging.Handler``."""
        told: dict[str, Any] = {"name": record.name, "level": record.levelno, "text": record.getMessage()}
        self._channel.send({"kind": "log", **told})
