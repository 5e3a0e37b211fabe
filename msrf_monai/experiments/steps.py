"""Steps of a run, each in its own process, with a record of what was finished; and all runs of an experiment."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from msrf_monai.errors import StorageError
from msrf_monai.experiments.runner import Runner, last_lines
from msrf_monai.files import sha256_of
from msrf_monai.json_files import write_json
from msrf_monai.runtime import versions

__all__ = ["Failure", "Observer", "Outcome", "Recorded", "Step", "perform_all", "read_record", "run_steps"]

_LOGGER = logging.getLogger(__name__)

RECORD_NAME = "record.json"
CASES = "evaluation/cases.csv"
SUMMARY = "evaluation/summary.json"


class Recorded(Protocol):
    """Whatever is run in steps and keeps a record of them."""

    @property
    def folder(self) -> Path:
        """Folder of the run's files and its record."""
        ...

    @property
    def digest(self) -> str:
        """Digest of everything that decides the result; a record with another digest is not this run's."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What tells the run from others, for its record and in words."""
        ...


_Spec = TypeVar("_Spec", bound=Recorded)
_Spec_co = TypeVar("_Spec_co", bound=Recorded, covariant=True)
_Spec_contra = TypeVar("_Spec_contra", bound=Recorded, contravariant=True)


@dataclass(frozen=True)
class Step:
    """One command of a run.

    Attributes:
        name: of the step, and of its log.
        command: program and arguments.
        files: what it must leave, relative to the run's folder.
    """

    name: str
    command: Sequence[str]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why a step failed.

    Attributes:
        message: what happened.
        log: its log.
        lines: the last lines of the log.
    """

    message: str
    log: Path
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Outcome(Generic[_Spec_co]):
    """How a run has ended.

    Attributes:
        spec: the run.
        state: "finished" now, "reused" from an earlier call, or "failed".
        seconds: wall time now, 0 for one that was reused.
        failure: why it failed.
    """

    spec: _Spec_co
    state: Literal["finished", "reused", "failed"]
    seconds: float = 0.0
    failure: Failure | None = None

    @property
    def message(self) -> str:
        """For a failed run, what happened."""
        return "" if self.failure is None else self.failure.message

    @property
    def log(self) -> Path | None:
        """For a failed run, its log."""
        return None if self.failure is None else self.failure.log

    @property
    def lines(self) -> tuple[str, ...]:
        """For a failed run, the last lines of the log."""
        return () if self.failure is None else self.failure.lines

    def about_failure(self) -> dict[str, Any]:
        """Return what a report says of a run that failed."""
        log = "" if self.log is None else str(self.log)
        return {**self.spec.identity, "message": self.message, "log": log, "lines": list(self.lines)}


class Observer(Protocol[_Spec_contra]):
    """Who is told of each run; each method may do nothing."""

    def begin(self, total: int) -> None:
        """Hear the number of all runs."""

    def started(self, spec: _Spec_contra) -> None:
        """Hear of a run that begins."""

    def ended(self, outcome: Outcome[_Spec_contra]) -> None:
        """Hear of a run that has ended, well or not."""


def perform_all(
    specs: Sequence[_Spec], perform: Callable[[_Spec], Outcome[_Spec]], observer: Observer[_Spec] | None = None
) -> list[Outcome[_Spec]]:
    """Do all runs of an experiment; one that fails does not stop the others.

    Args:
        specs: the runs.
        perform: brings one of them to its end.
        observer: is told of every run.

    Returns:
        How each run ended, in the same order.
    """
    if observer is not None:
        observer.begin(len(specs))
    outcomes = []
    for spec in specs:
        if observer is not None:
            observer.started(spec)
        outcomes.append(perform(spec))
        if observer is not None:
            observer.ended(outcomes[-1])
    return outcomes


def run_steps(
    spec: _Spec, steps: Sequence[Step], runner: Runner, *, keep: bool = False, keep_open: Sequence[int] = ()
) -> Outcome[_Spec]:
    """Bring a run to its end: what is finished is kept, the rest is done.

    A run whose last step is whole is finished. Otherwise the first step is kept where it is whole, and all that follow
    are done; where it is not, the run begins again.

    Args:
        spec: the run.
        steps: its steps, in their order.
        runner: what runs the commands.
        keep: leave the files of an interrupted run for its first step, which goes on with them.
        keep_open: file descriptors that the processes inherit.

    Returns:
        How it ended. A command that fails makes a failed outcome, not an error.

    Raises:
        StorageError: when a record or a log cannot be written.
    """
    record = read_record(spec)
    if record is not None and _is_whole(spec, record, steps[-1].name):
        return Outcome(spec, "reused")
    started = time.monotonic()
    left = list(steps)
    if record is not None and _is_whole(spec, record, steps[0].name):
        left = left[1:]
    else:
        record = _begin(spec, keep=record is not None and keep)
    for step in left:
        failure = _run_step(spec, record, step, runner, keep_open)
        if failure is not None:
            return Outcome(spec, "failed", time.monotonic() - started, failure)
    return Outcome(spec, "finished", time.monotonic() - started)


def read_record(spec: Recorded) -> dict[str, Any] | None:
    """Return the record of a run, None when there is none, or one of other options."""
    try:
        record = json.loads((spec.folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("digest") == spec.digest and isinstance(record.get("steps"), dict)
    return record if is_ours else None


def _is_whole(spec: Recorded, record: dict[str, Any], step: str) -> bool:
    """Say whether a step was finished and its files are what they were."""
    files = record["steps"].get(step, {}).get("files")
    if not files:
        return False
    try:
        return all(sha256_of(spec.folder / name) == digest for name, digest in files.items())
    except OSError:
        return False


def _begin(spec: Recorded, *, keep: bool) -> dict[str, Any]:
    """Clear what a run must not find, unless a step goes on with it; record that it has begun, and return that."""
    try:
        if spec.folder.exists() and not keep:
            shutil.rmtree(spec.folder)
        spec.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot clear {spec.folder}: {error.strerror or error}") from error
    record: dict[str, Any] = {"digest": spec.digest, **spec.identity, "versions": versions(), "steps": {}}
    write_json(spec.folder / RECORD_NAME, record)
    return record


def _run_step(
    spec: Recorded, record: dict[str, Any], step: Step, runner: Runner, keep_open: Sequence[int]
) -> Failure | None:
    """Run one command and put its files into the record; return why it failed, or None."""
    log = spec.folder / f"{step.name}.log"
    started = time.monotonic()
    code = runner(step.command, log, keep_open=keep_open)
    seconds = time.monotonic() - started
    missing = [file for file in step.files if not (spec.folder / file).is_file()]
    if code or missing:
        message = _ending(step.name, code) if code else f"{step.name} left no {' and no '.join(missing)}"
        title = ", ".join(f"{key} {value}" for key, value in spec.identity.items())
        _LOGGER.warning("%s: %s; see %s", title, message, log)
        return Failure(message, log, tuple(last_lines(log)))
    record["steps"][step.name] = {
        "command": list(step.command),
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {file: sha256_of(spec.folder / file) for file in step.files},
    }
    write_json(spec.folder / RECORD_NAME, record)
    return None


def _ending(name: str, code: int) -> str:
    return f"{name} was killed by signal {-code}" if code < 0 else f"{name} ended with code {code}"
