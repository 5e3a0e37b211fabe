"""A result folder as a run leaves it, written without a predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msrf_monai.clinical.ledger import Entry, Header, Ledger, OutputRecord
from msrf_monai.clinical.outputs import OutputOptions, write_outputs
from msrf_monai.clinical.quality import flags_of
from msrf_monai.clinical.statistics import measure
from support.clinical_cases import array_case, prediction_of
from support.dicom_writing import POLYP, PRODUCER

HEADER = Header("MSRF-Net polyp segmentation", "0.1.0", "ab" * 32, "cd" * 32, {"tta": False}, {"torch": "2.13.0"})


@dataclass
class ResultFolder:
    """Adds inputs to a result folder, in any order."""

    root: Path
    entries: list[Entry] = field(default_factory=list)
    header: Header = HEADER

    def done(self, name: str, marked: int = 30, *, kinds: tuple[str, ...] = ("mask", "stats"), **case: Any) -> Entry:
        """Write the results of a picture of 20 x 30 pixels with so many marked."""
        flags = case.pop("flags", None)
        mask = np.zeros(20 * 30, np.uint8)
        mask[31 : 31 + marked] = 1
        mask = mask.reshape(1, 20, 30)
        made = array_case(np.full((1, 20, 30), 90, np.uint8), **case)
        prediction = prediction_of(mask)
        folder = f"input-{len(self.entries)}"
        files = write_outputs(
            made,
            prediction,
            folder=self.root / folder,
            predictor_identity=PRODUCER,
            segments=(POLYP,),
            options=OutputOptions(kinds),
        )
        found = flags_of(measure(made.info, prediction, 1)) if flags is None else flags
        outputs = tuple(OutputRecord(each.kind, f"{folder}/{each.path}", each.sha256, each.size) for each in files)
        self.entries.append(Entry(name, folder, made.digest, "done", flags=found, outputs=outputs, frames=1))
        return self.entries[-1]

    def failed(self, name: str, code: str = "truncated", reason: str = "it is cut short; copy it again") -> Entry:
        """Note an input without a result."""
        self.entries.append(Entry(name, f"input-{len(self.entries)}", "", "failed", code, reason))
        return self.entries[-1]

    def close(self, *, backwards: bool = False) -> Path:
        """Write the manifest."""
        self.root.mkdir(parents=True, exist_ok=True)
        # thousands of lines need not each be on the disk before the next
        with pytest.MonkeyPatch.context() as patch, Ledger(self.root, self.header) as ledger:
            patch.setattr("os.fsync", lambda _: None)
            for entry in reversed(self.entries) if backwards else self.entries:
                ledger.append(entry)
        return self.root


@pytest.fixture
def new_results(tmp_path: Path) -> Callable[[str], ResultFolder]:
    """Makes result folders by name."""
    return lambda name: ResultFolder(tmp_path / name)


@pytest.fixture
def results(new_results: Callable[[str], ResultFolder]) -> ResultFolder:
    """One result folder."""
    return new_results("results")
