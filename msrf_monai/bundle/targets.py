"""What a config's components may be: their ``_target_``, their mode, and the helpers that they take by name."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from msrf_monai.bundle.config_ids import SEVERAL, last_of
from msrf_monai.bundle.permitted import (
    BY_NAME,
    DENIED,
    FETCH_OPTIONS,
    FETCHING,
    HARMLESS_BUILTINS,
    ROOTS,
    UNSAFE_PARTS,
    is_helper,
    is_target,
    missing_package,
)

__all__ = ["fetch_problems", "helper_problems", "is_unsafe_short", "target_problems", "unknown", "wholeness_problems"]


def target_problems(target: object) -> list[str]:
    """List what is wrong with a ``_target_``: not a component that a permitted package defines, or one that loads."""
    if isinstance(target, str) and is_target(target):
        return []
    if not isinstance(target, str) or not target.startswith(tuple(f"{root}." for root in ROOTS)):
        return [f"_target_ {target!r} must be a dotted name under {', '.join(ROOTS)}"]
    if missing := missing_package(target):
        return [unknown(f"_target_ {target!r}", missing)]
    return [
        f"_target_ {target!r} loads, writes or runs what a config must not, or is no public class or function that "
        "its own package defines; use a component of the package"
    ]


def helper_problems(key: str, value: object) -> list[str]:
    """List what is wrong with a reader, writer or merger: MONAI calls whatever a text names, ``os.system`` too."""
    given = value if isinstance(value, list) else [value]
    names = [each.get("_target_") if isinstance(each, Mapping) else each for each in given]
    return [
        f"{key} is {name!r}, and MONAI would call what has that name; use a name of monai.data or monai.inferers"
        for name in names
        if not isinstance(name, str) or not is_helper(name)
    ]


def fetch_problems(value: Mapping[str, Any]) -> list[str]:
    """List what in a component fetches weights while it is built: some networks do unless they are told not to."""
    name = str(value.get("_target_")).rpartition(".")[2]
    options = {*FETCH_OPTIONS, *(("weights",) if name == "TorchVisionFCModel" else ())}
    problems = [
        f"{key} fetches weights while the network is built; ship them, and load them by msrf_monai.engines.LoadWeights"
        for key in sorted(options & set(value))
        if value[key] not in (None, False)
    ]
    if name in FETCHING and "pretrained" not in value:
        problems.append(f"{name} fetches weights unless pretrained is false; say so")
    return problems


def _needs_whole(target: object) -> bool:
    """Say whether a component calls what a text names, and so may stand only whole and be built at once."""
    return isinstance(target, str) and target.rpartition(".")[2] in BY_NAME


def is_unsafe_short(name: str) -> bool:
    """Say whether a ``_target_`` without a package, which MONAI looks up in its modules and Python's, runs or loads."""
    return (
        name in UNSAFE_PARTS
        or name in DENIED
        or name.startswith("_")
        or (hasattr(builtins, name) and name not in HARMLESS_BUILTINS)
    )


def unknown(what: str, package: str) -> str:
    """Return the sentence for a name of a package that is not there, which therefore does not pass."""
    return f"{what} cannot be judged, since {package} is not installed here; install it and check again"


def wholeness_problems(name: str, value: Mapping[str, Any]) -> list[str]:
    """Check that what is called later stands with its name, and that a loader of images is not called later.

    Args:
        name: id of the object.
        value: the object.
    """
    problems = []
    called_later = any(last_of(key) == "_mode_" and item != "default" for key, item in value.items())
    if called_later and not ("_mode_" in value and "_target_" in value):
        problems.append("_mode_ stands apart from its _target_; write both in one object")
    for key, item in value.items():
        is_part = key != "_target_" or SEVERAL in name
        if last_of(key) == "_target_" and _needs_whole(item) and (is_part or called_later):
            problems.append(f"{item} calls what it is given by name; write it whole, to be built at once")
    return problems
