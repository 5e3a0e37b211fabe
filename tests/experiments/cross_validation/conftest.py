"""Cross-validations without figures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out, which take most of the time and have tests of their own."""
    for name in ("draw_boxes", "draw_folds", "draw_differences", "draw_learning_curves"):
        monkeypatch.setattr(f"msrf_monai.experiments.report.{name}", lambda *values, **options: b"a picture")
