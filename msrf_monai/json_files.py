"""JSON files that every reader takes: numbers that JSON cannot hold are null."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msrf_monai.errors import DataError
from msrf_monai.files import write_text

__all__ = ["nan_for_null", "null_for_nan", "read_json", "write_json"]


def write_json(path: str | os.PathLike[str], content: Any, *, indent: int = 4, ascii_only: bool = True) -> None:
    """Write a value as a JSON file, whole or not at all; what is NaN or infinite in it becomes null.

    Args:
        path: the file.
        content: dictionaries, lists and tuples of numbers, texts, booleans and None.
        indent: of each level, in spaces.
        ascii_only: write other characters as escapes.

    Raises:
        StorageError: when the file cannot be written.
    """
    text = json.dumps(null_for_nan(content), indent=indent, allow_nan=False, ensure_ascii=ascii_only)
    write_text(path, f"{text}\n")


def read_json(path: Path, advice: str) -> Any:
    """Return the value of a JSON file.

    Args:
        path: the file.
        advice: what to do when it cannot be read, for the error.

    Raises:
        DataError: when it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); {advice}") from error


def null_for_nan(value: Any) -> Any:
    """Return a value as JSON can hold it: None in the place of every NaN and infinity, at any depth.

    Args:
        value: nested dictionaries, lists and tuples.

    Returns:
        The same nesting, tuples as lists.

    Example:
        >>> null_for_nan({"val_mcc": float("nan"), "epochs": [1, float("inf")]})
        {'val_mcc': None, 'epochs': [1, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: null_for_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(each) for each in value]
    return value


def nan_for_null(rows: Sequence[Mapping[str, float | None]]) -> list[dict[str, float]]:
    """Return rows of numbers as they were before ``write_json``: NaN in the place of None.

    Args:
        rows: numbers by name, such as those of ``history.json``.

    Example:
        >>> nan_for_null([{"epoch": 1, "val_mcc": None}])
        [{'epoch': 1, 'val_mcc': nan}]
    """
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
