"""What is asked of QIDO-RS and what it answers, checked before either is used."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from msrf_monai.errors import ConfigError, PacsError

__all__ = ["conditions_of", "items_of", "uid_of"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NO_CONDITION = ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "UT", "OB or OW", "US or OW", "NONE")


def conditions_of(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """Check a query; its values are never quoted.

    Args:
        query: DICOM keywords and what they must match.

    Returns:
        The same, for an address.

    Raises:
        ConfigError: when it is empty, or a keyword is none that can be asked for, or has no value.
    """
    if not query:
        raise ConfigError("an empty query means the whole archive; give a keyword, if need be PatientID=*")
    for keyword, value in query.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            near = difflib.get_close_matches(keyword, list(keyword_dict), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{keyword!r} is no DICOM keyword, such as ModalitiesInStudy or StudyDate{hint}")
        if tag >> 16 <= 2 or dictionary_VR(tag) in _NO_CONDITION:
            raise ConfigError(f"{keyword} cannot be asked for; it is no attribute that archives search by")
        if not value.strip():
            raise ConfigError(f"the query has no value for {keyword}; give one, or leave the keyword out")
    return [(keyword, value.strip()) for keyword, value in query.items()]


def items_of(content: bytes, url: str) -> list[dict[str, Any]]:
    """Return the objects of a DICOM JSON answer.

    Args:
        content: of the answer.
        url: of the server, for the message.

    Raises:
        PacsError: lasting, when it is something else.
    """
    try:
        items = json.loads(content) if content.strip() else []
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PacsError(f"{url} answered a query with what is no DICOM JSON; check the address", is_lasting=True)
    return items


def uid_of(item: Mapping[str, Any], tag: str, url: str) -> str:
    """Return a UID, which becomes part of addresses: nothing but digits and dots.

    Args:
        item: of ``items_of``.
        tag: of the UID, eight hexadecimal digits.
        url: of the server, for the message.

    Raises:
        PacsError: lasting, when there is none.
    """
    try:
        uid = item[tag]["Value"][0].strip(" \0")
    except (KeyError, IndexError, TypeError, AttributeError):
        uid = ""
    if not _UID.fullmatch(uid) or len(uid) > 64:
        raise PacsError(f"{url} answered a query without a UID, or with one that is none", is_lasting=True)
    return str(uid)
