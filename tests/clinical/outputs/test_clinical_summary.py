"""summary.csv: a line for each input and segment, whatever became of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from msrf_monai.clinical.ledger import OutputRecord, read_manifest
from msrf_monai.clinical.summary import COLUMNS, iter_results, output_bytes, write_summary
from msrf_monai.errors import DataError
from msrf_monai.files import sha256_of


def rows_of(folder):
    with write_summary(folder).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        assert tuple(reader.fieldnames) == COLUMNS
        return {row["input"]: row for row in reader}


def test_every_input_has_a_line_with_its_numbers(results):
    results.done("b.png", 30, spacing_mm=(0.5, 0.5), spacing_is_real=True)
    results.done("a.png", 0)
    results.failed("c.png", "truncated", "it is cut, short")

    rows = rows_of(results.close())

    assert list(rows) == ["a.png", "b.png", "c.png"]
    assert (rows["b.png"]["pixels"], rows["b.png"]["area_mm2"], rows["b.png"]["label"]) == ("30", "7.5", "polyp")
    assert (rows["b.png"]["rows"], rows["b.png"]["columns"], rows["b.png"]["share"]) == ("20", "30", "0.05")
    assert (rows["a.png"]["flags"], rows["a.png"]["area_mm2"], rows["a.png"]["confidence_lowest"]) == (
        "empty_mask",
        "",
        "0.9",
    )
    assert (rows["c.png"]["state"], rows["c.png"]["code"], rows["c.png"]["reason"], rows["c.png"]["pixels"]) == (
        "failed",
        "truncated",
        "it is cut, short",
        "",
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_name_becomes_a_formula_of_a_spreadsheet(results, name):
    results.failed(name)

    (row,) = rows_of(results.close()).values()

    assert row["input"] == f"'{name}"


def test_the_order_in_which_inputs_end_does_not_matter(new_results):
    folders = []
    for backwards in (False, True):
        made = new_results(f"results-{backwards}")
        for name in ("b.png", "a.png"):
            made.done(name)
        made.failed("0.png")
        folders.append(made.close(backwards=backwards))

    first, second = (write_summary(folder).read_bytes() for folder in folders)

    assert first == second


def test_a_result_without_statistics_has_a_line_too(results):
    results.done("a.png", kinds=("mask",))

    row = rows_of(results.close())["a.png"]

    assert (row["state"], row["pixels"], row["segment"]) == ("done", "", "")


def test_statistics_that_have_changed_are_left_out_and_said(results):
    entry = results.done("a.png")
    folder = results.close()
    path = folder / entry.folder / "stats.json"
    path.write_text(json.dumps(json.loads(path.read_text())))

    (result,) = iter_results(folder, read_manifest(folder))

    assert result.has_changed
    assert result.statistics is None
    assert rows_of(folder)["a.png"]["pixels"] == ""


def test_files_outside_the_result_folder_are_never_read(results, tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("x")
    entry = results.failed("a.png")
    record = OutputRecord("thumbnail", "../secret.txt", sha256_of(outside), 1)
    folder = results.close()

    assert output_bytes(folder, replace(entry, outputs=(record,)), "thumbnail") is None
    assert output_bytes(tmp_path, replace(entry, outputs=(replace(record, path="secret.txt"),)), "thumbnail") == b"x"


@pytest.mark.parametrize("kind", ["thumbnail", "seg"])
def test_an_output_that_is_missing_or_was_never_made_is_none(results, kind):
    entry = results.done("a.png")
    folder = results.close()
    (folder / entry.folder / "thumbnail.png").unlink()

    assert output_bytes(folder, entry, kind) is None


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="manifest"):
        write_summary(tmp_path)
