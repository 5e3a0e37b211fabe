"""One run of a cross-validation: train, then score, each in its own process, with a record of what was finished."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from msrf_monai.errors import StorageError
from msrf_monai.experiments.runner import Runner, last_lines
from msrf_monai.files import sha256_of, write_text
from msrf_monai.runtime import versions

__all__ = ["Outcome", "RunSpec", "perform", "read_record"]

_LOGGER = logging.getLogger(__name__)

RECORD_NAME = "record.json"
WEIGHTS = "models/model.pt"
STATE = "models/state"
HISTORY = "training/history.csv"
CASES = "evaluation/cases.csv"
SUMMARY = "evaluation/summary.json"


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
    if record is not None and _is_whole(spec, record, "evaluation"):
        return Outcome(spec, "reused")
    started = time.monotonic()
    if record is None or not _is_whole(spec, record, "training"):
        record = _begin(spec, is_ours=record is not None)
        files = (WEIGHTS, HISTORY)
        failure = _step(spec, record, "training", spec.training, files, runner, keep_open)
        if failure is not None:
            return failure
    failure = _step(spec, record, "evaluation", spec.evaluation, (CASES, SUMMARY), runner, keep_open)
    if failure is not None:
        return failure
    shutil.rmtree(spec.folder / STATE, ignore_errors=True)  # for resume only, and three times as large as the weights
    return Outcome(spec, "finished", time.monotonic() - started)


def read_record(spec: RunSpec) -> dict[str, Any] | None:
    """Return the record of a run, None when there is none, or one of other options."""
    try:
        record = json.loads((spec.folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("digest") == spec.digest and isinstance(record.get("steps"), dict)
    return record if is_ours else None


def _is_whole(spec: RunSpec, record: dict[str, Any], step: str) -> bool:
    """Say whether a step was finished and its files are what they were."""
    files = record["steps"].get(step, {}).get("files")
    if not files:
        return False
    try:
        return all(sha256_of(spec.folder / name) == digest for name, digest in files.items())
    except OSError:
        return False


def _begin(spec: RunSpec, *, is_ours: bool) -> dict[str, Any]:
    """Clear what a training must not find, and record that it has begun."""
    try:
        if spec.folder.exists() and not (is_ours and spec.can_resume):
            shutil.rmtree(spec.folder)
        spec.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot clear {spec.folder}: {error.strerror or error}") from error
    record: dict[str, Any] = {
        "digest": spec.digest,
        "variant": spec.variant,
        "fold": spec.fold,
        "versions": versions(),
        "steps": {},
    }
    _write(spec, record)
    return record


def _step(
    spec: RunSpec,
    record: dict[str, Any],
    name: str,
    command: Sequence[str],
    files: Sequence[str],
    runner: Runner,
    keep_open: Sequence[int],
) -> Outcome | None:
    """Run one command and record its files; the outcome of a failure, else None."""
    log = spec.folder / f"{name}.log"
    started = time.monotonic()
    code = runner(command, log, keep_open=keep_open)
    seconds = time.monotonic() - started
    missing = [file for file in files if not (spec.folder / file).is_file()]
    if code or missing:
        message = _ending(name, code) if code else f"{name} left no {' and no '.join(missing)}"
        _LOGGER.warning("%s, fold %d: %s; see %s", spec.variant, spec.fold, message, log)
        return Outcome(spec, "failed", seconds, message, log, tuple(last_lines(log)))
    record["steps"][name] = {
        "command": list(command),
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {file: sha256_of(spec.folder / file) for file in files},
    }
    _write(spec, record)
    return None


def _ending(name: str, code: int) -> str:
    return f"{name} was killed by signal {-code}" if code < 0 else f"{name} ended with code {code}"


def _write(spec: RunSpec, record: dict[str, Any]) -> None:
    write_text(spec.folder / RECORD_NAME, json.dumps(record, indent=4) + "\n")
