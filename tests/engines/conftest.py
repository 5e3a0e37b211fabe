"""The toy training that the tests of this room share."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from support import training_job


@pytest.fixture(scope="session")
def job() -> ModuleType:
    """The module ``training_job``: ``build`` makes a training, ``result`` what two trainings are compared by."""
    return training_job


@pytest.fixture(scope="session")
def job_script() -> Path:
    """The file of that module, which can be killed when it is run."""
    return Path(str(training_job.__file__))
