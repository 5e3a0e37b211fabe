"""The toy training that the tests of this room share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).with_name("training_job.py")


@pytest.fixture(scope="session")
def job() -> ModuleType:
    """The module ``training_job``: ``build`` makes a training, ``result`` what two trainings are compared by."""
    name = "msrf_tests_training_job"  # data loader workers are forked, so nobody has to find it by this name
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def job_script() -> Path:
    """The file of that module, which can be killed when it is run."""
    return SCRIPT
