"""What the reports of evaluations share: when they are called, names of images, descriptions of scores, tables."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from ignite.engine import Events
from numpy.typing import NDArray

from msrf_monai.engines.cases import UNKNOWN_FILE
from msrf_monai.metrics import bootstrap_interval

__all__ = [
    "EvaluationHandler",
    "absolute_folder",
    "absolute_path",
    "as_csv",
    "describe",
    "names_to_show",
    "short_names",
]


class EvaluationHandler:
    """A handler that begins with an evaluation, collects from each of its batches and concludes at its end."""

    def attach(self, engine: Any) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Conclude, with the evaluator whose epoch has ended."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Forget what an earlier evaluation has left."""
        raise NotImplementedError

    def _collect(self, engine: Any) -> None:
        """Take what is needed from the batch that was evaluated."""
        raise NotImplementedError


def absolute_path(name: str) -> str:
    """Return a file's absolute path with its links as they are, or ``"(file not recorded)"`` as it is."""
    return name if name == UNKNOWN_FILE else os.path.abspath(name)  # noqa: PTH100 - two links are two images


def absolute_folder(name: str | None) -> Path | None:
    """Return a folder's absolute path with its links as they are, None for None."""
    return None if name is None else Path(os.path.abspath(name))  # noqa: PTH100 - links stay as they are


def names_to_show(paths: Iterable[str], folder: Path | None) -> dict[str, str]:
    """Return a name for each path: relative to the folder, or else its shortest end that no other one has.

    Args:
        paths: absolute paths of images, each once.
        folder: of the data set; None where there is none.
    """
    inside: dict[str, str] = {}
    outside: list[str] = []
    for path in paths:
        if folder is not None and Path(path).is_relative_to(folder):
            inside[path] = Path(path).relative_to(folder).as_posix()
        else:
            outside.append(path)
    return {**inside, **short_names(outside, set(inside.values()))}


def short_names(paths: Iterable[str], taken: set[str]) -> dict[str, str]:
    """Return the fewest trailing parts of each path that are neither taken nor the end of another path.

    Example:
        >>> short_names(["/a/one/1.png", "/a/two/1.png", "/a/two/2.png"], {"2.png"})["/a/two/2.png"]
        'two/2.png'
    """
    parts = {path: PurePath(path).parts for path in paths}
    names: dict[str, str] = {}
    depth = 1
    while len(names) < len(parts):
        count = Counter(each[-depth:] for each in parts.values())
        for path in parts.keys() - names.keys():
            end = parts[path][-depth:]
            name = PurePath(*end).as_posix()
            if depth >= len(parts[path]) or (count[end] == 1 and name not in taken):
                names[path] = name
        depth += 1
    return names


def describe(values: NDArray[np.float64], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one score of all images.

    Args:
        values: float64 (N,), NaN where an image has none.
        settings: ``confidence``, ``samples`` and ``seed`` of ``bootstrap_interval``.

    Returns:
        ``mean``, ``std`` (n - 1; 0 for one image), ``median``, ``min``, ``max`` and ``interval`` (of the mean) of the
        images that have a value, all None without any; ``undefined``: the number of the others.
    """
    known = values[np.isfinite(values)]
    undefined = {"undefined": len(values) - len(known)}
    if len(known) == 0:
        return {"mean": None, "std": None, "median": None, "min": None, "max": None, "interval": None, **undefined}
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if len(known) > 1 else 0.0,
        "median": float(np.median(known)),
        "min": float(known.min()),
        "max": float(known.max()),
        "interval": list(bootstrap_interval(known, **settings)),
        **undefined,
    }


def as_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    r"""Return rows as a CSV table with a header; None and what a row has not are empty cells.

    Args:
        rows: at least one, unless columns are given.
        columns: what to write, in this order; None for the columns of the first row, which all rows have.

    Example:
        >>> as_csv([{"file": "a.png", "dice": 0.5}, {"file": "b.png", "dice": None}])
        'file,dice\na.png,0.5\nb.png,\n'
    """
    rows = list(rows)
    text = io.StringIO()
    kept = list(rows[0]) if columns is None else columns
    writer = csv.DictWriter(text, kept, lineterminator="\n", extrasaction="raise" if columns is None else "ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
