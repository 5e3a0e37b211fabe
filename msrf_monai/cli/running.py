"""What the commands share that predict: the bar, the ends by signal, and errors as one sentence and an exit code."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from msrf_monai.errors import CheckpointError, ConfigError, InputError, MsrfError
from msrf_monai.runtime import tune_allocator

if TYPE_CHECKING:
    from msrf_monai.clinical.ledger import Entry

__all__ = ["FATAL", "SOME_FAILED", "USAGE", "Ended", "Watch", "ended_by_signal", "exit_code_of", "progress_bar"]

FATAL, USAGE, SOME_FAILED = 1, 2, 3


class Ended(BaseException):
    """The system asked for the end."""


class Watch:
    """Shows a bar with the time left on stderr, and a line for each input that failed or is flagged."""

    def __init__(self, bar: Any, *, quiet: bool, is_endless: bool = False) -> None:
        self.bar = bar
        self.quiet = quiet
        self.is_endless = is_endless
        """Batch follows after batch, and nobody knows how many."""

    def begin(self, inputs: int, frames: int) -> None:
        """See ``Observer``."""
        self.bar.total = frames + (self.bar.n if self.is_endless else 0)
        self.bar.refresh()
        if not self.quiet and not self.is_endless:
            self.bar.write(f"{inputs} inputs, {frames} images or more", file=sys.stderr)

    def ended(self, entry: Entry, frames: int, is_new: bool) -> None:
        """See ``Observer``."""
        self.bar.total = (self.bar.total or 0) + max(0, entry.frames - frames)
        self.bar.update(max(entry.frames, frames))
        if self.quiet or not is_new:
            return
        if entry.state != "done":
            self.bar.write(f"{entry.state.upper()} {entry.input}: {entry.code}: {entry.reason}", file=sys.stderr)
        elif entry.is_flagged:
            self.bar.write(f"flagged {entry.input}: {', '.join(entry.flags)}", file=sys.stderr)


def progress_bar(quiet: bool) -> Any:
    """Return a bar for a ``Watch``; it is hidden where nobody watches."""
    from tqdm import tqdm

    hidden = True if quiet else None
    return tqdm(desc="predicting", unit=" images", disable=hidden, leave=False, dynamic_ncols=True)


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Turn the signal that asks for the end into an exception, so that the result of the moment is written whole."""

    def leave(number: int, frame: Any) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code_of(run: Callable[[], int], *, as_json: bool = False, quiet: bool = False) -> int:
    """Run a command, and turn what it raises into one sentence on stderr.

    Args:
        run: does it, and returns an exit code.
        as_json: print a failure as a JSON object on stdout too.
        quiet: let no log line through to stderr that is less than an error, unless ``--debug`` asks for all of them.

    Returns:
        The code that ``run`` returned; 2 for wrong use, 1 for anything else that ended it.
    """
    _log_when_debugging()
    tune_allocator()  # the process is this command's own, and convolutions ask for much memory at a time
    try:
        with _errors_only(quiet and not _is_debugging()):
            return run()
    except MsrfError as error:
        is_usage = isinstance(error, CheckpointError | ConfigError | InputError)
        return _fail(str(error), USAGE if is_usage else FATAL, as_json)
    except (KeyboardInterrupt, Ended):
        return _fail("the run was ended; what is done stays: go on with --resume", FATAL, as_json)
    except Exception as error:
        # its text may quote an input; main.py's --debug shows the lines of code instead
        from msrf_monai.clinical.privacy import where

        command = " ".join(["msrf-monai", "--debug", *sys.argv[1:2], "…"])
        steps = f"\n{where(error)}" if _is_debugging() else f"; run again as {command} to see where"
        return _fail(f"an unforeseen {type(error).__name__} ended the run{steps}", FATAL, as_json)


@contextmanager
def _errors_only(wanted: bool) -> Iterator[None]:
    """Where nobody has set up logging, Python shows warnings too; let it show errors only."""
    if not wanted:
        yield
        return
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _fail(message: str, code: int, as_json: bool) -> int:
    typer.echo(f"error: {message}", err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    return code


def _is_debugging() -> bool:
    return "--debug" in sys.argv[1:]


def _log_when_debugging() -> None:
    """Let our own log lines through to stderr; what may name a patient has been taken out of them."""
    if _is_debugging():
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("msrf_monai").setLevel(logging.DEBUG)
