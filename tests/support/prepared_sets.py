"""What tests ask of a data set that was prepared, or that was refused."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.data import prepare_dataset
from msrf_monai.errors import DataError

PARTS = ("training", "validation", "test")


def datalist(folder: Path) -> dict[str, Any]:
    """Return what dataset.json holds."""
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def all_items(folder: Path) -> list[dict[str, Any]]:
    """Return the items of all parts, each with its part."""
    content = datalist(folder)
    return [{**item, "part": part} for part in PARTS for item in content[part]]


def stems(items: list[dict[str, str]]) -> list[str]:
    """Return the names of pictures without folder and suffix."""
    return [Path(item["image"]).stem for item in items]


def torn(items: list[dict[str, Any]]) -> int:
    """Return how many groups have pictures in more than one part."""
    parts = defaultdict(set)
    for item in items:
        parts[item["group"]].add(item["part"])
    return sum(len(found) > 1 for found in parts.values())


def has(notes: tuple[str, ...], text: str) -> bool:
    """Tell whether a text is part of a note."""
    return any(text in note for note in notes)


def check_refused(name: str, source: Path, out: Path, sentences: Iterable[str]) -> str:
    """Check that a data set is refused with one message that holds all of the sentences, and return it."""
    with pytest.raises(DataError) as caught:
        prepare_dataset(name, source, out)

    message = str(caught.value)
    assert [sentence for sentence in sentences if sentence not in message] == []
    return message


def siblings(out: Path) -> list[str]:
    """Names of what preparing has left beside the folder to make."""
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith("."))
