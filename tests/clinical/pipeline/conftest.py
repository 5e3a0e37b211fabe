"""What the tests of the pipeline share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, in tests of many inputs that end no process."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
