"""A frame is decoded once: the small picture of the report is made from what the network was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.reading.dicom import DicomFrames
from support.clinical_runs import ThresholdPredictor, result_bytes
from support.dicom_files import as_bytes, image_dataset


@pytest.mark.parametrize("frames", [1, 5])
def test_every_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (frames, 300, 400), dtype=np.uint8)
    (tmp_path / "a.dcm").write_bytes(as_bytes(image_dataset(pixels[0] if frames == 1 else pixels)))
    options: dict[str, Any] = {"outputs": ("mask",), "report": False}
    decode, decoded = DicomFrames.frame, []

    def count(self: DicomFrames, index: int) -> Any:
        decoded.append(index)
        return decode(self, index)

    monkeypatch.setattr(DicomFrames, "frame", count)
    predict(ThresholdPredictor(), tmp_path / "a.dcm", tmp_path / "out", **options)
    once = list(decoded)
    monkeypatch.setattr("msrf_monai.clinical.execution.opening.remember_small_frames", lambda case: case)
    predict(ThresholdPredictor(), tmp_path / "a.dcm", tmp_path / "again", **options)

    assert sorted(once) == list(range(frames))
    assert len(decoded) == 2 * frames + 1
    assert result_bytes(tmp_path / "out") == result_bytes(tmp_path / "again")
    assert any(name.endswith("thumbnail.png") for name in result_bytes(tmp_path / "out"))
