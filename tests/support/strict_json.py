"""JSON as its standard has it: without NaN and infinities, which Python's reader takes by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def strict_json(path: Path) -> Any:
    """Return the content of a JSON file; NaN and infinities are a ValueError."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
