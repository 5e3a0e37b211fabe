"""One clear last line on stderr instead of a page of traceback, for errors that the user can mend."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from msrf_monai.errors import MsrfError

__all__ = ["install_error_line", "is_bundle_program", "sentence_of"]

_PROGRAM = "monai.bundle.__main__"
# A worker process of a DataLoader sends its error as text only: PyTorch rebuilds the outermost type around a traceback.
_IN_WORKER_TEXT = re.compile(r"^\s*msrf_monai\.errors\.\w+: (.+)$", re.MULTILINE)


def is_bundle_program() -> bool:
    """Say whether this process is ``python -m monai.bundle`` (also when torchrun started it)."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == _PROGRAM


def sentence_of(error: BaseException) -> str | None:
    """Return the message of the first package error in an exception's chain of causes, or None when it has none.

    MONAI wraps what a ``$`` expression or a ``_target_`` raises in ``RuntimeError``s, ignite and PyTorch add their own;
    the package's error stays reachable through ``__cause__`` and ``__context__``, or, from a loader's worker process,
    as the text of its traceback.

    Args:
        error: the exception that ended the program.
    """
    for link in _chain(error):
        if isinstance(link, MsrfError):
            return " ".join(str(link).split())
        in_text = _IN_WORKER_TEXT.findall(str(link))
        if in_text:
            return str(in_text[-1]).strip()
    return None


def install_error_line() -> None:
    """Make the interpreter end a run on ``error: <sentence>`` when a package error is the reason; exit code stays 1.

    Other exceptions go to the hook that was there before. ``MSRF_DEBUG=1`` in the environment shows the full traceback
    before the sentence. Calling it again changes nothing.
    """
    if getattr(sys.excepthook, "_msrf_error_line", False):
        return
    previous_hook = sys.excepthook
    previous_factory = logging.getLogRecordFactory()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            previous_hook(kind, error, trace)
            return
        if _wants_traceback():
            previous_hook(kind, error, trace)
        _flush_logs()
        sys.stderr.write(f"error: {sentence}\n")

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        # MONAI's StatsHandler logs the whole traceback through ignite's logger before it raises the error again.
        entry = previous_factory(*args, **kwargs)
        return entry if _wants_traceback() else _shortened(entry)

    hook._msrf_error_line = True  # type: ignore[attr-defined]
    sys.excepthook = hook
    logging.setLogRecordFactory(record)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _shortened(entry: logging.LogRecord) -> logging.LogRecord:
    """Take the traceback of a package error out of a log record, be it attached or (from a worker) in its text."""
    if entry.exc_info and entry.exc_info[1] and sentence_of(entry.exc_info[1]):
        entry.exc_info = None
    if isinstance(entry.msg, str) and not entry.args and (found := _IN_WORKER_TEXT.findall(entry.msg)):
        first_line = entry.msg.partition("\n")[0]
        entry.msg = f"{first_line} {found[-1]}"
    return entry


def _wants_traceback() -> bool:
    return os.environ.get("MSRF_DEBUG", "") not in ("", "0")


def _flush_logs() -> None:
    """Flush stdout, where the bundles log, so that the sentence is the last line in a terminal and in a joined log."""
    sys.stdout.flush()
