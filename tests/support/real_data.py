"""Where the real data is that some tests read."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def data_folder() -> Path | None:
    """Return the folder of the real data: MSRF_DATA_DIR, or shared/data beside the checkout, or None."""
    given = os.environ.get("MSRF_DATA_DIR")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None
