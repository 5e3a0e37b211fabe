"""Which DICOM images and volumes of a study are predicted: rules on their attributes, and why each was chosen or not.

The file is the JSON of MONAI Deploy's series selector::

    {"selections": [{"name": "thin CT", "conditions": {"Modality": "CT", "SliceThickness": [0.5, 2.0],
                     "SeriesDescription": "abdomen|liver", "ImageType": ["ORIGINAL", "PRIMARY"]}}]}

A text holds when it equals a value of the attribute or is a regular expression found in it, both without regard to
case; a number when it equals it; two numbers when it lies between them; a list of texts when each holds for one of the
values. A selection holds when all its conditions do, and an image is chosen by the first selection that holds. With
``"keep": "largest"`` a selection keeps, in each study, only what has the most frames.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msrf_monai.clinical.ledger import digest_of_options
from msrf_monai.errors import ConfigError

__all__ = ["Choice", "Selection", "SeriesRules"]

Condition = str | float | tuple[float, float] | tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What the rules say of one image or volume; no attribute's value is quoted."""

    selection: str
    """Name of the selection that holds; empty when none does."""
    explanation: str
    """One sentence: which selection, or at which attribute each of them fails."""


@dataclass(frozen=True)
class Selection:
    """One set of conditions."""

    name: str
    conditions: Mapping[str, Condition]
    """By DICOM keyword, such as ``"Modality"``."""
    keep: Literal["all", "largest"] = "all"

    def fails_at(self, dataset: Any) -> str:
        """Return the first attribute whose condition does not hold, or nothing when all do.

        Args:
            dataset: pydicom's, of the image or of a volume's first slice.
        """
        return next((name for name, wanted in self.conditions.items() if not _holds(wanted, dataset.get(name))), "")


@dataclass(frozen=True)
class SeriesRules:
    """All selections, in their order."""

    selections: tuple[Selection, ...]
    digest: str
    """SHA-256 of what the rules say; layout and order of names in the file do not change it."""

    @property
    def keep_largest(self) -> frozenset[str]:
        """Names of the selections that keep only what has the most frames in each study."""
        return frozenset(selection.name for selection in self.selections if selection.keep == "largest")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SeriesRules:
        """Read a file of rules.

        Args:
            path: JSON as the module describes it.

        Raises:
            ConfigError: when it cannot be read or says something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: the series rules cannot be read as JSON ({type(error).__name__})") from error
        return cls.from_json(content)

    @classmethod
    def from_json(cls, content: Any) -> SeriesRules:
        """Check parsed rules; raises ``ConfigError`` as ``from_file`` does."""
        given = content.get("selections") if isinstance(content, dict) else None
        if not isinstance(given, list) or not given or set(content) != {"selections"}:
            raise ConfigError('series rules are {"selections": [{"name": …, "conditions": {…}}, …]}')
        selections = tuple(_selection(each, number) for number, each in enumerate(given, start=1))
        names = [selection.name for selection in selections]
        if len(set(names)) < len(names):
            raise ConfigError(f"the names of selections must differ from each other, got {', '.join(names)}")
        return cls(selections, digest_of_options(content))

    def choose(self, dataset: Any) -> Choice:
        """Say which selection an image or a volume belongs to.

        Args:
            dataset: pydicom's, of the image or of a volume's first slice.
        """
        failures = []
        for selection in self.selections:
            attribute = selection.fails_at(dataset)
            if not attribute:
                return Choice(selection.name, f"selection {selection.name!r} holds: {', '.join(selection.conditions)}")
            failures.append(f"{selection.name!r} fails at {attribute}")
        return Choice("", f"no selection holds: {'; '.join(failures)}")


def _selection(given: Any, number: int) -> Selection:
    if not isinstance(given, dict) or not set(given) <= {"name", "conditions", "keep"}:
        raise ConfigError(f"selection {number} holds name, conditions and, if wanted, keep; got {given!r}")
    name, keep, conditions = given.get("name", f"selection {number}"), given.get("keep", "all"), given.get("conditions")
    if not (isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable()):
        raise ConfigError(f"the name of selection {number} must have 1 to 64 printable characters, got {name!r}")
    if keep not in ("all", "largest"):
        raise ConfigError(f"keep of selection {name!r} is 'all' or 'largest', got {keep!r}")
    if not isinstance(conditions, dict) or not conditions:
        raise ConfigError(f"the conditions of selection {name!r} are an object that names at least one attribute")
    return Selection(name, {key: _condition(key, wanted) for key, wanted in conditions.items()}, keep)


def _condition(keyword: str, wanted: Any) -> Condition:
    from pydicom.datadict import tag_for_keyword

    if tag_for_keyword(keyword) is None:
        raise ConfigError(f"{keyword!r} is no DICOM keyword; write it as in the standard, such as SeriesDescription")
    if isinstance(wanted, str):
        return _pattern(keyword, wanted)
    if _is_number(wanted):
        return float(wanted)
    if isinstance(wanted, list) and len(wanted) == 2 and all(map(_is_number, wanted)) and wanted[0] <= wanted[1]:
        return float(wanted[0]), float(wanted[1])
    if isinstance(wanted, list) and wanted and all(isinstance(each, str) for each in wanted):
        return tuple(_pattern(keyword, each) for each in wanted)
    raise ConfigError(
        f"the condition for {keyword} is a text, a number, two numbers (lowest, highest) or a list of texts; "
        f"got {wanted!r}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pattern(keyword: str, text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(f"the condition for {keyword}, {text!r}, is no regular expression: {error}") from error
    return text


def _holds(wanted: Condition, found: Any) -> bool:
    values = _values(found)
    if isinstance(wanted, str):
        return any(_matches(wanted, value) for value in values)
    if isinstance(wanted, float):
        return _in_range(wanted, wanted, values)
    low, high = wanted[0], wanted[-1]
    if isinstance(low, float) and isinstance(high, float):
        return _in_range(low, high, values)
    return all(any(_matches(str(each), value) for value in values) for each in wanted)


def _values(found: Any) -> list[str]:
    if found is None:
        return []
    is_many = isinstance(found, Iterable) and not isinstance(found, str | bytes) and not hasattr(found, "components")
    return [str(value).strip() for value in (found if is_many else [found])]


def _matches(wanted: str, value: str) -> bool:
    return wanted.casefold() == value.casefold() or re.search(wanted, value, re.IGNORECASE) is not None


def _in_range(low: float, high: float, values: list[str]) -> bool:
    """Return whether there are values and all of them lie in a range."""
    try:
        return bool(values) and all(low <= float(value) <= high for value in values)
    except ValueError:
        return False
