"""One run of an experiment: steps, each in its own process, with a record of what was finished."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from msrf_monai.errors import StorageError
from msrf_monai.experiments.runner import Runner, last_lines
from msrf_monai.files import sha256_of, write_text
from msrf_monai.runtime import versions

__all__ = ["Failure", "Outcome", "Recorded", "RunSpec", "begin", "is_whole", "perform", "read_record", "run_step"]

_LOGGER = logging.getLogger(__name__)

RECORD_NAME = "record.json"
WEIGHTS = "models/model.pt"
STATE = "models/state"
HISTORY = "training/history.csv"
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


@dataclass(frozen=True)
class Failure:
    """Why a step failed.

    Attributes:
        seconds: wall time of the step.
        message: what happened.
        log: its log.
        lines: the last lines of the log.
    """

    seconds: float
    message: str
    log: Path
    lines: tuple[str, ...]


@dataclass(frozen=True)
class RunSpec:
    """What is to be run for one variant and one fold.

    Attributes:
        variant: name of the variant.
        fold: number of the fold.
        folder: folder of the run's files.
        training: command that trains; it writes ``models`` and ``training`` in the folder.
        evaluation: command that scores the fold; it writes ``evaluation``.
        digest: of everything that decides the result; a record with another digest is not this run's.
        can_resume: whether the training command goes on with an interrupted training.
    """

    variant: str
    fold: int
    folder: Path
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    digest: str
    can_resume: bool

    @property
    def identity(self) -> dict[str, Any]:
        """Variant and fold."""
        return {"variant": self.variant, "fold": self.fold}


@dataclass(frozen=True)
class Outcome:
    """How a run has ended.

    Attributes:
        spec: the run.
        state: "finished" now, "reused" from an earlier call, or "failed".
        seconds: wall time now, 0 for a run that was reused.
        message: for a failed run, what happened.
        log: for a failed run, its log.
        lines: for a failed run, the last lines of the log.
    """

    spec: RunSpec
    state: Literal["finished", "reused", "failed"]
    seconds: float = 0.0
    message: str = ""
    log: Path | None = None
    lines: tuple[str, ...] = ()


def perform(spec: RunSpec, runner: Runner, *, keep_open: Sequence[int] = ()) -> Outcome:
    """Bring a run to its end: what is finished is kept, an interrupted training goes on or begins again.

    Args:
        spec: the run.
        runner: what runs the commands.
        keep_open: file descriptors that the processes inherit.

    Returns:
        How it ended. A command that fails makes a failed outcome, not an error.

    Raises:
        StorageError: when a record or a log cannot be written.
    """
    record = read_record(spec)
    if record is not None and is_whole(spec, record, "evaluation"):
        return Outcome(spec, "reused")
    started = time.monotonic()
    if record is None or not is_whole(spec, record, "training"):
        record = begin(spec, keep=record is not None and spec.can_resume)
        failure = run_step(spec, record, "training", spec.training, (WEIGHTS, HISTORY), runner, keep_open)
        if failure is not None:
            return _failed(spec, failure)
    failure = run_step(spec, record, "evaluation", spec.evaluation, (CASES, SUMMARY), runner, keep_open)
    if failure is not None:
        return _failed(spec, failure)
    shutil.rmtree(spec.folder / STATE, ignore_errors=True)  # for resume only, and three times as large as the weights
    return Outcome(spec, "finished", time.monotonic() - started)


def read_record(spec: Recorded) -> dict[str, Any] | None:
    """Return the record of a run, None when there is none, or one of other options."""
    try:
        record = json.loads((spec.folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("digest") == spec.digest and isinstance(record.get("steps"), dict)
    return record if is_ours else None


def is_whole(spec: Recorded, record: dict[str, Any], step: str) -> bool:
    """Say whether a step was finished and its files are what they were."""
    files = record["steps"].get(step, {}).get("files")
    if not files:
        return False
    try:
        return all(sha256_of(spec.folder / name) == digest for name, digest in files.items())
    except OSError:
        return False


def begin(spec: Recorded, *, keep: bool) -> dict[str, Any]:
    """Clear what a run must not find, and record that it has begun.

    Args:
        spec: the run.
        keep: leave the files of the folder, for a step that goes on with them.

    Returns:
        The new record.

    Raises:
        StorageError: when the folder cannot be cleared or written.
    """
    try:
        if spec.folder.exists() and not keep:
            shutil.rmtree(spec.folder)
        spec.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot clear {spec.folder}: {error.strerror or error}") from error
    record: dict[str, Any] = {"digest": spec.digest, **spec.identity, "versions": versions(), "steps": {}}
    _write(spec, record)
    return record


def run_step(
    spec: Recorded,
    record: dict[str, Any],
    name: str,
    command: Sequence[str],
    files: Sequence[str],
    runner: Runner,
    keep_open: Sequence[int],
) -> Failure | None:
    """Run one command and record its files.

    Args:
        spec: the run.
        record: its record, which is changed and written.
        name: of the step, and of its log.
        command: program and arguments.
        files: what it must leave, relative to the run's folder.
        runner: what runs the command.
        keep_open: file descriptors that the process inherits.

    Returns:
        Why it failed, or None.

    Raises:
        StorageError: when the record or the log cannot be written.
    """
    log = spec.folder / f"{name}.log"
    started = time.monotonic()
    code = runner(command, log, keep_open=keep_open)
    seconds = time.monotonic() - started
    missing = [file for file in files if not (spec.folder / file).is_file()]
    if code or missing:
        message = _ending(name, code) if code else f"{name} left no {' and no '.join(missing)}"
        title = ", ".join(f"{key} {value}" for key, value in spec.identity.items())
        _LOGGER.warning("%s: %s; see %s", title, message, log)
        return Failure(seconds, message, log, tuple(last_lines(log)))
    record["steps"][name] = {
        "command": list(command),
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {file: sha256_of(spec.folder / file) for file in files},
    }
    _write(spec, record)
    return None


def _failed(spec: RunSpec, failure: Failure) -> Outcome:
    return Outcome(spec, "failed", failure.seconds, failure.message, failure.log, failure.lines)


def _ending(name: str, code: int) -> str:
    return f"{name} was killed by signal {-code}" if code < 0 else f"{name} ended with code {code}"


def _write(spec: Recorded, record: dict[str, Any]) -> None:
    write_text(spec.folder / RECORD_NAME, json.dumps(record, indent=4) + "\n")
