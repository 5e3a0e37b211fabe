"""Workers of one run: they begin, load the bundle, die and are replaced, and end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msrf_monai import errors
from msrf_monai.clinical.desks import open_desk, take_away
from msrf_monai.clinical.execution.messages import Message, options_message
from msrf_monai.clinical.execution.worker_handle import Processes
from msrf_monai.clinical.execution.workplace import Worker, Workplace
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.errors import EngineError, MsrfError, StorageError
from msrf_monai.files import Closing

__all__ = ["WorkerPool", "worker_threads"]

_LOGGER = logging.getLogger(__name__)

_FAILED_STARTS = 3
"""Workers that may die one after the other before they have loaded the predictor."""
_KNOWN: dict[str, type[MsrfError]] = {
    kind.__name__: kind
    for kind in (
        errors.CheckpointError,
        errors.ConfigError,
        errors.DataError,
        errors.InputError,
        errors.MissingExtraError,
        errors.StorageError,
    )
}


class _Identity(NamedTuple):
    name: str
    version: str
    model_digest: str
    quality_limits: dict[str, Any]


def worker_threads(settings: RunOptions, workplace: Workplace, count: int) -> int:
    """Return the threads of one operation in each of ``count`` workers: as told, else what their workplace says."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if settings.num_threads is not None:
        return settings.num_threads
    if told.isdecimal() and int(told):
        return int(told)
    return workplace.threads(count)


class WorkerPool(Closing):
    """Workers that have loaded one bundle; they stay for any number of plans.

    It is a stand-in for the predictor that the workers have: it says what a manifest tells of it. They begin at once,
    and load while this process does something else.

    Args:
        bundle: folder of the bundle.
        settings: of the run.
        results: the folder that workers write to, which exists; each has a desk of its own there.
        workplace: where they work; None for processes of this computer. It is closed with the pool.

    Raises:
        ConfigError: when an option cannot be sent to another process.
        EngineError: when the system lets no worker begin.
        StorageError: when the result folder cannot be changed.
    """

    def __init__(
        self, bundle: Path, settings: RunOptions, results: Path, *, workplace: Workplace | None = None
    ) -> None:
        self._workplace: Workplace = Processes() if workplace is None else workplace
        self._results = results
        self._workers: dict[int, Worker] = {}
        self._desks: dict[int, str] = {}
        self._identity: _Identity | None = None
        self._failed_starts = 0
        try:
            self.count = self._workplace.count(settings.num_workers)
            self._threads = worker_threads(settings, self._workplace, self.count)
            self.readers = settings.readers or (2 if self._threads >= 4 else 1)
            """Threads that read in each worker."""
            self._setup: Message = {
                "bundle": str(bundle),
                "results": str(results),
                "options": options_message(settings),
                "threads": self._threads,
                "readers": self.readers,
                "log_level": logging.getLogger("msrf_monai").getEffectiveLevel(),
            }
            # all need the same exported network: the first one makes it, and the others find it in the user's cache
            is_exported = settings.backend not in ("eager", "torchscript")
            self.fill(1 if is_exported else self.count)
        except BaseException:
            self.kill()
            raise

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self._known().name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self._known().version

    @property
    def model_digest(self) -> str:
        """See ``Predictor.model_digest``."""
        return self._known().model_digest

    @property
    def metadata(self) -> dict[str, Any]:
        """What the run itself needs of the bundle's metadata: ``quality_limits``."""
        return {"quality_limits": self._known().quality_limits}

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Those that are there."""
        return tuple(self._workers.values())

    def fill(self, count: int) -> None:
        """Begin workers until there are so many.

        Raises:
            EngineError: when the system lets none begin.
            StorageError: when the result folder cannot be changed.
        """
        for place in range(self.count):
            if len(self._workers) >= count:
                return
            if place in self._workers:
                continue
            self._desks[place] = open_desk(self._results)
            setup = {**self._setup, "worker": place, "desk": self._desks[place]}
            try:
                self._workers[place] = self._workplace.begin(setup, self._threads)
            except OSError as error:
                raise EngineError(
                    f"a worker cannot begin ({error.strerror or error}); use a smaller number of workers"
                ) from error

    def heard(self) -> Iterator[tuple[Worker, Message | None]]:
        """Wait until workers say something, and yield it; None for one that has died, which is no longer one of them.

        Raises:
            EngineError: when workers die again and again while they load, or have loaded different models.
            StorageError: when a dead worker's desk cannot be taken away.
            MsrfError: what ends the run, as a worker met it.
        """
        places = {id(worker): place for place, worker in self._workers.items()}
        for worker in self._workplace.with_news(self.workers):
            message = worker.receive()
            if message is None:
                del self._workers[places[id(worker)]]
                # it may be out of reach only, and still be writing: not before this may another one have its work
                take_away(self._results, self._desks.pop(places[id(worker)]))
                self._note_death(worker)
                yield worker, None
            elif message["kind"] == "ready":
                self._note_ready(worker, message)
                yield worker, message
            elif message["kind"] == "log":
                logging.getLogger(message["name"]).log(message["level"], message["text"])
            elif message["kind"] == "stopped":
                raise _stopped(message)
            else:
                yield worker, message

    def kill(self) -> None:
        """End all workers at once; what they had in work is done by the next run."""
        while self._workers:
            self._workers.popitem()[1].kill()
        while self._desks:
            with suppress(StorageError):  # the next run takes it away
                take_away(self._results, self._desks.popitem()[1])
        self._workplace.close()

    def close(self) -> None:
        """End all workers: in order those that have nothing in work."""
        for place, worker in list(self._workers.items()):
            if worker.is_ready and not worker.in_work:
                worker.ask_to_end()
            else:
                self._workers.pop(place).kill()
        for worker in self._workers.values():
            worker.end()
        self.kill()

    def _known(self) -> _Identity:
        while self._identity is None:
            for _ in self.heard():
                pass
            self.fill(1)
        return self._identity

    def _note_ready(self, worker: Worker, message: Message) -> None:
        identity = _Identity(*(message[name] for name in _Identity._fields))
        worker.is_ready = True
        self._failed_starts = 0
        if self._identity is None:
            self._identity = identity
        if identity != self._identity:
            raise EngineError(
                "a worker has loaded another model than the ones before, so the bundle has changed during the run; "
                "run again with a new result folder"
            )

    def _note_death(self, worker: Worker) -> None:
        _LOGGER.warning("a worker died (%s) with %d inputs in work", worker.status, len(worker.in_work))
        if worker.is_ready:
            return
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS:
            raise EngineError(
                f"{_FAILED_STARTS} worker processes died one after the other while they loaded the bundle (the last "
                f"one with {worker.status}); there may not be enough memory for {self.count}: use fewer workers"
            )


def _stopped(message: Message) -> MsrfError:
    kind = _KNOWN.get(message["error"])
    if kind is not None and message["text"]:
        return kind(message["text"])
    return EngineError(
        f"a worker process was stopped by an unforeseen {message['error']}; run without workers to see where"
    )
