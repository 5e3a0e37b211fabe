"""Keep pynetdicom from speaking: its log lines and errors quote what peers sent, and that names patients."""

from __future__ import annotations

import logging

from msrf_monai.optional import require

__all__ = ["silence_pynetdicom"]


def silence_pynetdicom() -> None:
    """Let pynetdicom say no more in this process than where in its code it had to warn.

    At DEBUG it writes UIDs, user names and passwords, and at ERROR whatever value it stumbled over. Its lines up to
    INFO are dropped whatever the level is set to; of a warning or an error the file and line are kept, and its text
    and traceback are not.

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
    record.msg = "line %d of its %s warns; the text may quote a patient and is left out"
    record.args = (record.lineno, record.filename)
    record.exc_info = record.exc_text = record.stack_info = None
    return True
