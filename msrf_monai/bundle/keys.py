"""Whether the configs have the keys that MONAI's workflows and MONAI Label look up, read without evaluating them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msrf_monai.bundle.lint import normal_id, read_json
from msrf_monai.errors import ConfigError

__all__ = ["check_keys"]

# What MONAI's TrainProperties and InferProperties name as required, then what is looked up if it is there.
_REQUIRED = {
    "train": """
        bundle_root device dataset_dir train train::trainer train::trainer::max_epochs train::dataset train::inferer
        """,
    "inference": "bundle_root device dataset_dir dataset evaluator network_def inferer",
}
_OPTIONAL = {
    "train": """
        network_def train::dataset::data train::handlers train::preprocessing train::postprocessing train::key_metric
        validate validate::evaluator val_interval validate::handlers validate::dataset validate::dataset::data
        validate::dataloader validate::inferer validate::preprocessing validate::postprocessing validate::key_metric
        initialize run finalize
        """,
    "inference": "dataset::data handlers preprocessing postprocessing key_metric output_dir initialize run finalize",
}
# MONAI Label reads these by name from inference.json.
_OF_MONAI_LABEL = ("preprocessing", "postprocessing")
_LOOKS_LIKE = 0.85


def check_keys(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that ``train.json`` and ``inference.json`` have the zoo's keys, and none that is nearly one of them.

    Args:
        bundle: folder of the bundle; a config that is missing is left to ``check_files``.
    """
    problems = []
    for config, words in _REQUIRED.items():
        path = Path(bundle) / "configs" / f"{config}.json"
        if not path.is_file():
            continue
        try:
            ids = _ids(read_json(path))
        except ConfigError as error:
            problems.append(str(error))
            continue
        required = (*words.split(), *(_OF_MONAI_LABEL if config == "inference" else ()))
        optional = tuple(_OPTIONAL[config].split())
        problems += [f"{path.name}: {problem}" for problem in _compare(ids, required, optional)]
    return problems


def _compare(ids: set[str], required: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    known = {*required, *optional}
    absent = [name for name in dict.fromkeys((*required, *optional)) if name not in ids]
    problems = []
    for name in absent:
        near = _nearest(name, ids - known)
        if near:
            problems.append(f"{near}: is not found under this name; MONAI looks for {name}")
        elif name in required:
            problems.append(f"{name} is missing; MONAI or MONAI Label looks it up")
    return problems


def _nearest(name: str, others: set[str]) -> str:
    """Return the sister of a missing key that is spelt nearly like it, or nothing."""
    parent, _, last = name.rpartition("::")
    sisters = {other.rpartition("::")[2]: other for other in sorted(others) if other.rpartition("::")[0] == parent}
    near = difflib.get_close_matches(last, sisters, n=1, cutoff=_LOOKS_LIKE)
    return sisters[near[0]] if near else ""


def _ids(config: Mapping[str, Any], parent: str = "") -> set[str]:
    """Return the ids of a config down to the third level, all that the zoo's names need."""
    found: set[str] = set()
    for key, value in config.items():
        name = normal_id(f"{parent}::{key}" if parent else key)
        parts = name.split("::")
        found |= {"::".join(parts[: length + 1]) for length in range(len(parts))}
        if isinstance(value, Mapping) and len(parts) < 3:
            found |= _ids(value, name)
    return found
