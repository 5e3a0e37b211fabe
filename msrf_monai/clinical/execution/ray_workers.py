"""Workers as actors of a Ray cluster, or of a Ray that is started on this computer alone for the run.

Ray finds the places, starts the actors and says when one has died. What is said between a run and its workers is the
same as with processes of this computer, in the same JSON: pixels are read from files and results written to files, so
all computers must have the inputs, the bundle and the result folder under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from msrf_monai.clinical.execution.messages import Message, decode, encode
from msrf_monai.clinical.execution.worker_work import serve
from msrf_monai.clinical.execution.workplace import Worker
from msrf_monai.errors import ConfigError, EngineError
from msrf_monai.optional import require

__all__ = ["ACTOR", "RayCluster", "RayWorker", "WorkerActor"]

_LOGGER = logging.getLogger(__name__)

_NEWS_SECONDS = 30.0
"""How long an actor waits for something to tell before it says that there is nothing."""
_ROOM_SECONDS = 60.0
"""So often it is said how many workers have not begun."""
_PATIENCE = 10.0
"""Seconds that the end of an actor may take."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerActor:
    """What runs in an actor's process.

    Args:
        setup: the first message.
        folder: that paths of the run are relative to.
    """

    def __init__(self, setup: bytes, folder: str) -> None:
        with suppress(OSError):  # without it only a run with relative paths fails, and says so
            os.chdir(folder)
        _print_nowhere()
        self._told: SimpleQueue[Message] = SimpleQueue()
        self._news: SimpleQueue[bytes] = SimpleQueue()
        self._told.put(decode(setup))
        self._work = threading.Thread(target=self._serve, name="worker", daemon=True)
        self._work.start()

    def tell(self, content: bytes) -> None:
        """Take a message from the run."""
        self._told.put(decode(content))

    def hear(self, seconds: float = _NEWS_SECONDS) -> list[bytes]:
        """Return what there is to tell, as soon as there is something; nothing after ``seconds``."""
        with suppress(Empty):
            found = [self._news.get(timeout=seconds)]
            with suppress(Empty):
                while True:
                    found.append(self._news.get_nowait())
            return found
        return []

    def join(self, seconds: float) -> None:
        """Wait until the work has ended."""
        self._work.join(seconds)

    def wait(self) -> Message:
        """Return the next message of the run; see ``Channel``."""
        return self._told.get()

    def next_at_hand(self) -> Message | None:
        """Return the next message of the run, if there is one by now; see ``Channel``."""
        with suppress(Empty):
            return self._told.get_nowait()
        return None

    def send(self, message: Message) -> None:
        """Tell something to the run; see ``Channel``."""
        self._news.put(encode(message))

    def _serve(self) -> None:
        try:
            serve(self)
        except BaseException:
            os._exit(1)  # a thread that ended silently would be waited for; that the actor died is heard


ACTOR: type[WorkerActor] = WorkerActor
"""The class of the actors."""


class RayWorker(Worker):
    """An actor as the run sees it; it begins as soon as the cluster has room.

    Args:
        ray: the library.
        actor: the actor.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        super().__init__()
        self._ray = ray
        self._actor = actor
        self._heard: deque[Message] = deque()
        self._end = ""
        self.pending = self._listen()

    def has_news(self) -> bool:
        """Return whether ``receive`` does not have to wait."""
        if not self._heard and not self._end and self._ray.wait([self.pending], timeout=0)[0]:
            self._collect()
        return bool(self._heard or self._end)

    def receive(self) -> Message | None:
        """Wait for its next message; None when it has ended."""
        while not self._heard and not self._end:
            self._collect()
        return self._heard.popleft() if self._heard else None

    def end(self) -> None:
        """Wait until it has ended as it was asked to; not for ever."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(_call(self._actor.join, "told").remote(_PATIENCE), timeout=2 * _PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self._ray.kill(self._actor, no_restart=True)
        # what it still has to tell comes first, then the error that tells of its end
        for ending in (self.pending, self._listen()):
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(ending, timeout=_PATIENCE)
        self._end = self._end or "killed"

    @property
    def status(self) -> str:
        """How it has ended: Ray's kind of error."""
        return self._end

    def _send(self, message: Message) -> None:
        _call(self._actor.tell, "told").remote(encode(message))

    def _listen(self) -> Any:
        return _call(self._actor.hear, "news").remote()

    def _collect(self) -> None:
        try:
            self._heard.extend(map(decode, self._ray.get(self.pending)))
        except self._ray.exceptions.RayError as error:
            self._end = type(error).__name__  # its text speaks of computers and processes
            self.kill()  # it may merely be out of reach, and what it had in work goes to another one now
        else:
            self.pending = self._listen()


class RayCluster:
    """A cluster, or this computer when no address is given.

    Args:
        address: of a running cluster, ``"host:port"``, or ``"auto"`` on one of its computers; None starts Ray here for
            as long as the run takes, or takes the one that this process uses already.
        on_gpus: the network may run on GPUs: each worker then has one, where the cluster has any.

    Raises:
        MissingExtraError: when Ray is not installed.
        EngineError: when the cluster cannot be reached, or Ray cannot start here.
        ConfigError: when this process uses Ray already, and an address is given.
    """

    def __init__(self, address: str | None = None, *, on_gpus: bool = False) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        self._ray = require("ray", "scale")
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._join(address)
        elif address is not None:
            raise ConfigError(f"this process uses Ray already; leave out the address {address}, or end that Ray before")
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        has_room = [node for node in alive if node.get("CPU", 0) >= 1]  # a head may do nothing but lead
        self._gpus = int(sum(node.get("GPU", 0) for node in has_room)) if on_gpus else 0
        self._places = [node for node in has_room if node.get("GPU", 0)] if self._gpus else has_room
        self._told_of_room = time.monotonic()

    def count(self, asked: int) -> int:
        """Return what is asked for, else one for each GPU, or for each computer of a cluster without."""
        return asked or self._gpus or max(1, len(self._places))

    def threads(self, count: int) -> int:
        """Return the most processors that every one of so many workers can have at the same time, at least 1."""
        fitting = (threads for threads in range(self._room, 1, -1) if self._holds(count, threads))
        return next(fitting, 1)

    def _holds(self, count: int, threads: int) -> bool:
        """Return whether so many workers have room at once, each on one computer."""
        room = 0
        for node in self._places:
            fitting = int(node["CPU"]) // threads
            room += min(fitting, int(node["GPU"])) if self._gpus else fitting
        return room >= count

    @property
    def _room(self) -> int:
        """Processors of the largest computer; an actor that asks for more would never begin."""
        return max((int(node["CPU"]) for node in self._places), default=1)

    def begin(self, setup: Message, threads: int) -> RayWorker:
        """Begin an actor."""
        environment = dict.fromkeys(_THREADS, str(threads))
        actor = self._ray.remote(concurrency_groups={"told": 1, "news": 1})(ACTOR)
        options = {
            "num_cpus": min(threads, self._room),
            "num_gpus": 1 if self._gpus else 0,
            "runtime_env": {"env_vars": environment},
        }
        # the only GPU that an actor sees is its own
        message = encode({**setup, "worker": 0} if self._gpus else setup)
        return RayWorker(self._ray, actor.options(**options).remote(message, str(Path.cwd())))

    def with_news(self, workers: Sequence[Any]) -> Sequence[RayWorker]:
        """Wait until an actor has said something, or has died."""
        while True:
            self._tell_of_room(workers)
            found = [worker for worker in workers if worker.has_news()]
            if found or not workers:
                return found
            self._ray.wait([worker.pending for worker in workers], num_returns=1, timeout=_ROOM_SECONDS)

    def _tell_of_room(self, workers: Sequence[Any]) -> None:
        """Say once a minute how many have not begun, also while others are at work."""
        waiting = sum(not worker.is_ready for worker in workers)
        if not waiting:
            self._told_of_room = time.monotonic()
        elif time.monotonic() - self._told_of_room >= _ROOM_SECONDS:
            self._told_of_room = time.monotonic()
            _LOGGER.warning("%d of %d workers still wait for room in the cluster, or load", waiting, len(workers))

    def _join(self, address: str | None) -> None:
        own: dict[str, Any] = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            _knock(address)
            self._ray.init(
                log_to_driver=False, logging_level="ERROR", **(own if address is None else {"address": address})
            )
        except (self._ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise EngineError(
                f"Ray cannot be used at {address or 'this computer'} ({type(error).__name__}); check the address, "
                "or run with the engine local"
            ) from error

    def close(self) -> None:
        """End Ray, if it was started here."""
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()


def _print_nowhere() -> None:
    """Let what a bundle or a decoder prints vanish: Ray would keep it in files, and it may quote an input."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _knock(address: str | None) -> None:
    """Raise ``OSError`` when nobody answers at an address; Ray would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _call(method: Any, group: str) -> Any:
    """Return an actor's method in a group of calls of its own: what is told must not wait for what is heard."""
    return method.options(concurrency_group=group)
