"""Keep what names a patient out of logs: paths, UIDs, and values that libraries quote in warnings and errors.

Nobody can list every text that may identify someone, so nothing is searched for. Of our own log lines the format is
kept and its arguments are not, unless they are numbers; of other libraries' lines and of warnings only who spoke is
kept; of exceptions only their kind and the lines of code.
"""

from __future__ import annotations

import logging
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

__all__ = ["PrivateLogs", "where"]

_KEPT_BACK = "(kept back)"

Factory = Callable[..., logging.LogRecord]


class PrivateLogs:
    """Rewrites the log records and warnings of a run's threads while the run goes on; other threads speak as before.

    The records are rewritten where they are made, so that every handler, also one added later, gets the safe text.
    """

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def join(self) -> None:
        """Count the calling thread to the run; what starts a thread of a run calls this first in it."""
        self._threads.add(threading.get_ident())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Rewrite while the block runs; the calling thread belongs to the run."""
        self.join()
        make_record = logging.getLogRecordFactory()
        show_warning = warnings.showwarning
        logging.setLogRecordFactory(self._factory(make_record))
        # typeshed wants the exact signature back, which the original itself has
        setattr(warnings, "showwarning", self._shower(show_warning))  # noqa: B010
        try:
            yield
        finally:
            logging.setLogRecordFactory(make_record)
            setattr(warnings, "showwarning", show_warning)  # noqa: B010
            self._threads.clear()

    def _is_ours(self) -> bool:
        return threading.get_ident() in self._threads

    def _factory(self, make: Factory) -> Factory:
        def private(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            if self._is_ours():
                _make_safe(record)
            return record

        return private

    def _shower(self, show: Callable[..., None]) -> Callable[..., None]:
        def private(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if self._is_ours():
                logging.getLogger("py.warnings").info("a warning of the kind %s", category.__name__)
            else:
                show(message, category, filename, lineno, file, line)

        return private


def where(error: BaseException) -> str:
    """Return an exception as its kind and the lines of code it came through, without its message.

    Args:
        error: as it was caught.

    Returns:
        One line for each step, such as ``msrf_monai/clinical/case.py:112 in frame``, then the kind.
    """
    return _steps(type(error), error.__traceback__)


def _steps(kind: type[BaseException], trace: TracebackType | None) -> str:
    steps = [f"{_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(trace)]
    return "\n".join([*steps, kind.__name__])


def _short(path: str) -> str:
    """Return the last parts of a source file's path: what is before them may be a person's home."""
    return "/".join(path.replace("\\", "/").split("/")[-3:])


def _make_safe(record: logging.LogRecord) -> None:
    if record.name.partition(".")[0] == "msrf_monai" and isinstance(record.msg, str):
        record.args = _safe_arguments(record.args)
    else:
        record.msg, record.args = f"a message {_KEPT_BACK}", ()
    if record.exc_info and record.exc_info[0] is not None:
        record.msg = f"{record.getMessage()}\n{_steps(record.exc_info[0], record.exc_info[2])}"
        record.args = ()
    record.exc_info = record.exc_text = record.stack_info = None


def _safe_arguments(arguments: Any) -> Any:
    """Return a record's arguments with everything that is no number kept back, in the form that its format needs."""
    if isinstance(arguments, dict):
        return {name: _safe(value) for name, value in arguments.items()}
    return tuple(_safe(value) for value in arguments or ())


def _safe(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else _KEPT_BACK
