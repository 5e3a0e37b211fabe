"""Keep pynetdicom from speaking: its log lines and errors quote what peers sent, and that names patients."""

from __future__ import annotations

import logging

from msrf_monai.optional import require

__all__ = ["silence_pynetdicom"]


def silence_pynetdicom() -> None:
    """Let pynetdicom say no more in this process than where in its code it had to warn, and that only at DEBUG.

    Left alone it writes UIDs, user names and passwords at DEBUG, and at ERROR whatever value it stumbled over. Its
    lines up to INFO are dropped whatever the level is set to. A warning or an error becomes a line of DEBUG with file
    and line, without its text and traceback: what matters of it, listeners and destinations tell in their own words.

    Raises:
        MissingExtraError: when pynetdicom is not installed.
    """
    require("pynetdicom", "pacs")
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "pynetdicom":
            # adding the same filter again changes nothing
            logging.getLogger(name).addFilter(_without_text)


def _without_text(record: logging.LogRecord) -> bool:
    if record.levelno < logging.WARNING:
        return False
    record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    record.msg = "line %d of its %s warns; the text may quote a patient and is left out"
    record.args = (record.lineno, record.filename)
    record.exc_info = record.exc_text = record.stack_info = None
    return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
