"""Going on in a result folder: what is done and intact stays, everything else is done again, strangers are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.ledger import MANIFEST, read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.preview import preview
from msrf_monai.errors import ConfigError, InputError
from support.clinical_runs import ThresholdPredictor, entries_of, good_pictures, result_bytes, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern


class Counting(ThresholdPredictor):
    """Notes which inputs it is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        self.seen.append(case.sources[0].name)
        return super().prepare(case, index)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A finished run of three pictures and a bad one."""
    good_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.png").write_bytes(b"x")
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", report=False)
    return tmp_path


def resumed(folder: Path, **options: Any) -> tuple[Any, list[str]]:
    predictor = Counting()
    found = predict(predictor, folder / "in", folder / "out", resume=True, report=False, **options)
    return found, sorted(predictor.seen)


def test_what_is_done_is_not_done_again(first: Path) -> None:
    before = result_bytes(first / "out"), (first / "out" / MANIFEST).read_bytes()

    found, seen = resumed(first)

    assert seen == []
    assert (found.done, found.failed, found.kept, found.exit_code) == (3, 1, 4, 3)
    assert (result_bytes(first / "out"), (first / "out" / MANIFEST).read_bytes()) == before


def test_new_inputs_are_added(first: Path) -> None:
    save_picture(first / "in" / "new.png", 9)

    found, seen = resumed(first)

    assert seen == ["new.png"]
    assert (found.done, found.kept) == (4, 4)


def test_a_changed_input_is_done_again_in_its_place(first: Path) -> None:
    save_picture(first / "in" / "image0001.png", 11)
    before = entries_of(first / "out")

    found, seen = resumed(first)

    after = entries_of(first / "out")
    assert seen == ["image0001.png"]
    assert found.done == 3
    assert after["image0001.png"].folder == before["image0001.png"].folder
    assert after["image0001.png"].attempt == 2
    assert after["image0001.png"].outputs[0].sha256 != before["image0001.png"].outputs[0].sha256


@pytest.mark.parametrize("damage", ["changed", "cut", "removed", "folder"])
def test_a_damaged_output_is_made_again(first: Path, damage: str) -> None:
    before = result_bytes(first / "out")
    (mask,) = (first / "out").glob("image0002*/mask.png")
    content = mask.read_bytes()
    if damage == "changed":
        mask.write_bytes(content[:-1] + b"\0")
    elif damage == "cut":
        mask.write_bytes(content[:10])
    elif damage == "removed":
        mask.unlink()
    else:
        mask.parent.rename(first / "elsewhere")

    _, seen = resumed(first)

    assert seen == ["image0002.png"]
    assert result_bytes(first / "out") == before


def test_an_input_that_has_become_bad_loses_its_old_result(first: Path) -> None:
    (first / "in" / "image0000.png").write_bytes(b"damaged now")

    found, _ = resumed(first)

    assert (found.done, found.failed) == (2, 2)
    assert entries_of(first / "out")["image0000.png"].code == "unknown_format"
    assert not list((first / "out").glob("image0000*"))


def test_an_input_that_has_been_mended_is_done(first: Path) -> None:
    save_picture(first / "in" / "bad.png", 5)

    found, seen = resumed(first)

    assert seen == ["bad.png"]
    assert (found.done, found.failed, found.exit_code) == (4, 0, 0)


def test_a_refused_file_that_has_not_changed_gets_no_second_line(first: Path) -> None:
    resumed(first)

    assert (first / "out" / MANIFEST).read_text().count('"bad.png"') == 1


def test_what_failed_for_a_passing_reason_is_tried_again(tmp_path: Path) -> None:
    class Failing(ThresholdPredictor):
        def infer(self, item: Any) -> Any:
            raise MemoryError

    save_picture(tmp_path / "in" / "a.png")
    predict(Failing(), tmp_path / "in", tmp_path / "out", report=False)

    found, seen = resumed(tmp_path)

    assert seen == ["a.png"]
    assert found.done == 1
    assert entries_of(tmp_path / "out")["a.png"].attempt == 2


def test_a_dicom_file_that_was_mended_has_no_two_entries_that_hold(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole = as_bytes(image_dataset(pattern(20, 30)))
    (tmp_path / "in" / "a.dcm").write_bytes(whole[:-9])
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", outputs=("mask",), report=False)
    (tmp_path / "in" / "a.dcm").write_bytes(whole)

    found, _ = resumed(tmp_path, outputs=("mask",))

    assert (found.done, found.failed) == (1, 0)
    assert {entry.state: entry.code for entry in read_manifest(tmp_path / "out").entries} == {
        "skipped": "superseded",
        "done": "",
    }
    assert resumed(tmp_path, outputs=("mask",))[0].kept == 1


def test_results_are_not_mixed_with_what_is_there(first: Path) -> None:
    with pytest.raises(InputError, match="holds results already; go on there with --resume"):
        predict(ThresholdPredictor(), first / "in", first / "out")


def test_a_folder_of_something_else_is_refused_even_to_go_on_in(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")

    with pytest.raises(InputError, match="holds no results of msrf-monai"):
        resumed(tmp_path)

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"outputs": ("stats",)}, "outputs was"),
        ({"threshold": 0.7}, "threshold was null and is 0.7"),
        ({"tta": True}, "tta was false and is true"),
        ({"overrides": (("image_size", [64, 64]),)}, "overrides was"),
        ({"slice_by_slice": True}, "slice_by_slice was false"),
    ],
    ids=["outputs", "threshold", "tta", "overrides", "slices"],
)
def test_other_options_are_refused_by_name(first: Path, options: Any, named: str) -> None:
    before = (first / "out" / MANIFEST).read_bytes()

    with pytest.raises(ConfigError, match=named):
        resumed(first, **options)

    assert (first / "out" / MANIFEST).read_bytes() == before


def test_another_model_is_refused(first: Path) -> None:
    class Other(ThresholdPredictor):
        model_digest = "cd" * 32

    with pytest.raises(ConfigError, match="model_digest was abab"):
        predict(Other(), first / "in", first / "out", resume=True)


def test_resuming_where_nothing_is_yet_just_begins(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 1)

    assert resumed(tmp_path)[0].done == 1


def test_parts_done_after_each_other_in_one_folder_are_the_whole(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 6)
    for number in (1, 2):
        resumed(tmp_path, part=(number, 2))
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "whole", report=False)

    assert result_bytes(tmp_path / "out") == result_bytes(tmp_path / "whole")


def test_a_run_on_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 1)
    program = (
        "import sys; from pathlib import Path; from msrf_monai.clinical.lock import hold\n"
        "folder = Path(sys.argv[1]); folder.mkdir()\n"
        "with hold(folder):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for resume in (False, True):
            with pytest.raises(OSError, match="another run"):
                predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", resume=resume)
        other.kill()

    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert resumed(tmp_path)[0].done == 1


def test_a_preview_says_what_is_done_and_what_is_not(first: Path) -> None:
    save_picture(first / "in" / "image0001.png", 11)
    before = result_bytes(first / "out")

    planned = {each.input: each for each in preview([first / "in"], first / "out", resume=True)}

    assert {name: each.action for name, each in planned.items()} == {
        "bad.png": "refuse",
        "image0000.png": "keep",
        "image0001.png": "predict",
        "image0002.png": "keep",
    }
    assert planned["image0001.png"].outputs == ("mask", "stats")
    assert result_bytes(first / "out") == before


def test_the_header_says_what_the_run_was_told(first: Path) -> None:
    header = json.loads((first / "out" / MANIFEST).read_text().splitlines()[0])

    assert header["options"]["outputs"] == ["mask", "seg", "stats"]
    assert {"python", "numpy", "pydicom"} <= set(header["packages"])
