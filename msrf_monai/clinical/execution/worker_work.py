"""What a worker does, wherever it runs: a predictor that is loaded once, and inputs through the stages as they come.

The worker writes result folders by itself, whole or not at all, and then says what the line about an input is; the
process that started it adds the line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import cv2

from msrf_monai.clinical.execution.loading import load_predictor
from msrf_monai.clinical.execution.messages import (
    Message,
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
from msrf_monai.clinical.quality import QualityLimits
from msrf_monai.clinical.reading import Limits
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.errors import MsrfError
from msrf_monai.runtime import tune_allocator

__all__ = ["Channel", "serve"]

_LOGGER = logging.getLogger(__name__)


class Channel(Protocol):
    """What a worker hears from, and tells, the run that it works for."""

    def wait(self) -> Message:
        """Return the next message, as soon as there is one."""
        ...  # pragma: no cover

    def next_at_hand(self) -> Message | None:
        """Return the next message, if there is one by now."""
        ...  # pragma: no cover

    def send(self, message: Message) -> None:
        """Tell something; called by any thread."""
        ...  # pragma: no cover


def serve(channel: Channel) -> bool:
    """Work until the run says that nothing more will come, in a process that does nothing else.

    Args:
        channel: the first message that it brings is the setup.

    Returns:
        Whether the work ended in order; an error that ends it is told.
    """
    tune_allocator()
    privacy = PrivateLogs()
    with privacy.active():
        try:
            setup = channel.wait()
            logging.getLogger().addHandler(_Forward(channel))
            logging.getLogger("msrf_monai").setLevel(setup["log_level"])
            _work(channel, setup, privacy)
        except Exception as error:
            _LOGGER.debug(where(error))
            # the text of other libraries' errors may quote an input
            text = str(error) if isinstance(error, MsrfError) else ""
            channel.send({"kind": "stopped", "error": type(error).__name__, "text": text})
            return False
    return True


def _work(channel: Channel, setup: Message, privacy: PrivateLogs) -> None:
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
    bounds = QualityLimits.from_metadata(predictor.metadata).as_metadata()
    channel.send({"kind": "ready", **identity, "quality_limits": bounds})
    results = ResultFolder(Path(setup["results"]), setup["desk"])
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


class _Inputs:
    """The inputs that this worker is given, and what earlier runs have said of those in work."""

    def __init__(self, channel: Channel, limits: Limits) -> None:
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

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; see ``logging.Handler``."""
        told: dict[str, Any] = {"name": record.name, "level": record.levelno, "text": record.getMessage()}
        self._channel.send({"kind": "log", **told})
