"""Ids within a config: how MONAI writes them, and every value with its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["DEEPEST", "SEVERAL", "depth_of", "last_of", "macro_file", "normal_id", "walk"]

DEEPEST = 100
"""Containers may not stand deeper within each other."""
SEVERAL = "+"
"""The one sign of MONAI's that may begin a key: append to, instead of replace."""
_MACRO_FILE = re.compile(r".*\.(?:json|yaml|yml)(?=::|$)", re.IGNORECASE)


def walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a config with its id, containers before what they hold."""
    yield name or "top level", value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(item, f"{name}::{key}" if name else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, f"{name}::{index}")


def depth_of(content: Any) -> int:
    """Return how many containers stand within each other, counted no further than what is allowed."""
    level, depth = [content], 0
    while depth <= DEEPEST and (level := [each for each in level if isinstance(each, Mapping | list)]):
        level = [item for each in level for item in (each.values() if isinstance(each, Mapping) else each)]
        depth += 1
    return depth


def normal_id(name: str) -> str:
    """Return a config's id as MONAI takes it: with ``::`` between the parts and without the sign for appending."""
    return "::".join(part.removeprefix(SEVERAL) for part in name.replace("#", "::").split("::"))


def last_of(key: str) -> str:
    """Return the last part of a key, which may be a whole id in an overlay: ``_target_`` of ``a::b::_target_``."""
    return normal_id(key).rpartition("::")[2]


def macro_file(value: str) -> str:
    """Return the file that a macro, a text that begins with ``%``, takes its value from; "" for the config itself."""
    found = _MACRO_FILE.match(value.removeprefix("%").replace("#", "::"))
    return found[0] if found else ""
