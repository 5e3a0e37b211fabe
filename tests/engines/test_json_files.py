"""JSON files without NaN: how they are written and read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.errors import DataError
from msrf_monai.json_files import nan_for_null, null_for_nan, read_json, write_json
from support.strict_json import strict_json

NOT_FINITE = (math.nan, math.inf, -math.inf, np.float64("nan"))


@pytest.mark.parametrize("value", NOT_FINITE, ids=["nan", "inf", "-inf", "float64-nan"])
def test_what_json_cannot_hold_is_null_at_any_depth(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([float(value)]))
    with pytest.raises(ValueError, match="is no JSON"):
        strict_json(path)

    write_json(path, {"score": value, "interval": (0.5, value), "rows": [{"dice": [value, 1]}]})

    assert strict_json(path) == {"score": None, "interval": [0.5, None], "rows": [{"dice": [None, 1]}]}


@pytest.mark.parametrize("content", [{"a": [1, 2.5, True, None, "NaN"], "b": {}}, [], "é", 0.1, {1: np.float64(0.25)}])
def test_anything_else_is_written_as_by_pythons_writer(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text() == json.dumps(content, indent=4) + "\n"
    write_json(tmp_path / "b.json", content, indent=2, ascii_only=False)
    text = (tmp_path / "b.json").read_text(encoding="utf-8")
    assert text == json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def test_rows_come_back_with_nan() -> None:
    rows = [{"epoch": 1, "val_mcc": math.nan}, {"epoch": 2, "val_mcc": 0.5}]
    again = nan_for_null(null_for_nan(rows))
    assert math.isnan(again[0].pop("val_mcc"))
    assert again == [{"epoch": 1}, rows[1]]


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_what_cannot_be_read_is_one_sentence_with_advice(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: cannot be read as JSON \(.*\); do it again"):
        read_json(path, "do it again")
