"""What grows with the number of inputs, counted in bytes and in comparisons: little, and in proportion."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import Entry, Header, Ledger, OutputRecord, open_manifest
from msrf_monai.clinical.line_file import whole_lines
from msrf_monai.clinical.reading import open_series, series
from msrf_monai.clinical.report import write_report
from msrf_monai.clinical.sources import SourceList
from msrf_monai.clinical.summary import write_summary
from support.clinical_workers import light_inputs

HEADER = Header("bundle", "1.0", "ab" * 32, "cd" * 32)
FEW, MANY = 300, 1500


def entry(number: int) -> Entry:
    """A line as a run writes it, some of them flagged or failed."""
    folder = f"image{number:05}-0123456789ab"
    if number % 4 == 0:
        return Entry(f"image{number:05}.png", folder, "ab" * 32, "failed", "not_an_image", "it is no picture")
    outputs = tuple(OutputRecord(kind, f"{folder}/{kind}", "ef" * 32, 4321) for kind in ("mask", "stats", "thumbnail"))
    flags = ("empty_mask",) if number % 3 == 0 else ()
    return Entry(f"image{number:05}.png", folder, "ab" * 32, "done", "", "", flags, outputs, {"read": 0.1}, 1)


def folder_of(path: Path, number: int) -> Path:
    path.mkdir()
    with Ledger(path, HEADER) as ledger:
        for each in range(number):
            ledger.append(entry(each))
    return path


def peak_of(make: Callable[[], Any]) -> int:
    make()
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if hasattr(made, "close"):
        made.close()
    return peak


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize(
    ("make", "most"),
    [(lambda path: Ledger(path, HEADER), 300), (write_summary, 700), (write_report, 700)],
    ids=["manifest", "summary", "report"],
)
def test_memory_of_a_finished_input_is_less_than_its_line(
    tmp_path: Path, make: Callable[[Path], Any], most: int
) -> None:
    few, many = (folder_of(tmp_path / str(number), number) for number in (FEW, MANY))

    growth = peak_of(lambda: make(many)) - peak_of(lambda: make(few))

    # a line is some 750 bytes, and what it says takes 3,000 as objects
    assert growth < (MANY - FEW) * most


@pytest.mark.usefixtures("quick_disk")
def test_memory_of_the_list_of_sources(tmp_path: Path) -> None:
    def filled(number: int) -> Path:
        path = tmp_path / str(number)
        path.mkdir()
        with SourceList(path) as sources:
            for each in range(number):
                sources.add(f"image{each:05}-0123456789ab", (f"/data/archive/images/image{each:05}.png",))
        return path

    few, many = filled(FEW), filled(MANY)

    growth = peak_of(lambda: SourceList(many)) - peak_of(lambda: SourceList(few))

    assert growth < (MANY - FEW) * 1000


@pytest.mark.usefixtures("quick_disk")
def test_lines_are_read_again_as_they_were_added(tmp_path: Path) -> None:
    entries = [entry(number) for number in range(20)]
    with Ledger(tmp_path, HEADER) as ledger:
        for each in entries:
            ledger.append(each)
        assert list(ledger.entries.values()) == entries
        assert ledger.entries.get("unknown") is None
        ledger.append(entries[3])
        assert len(ledger.entries) == 20
    with open_manifest(tmp_path) as manifest:
        assert list(manifest.in_order()) == entries


class Key(tuple[str, ...]):
    """A key of a series that counts with how many others it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return super().__eq__(other)

    __hash__ = tuple.__hash__


def test_series_are_not_compared_with_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = list(light_inputs(tmp_path / "in", 60).iterdir())
    key = series._key
    monkeypatch.setattr(series, "_key", lambda case, dataset: Key((*key(case, dataset), case.digest)))

    found = open_series(paths)

    assert len(found.cases) == 60
    assert Key.compared < 60


def test_what_came_since_is_read_and_nothing_else(tmp_path: Path) -> None:
    with Ledger(tmp_path, HEADER) as ledger:
        ledger.append(entry(1))
        end = ledger.entries.end
        assert [each.folder for each in ledger.entries.since(0)] == [entry(1).folder]
        assert list(ledger.entries.since(end)) == []

        ledger.append(entry(2))
        ledger.append(entry(1))

        assert sorted(each.folder for each in ledger.entries.since(end)) == [entry(1).folder, entry(2).folder]
        assert list(ledger.entries.since(ledger.entries.end)) == []
    with open_manifest(tmp_path) as again:
        assert again.entries.end == ledger.entries.end


def test_a_line_that_becomes_whole_while_it_is_read_is_left_for_the_next_time() -> None:
    assert list(whole_lines([b"first\n", b'{"half', b'of it"}\n'])) == [(0, b"first")]
