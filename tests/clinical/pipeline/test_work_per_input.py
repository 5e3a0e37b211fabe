"""The work of an input does not grow with the number of inputs: calls of functions are counted, not time.

What the report does for each input is counted in ``test_growth_per_input``.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from msrf_monai.clinical.execution import engines
from msrf_monai.clinical.pipeline import predict
from support.clinical_workers import PROGRAM, light_inputs, load, stub_bundle

FEW, SOME, MANY = 15, 35, 95
OURS = f"{Path(engines.__file__).parents[2]}/"


def calls_of(inputs: Path, bundle: Path, output: Path, workers: int) -> int:
    """Run, and count the calls of this package's functions, and what these call, in all threads of this process."""
    counts: Counter[int] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(OURS):
            counts[threading.get_ident()] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        predict(bundle, inputs, output, outputs=("mask", "stats"), num_workers=workers, report=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return counts.total()


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("workers", [0, 1])
def test_calls_per_input_are_as_many_however_many_inputs_there_are(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
    monkeypatch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)
    bundle = stub_bundle(tmp_path / "bundle")

    # the first run imports and fills caches
    _, few, some, many = (
        calls_of(light_inputs(tmp_path / f"in{index}", number), bundle, tmp_path / f"out{index}", workers)
        for index, number in enumerate((10, FEW, SOME, MANY))
    )

    assert (many - some) / (MANY - SOME) == pytest.approx((some - few) / (SOME - FEW), rel=0.01)
