"""What the tests of cross-validation share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msrf_monai.experiments import CrossValidation
from support.experiment_fakes import Settings, make_bundle, make_dataset


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with the variants none, cse and ssr."""
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve pictures without groups and strata."""
    return make_dataset(tmp_path / "drawn")


@pytest.fixture
def settings(tmp_path: Path, bundle: Path, dataset: Path) -> Settings:
    """A small cross-validation, to be changed by keywords."""

    def make(**changes: Any) -> CrossValidation:
        given = {"bundle": bundle, "dataset": dataset, "variants": ("none", "ssr"), "output": tmp_path / "out"}
        return CrossValidation(**{**given, "folds": 3, **changes})

    return make
