"""Watches one process of a bundle's training under torchrun, and kills it with SIGKILL where a plan says so.

A handler in the configuration, by its path from the root of the checkout, so that a process that torchrun starts there
finds it. When this module is imported, before anything else of the configuration is evaluated, every file that the
process opens for writing, makes, moves or removes below ``MSRF_SPY_ROOT`` is noted from then on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from msrf_monai.engines import case_names

ROOT = os.environ.get("MSRF_SPY_ROOT", "")
RANK = os.environ.get("RANK", "0")
TRY = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
_CHANGING = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.link": 1, "os.symlink": 1, "shutil.move": 1}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _note(kind: str, value: Any) -> None:
    line = json.dumps({"try": TRY, kind: value}) + "\n"
    descriptor = os.open(f"{os.environ['MSRF_SPY_NOTES']}/rank{RANK}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    path: Any = None
    if event == "open" and (arguments[2] or 0) & _WRITING:
        path = arguments[0]
    elif event in _CHANGING:
        path = arguments[_CHANGING[event]]
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(ROOT):
        _note("wrote", os.path.relpath(os.fsdecode(path), ROOT))


if ROOT:
    sys.addaudithook(_watch)


class Spy:
    """Notes the images of every iteration, and dies once in each try that the plan has a place for.

    Args:
        kills: for the first try, the second and so on: the ``rank``, and the ``iteration`` after which it dies, counted
            from the start of the training, or the epoch ``in_save`` of which it dies.
    """

    def __init__(self, kills: list[dict[str, int]]) -> None:
        plan = kills[TRY] if len(kills) > TRY else {}
        self.kill = plan if plan.get("rank") == int(RANK) else {}

    def attach(self, engine: Any) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._before_save)

    def _iteration(self, engine: Any) -> None:
        _note("saw", [engine.state.epoch, [Path(name).name for name in case_names(engine.state.batch)]])
        if self.kill.get("iteration") == engine.state.iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    def _before_save(self, engine: Any) -> None:
        if self.kill.get("in_save") == engine.state.epoch:
            torch.save = _half_a_save


def _half_a_save(content: Any, handle: Any) -> None:
    handle.write(b"half a file")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
