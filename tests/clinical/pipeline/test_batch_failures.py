"""Bad inputs among good ones: each is one line with its code, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.failures import describe, is_fatal, is_final
from msrf_monai.clinical.ledger import MANIFEST, read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.sources import SOURCES
from msrf_monai.errors import InputError, MissingExtraError, StorageError
from support.bad_inputs import LIMITS, make_bad_inputs
from support.clinical_runs import ThresholdPredictor, entries_of, good_pictures, result_bytes, save_picture
from support.dicom_files import as_bytes, image_dataset, pattern


def codes_by_name(output: Path, root: Path) -> dict[str, str]:
    """Return the code of each failed input by the first part of its path, which only the private list knows."""
    paths = {}
    for line in (output / SOURCES).read_text().splitlines():
        values = json.loads(line)
        path = Path(values["sources"][0])
        paths[values["folder"]] = path.relative_to(root).parts[0] if path.is_relative_to(root) else path.name
    return {paths[entry.folder]: entry.code for entry in read_manifest(output).entries if entry.state == "failed"}


def test_one_bad_file_of_each_kind_among_200_good_ones(tmp_path: Path, quick_disk: None) -> None:
    good_pictures(tmp_path / "good", 200)
    expected = make_bad_inputs(tmp_path / "bad")

    inputs = [tmp_path / "good", tmp_path / "bad"]
    found = predict(ThresholdPredictor(), inputs, tmp_path / "out", outputs=("mask",), limits=LIMITS, report=False)

    assert (found.done, found.failed, found.skipped, found.exit_code) == (200, len(expected), 0, 3)
    assert len(list((tmp_path / "out").glob("*/mask.png"))) == 200
    assert codes_by_name(tmp_path / "out", tmp_path / "bad") == expected
    assert all(entry.reason for entry in read_manifest(tmp_path / "out").entries if entry.state == "failed")


def test_a_bad_file_changes_no_other_result(tmp_path: Path) -> None:
    good_pictures(tmp_path / "in", 3)
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "alone", report=False)
    (tmp_path / "in" / "bad.png").write_bytes(b"x")
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "together", report=False)

    assert result_bytes(tmp_path / "alone") == result_bytes(tmp_path / "together")


def test_equal_names_in_two_folders_give_two_results(tmp_path: Path) -> None:
    save_picture(tmp_path / "a" / "image.png", 1)
    save_picture(tmp_path / "b" / "image.png", 2)

    found = predict(ThresholdPredictor(), [tmp_path / "a", tmp_path / "b"], tmp_path / "out", report=False)

    masks = [path.read_bytes() for path in sorted((tmp_path / "out").glob("image-*/mask.png"))]
    assert found.done == 2
    assert len(set(masks)) == 2


def test_equal_paths_below_equal_folders_give_two_results(tmp_path: Path) -> None:
    for name in ("x/in/image.png", "y/in/image.png"):
        save_picture(tmp_path / name)

    found = predict(ThresholdPredictor(), [tmp_path / "x/in", tmp_path / "y/in"], tmp_path / "out", report=False)

    assert found.done == 2
    assert len(list((tmp_path / "out").glob("image-*/mask.png"))) == 2


class Stumbling(ThresholdPredictor):
    """Fails for the second of three pictures, in one stage."""

    def __init__(self, stage: str, error: Exception) -> None:
        self._stage, self._error = stage, error
        self._count = {"prepare": 0, "infer": 0, "finish": 0}

    def _step(self, stage: str) -> None:
        self._count[stage] += 1
        if stage == self._stage and self._count[stage] == 2:
            raise self._error

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        self._step("prepare")
        return super().prepare(case, index)

    def infer(self, item: dict[Any, Any]) -> dict[Any, Any]:
        self._step("infer")
        return super().infer(item)

    def finish(self, items: Any) -> Any:
        self._step("finish")
        return super().finish(items)


@pytest.mark.parametrize(
    ("stage", "error", "code"),
    [
        ("prepare", ValueError("SECRET"), "read_failed"),
        ("prepare", RefusedInput(RefusalCode.CHANGED, "it has changed"), "changed"),
        ("infer", RuntimeError("SECRET"), "predict_failed"),
        ("infer", MemoryError(), "out_of_memory"),
        ("finish", KeyError("SECRET"), "predict_failed"),
        ("finish", InputError("the network takes 3 channels"), "predict_failed"),
    ],
    ids=["value", "refusal", "runtime", "memory", "key", "input"],
)
def test_an_error_in_any_stage_ends_one_input_only(tmp_path: Path, stage: str, error: Exception, code: str) -> None:
    good_pictures(tmp_path / "in", 3)

    found = predict(Stumbling(stage, error), tmp_path / "in", tmp_path / "out", report=False)

    (failed,) = [entry for entry in entries_of(tmp_path / "out").values() if entry.state == "failed"]
    assert (found.done, found.failed) == (2, 1)
    assert failed.code == code
    assert "SECRET" not in (tmp_path / "out" / MANIFEST).read_text()
    assert len(list((tmp_path / "out").glob("image*"))) == 2


def test_a_frame_in_the_middle_of_a_clip_that_fails_ends_the_clip(tmp_path: Path) -> None:
    class BadFrame(ThresholdPredictor):
        def prepare(self, case: Case, index: int) -> dict[Any, Any]:
            if index == 2:
                raise RefusedInput(RefusalCode.DECODE_FAILED, "the frame is damaged")
            return super().prepare(case, index)

    (tmp_path / "clip.dcm").write_bytes(as_bytes(image_dataset(pattern()[None].repeat(5, 0))))

    predict(BadFrame(), tmp_path / "clip.dcm", tmp_path / "out", report=False)

    (entry,) = read_manifest(tmp_path / "out").entries
    assert (entry.state, entry.code) == ("failed", "decode_failed")


def test_the_frames_of_a_clip_are_predicted_in_order(tmp_path: Path) -> None:
    frames = pattern(12, 16)[None].repeat(7, 0)
    for number in range(7):
        frames[number, : number + 1] = 255
    (tmp_path / "clip.dcm").write_bytes(as_bytes(image_dataset(frames)))
    seen: list[Any] = []

    class Watching(ThresholdPredictor):
        def finish(self, items: Any) -> Any:
            seen.append(super().finish(items))
            return seen[0]

    found = predict(Watching(), tmp_path / "clip.dcm", tmp_path / "out", readers=2, outputs=("stats",), report=False)

    assert found.done == 1
    assert (seen[0].mask == (frames > 100)).all()


def test_a_writer_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_pictures(tmp_path / "in", 2)

    def fail(*arguments: Any, **options: Any) -> None:
        raise MissingExtraError("highdicom is not installed")

    monkeypatch.setattr("msrf_monai.clinical.result_writer.write_outputs", fail)

    found = predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", report=False)

    assert found.failed == 2
    assert {entry.code for entry in read_manifest(tmp_path / "out").entries} == {"missing_extra"}
    assert not list((tmp_path / "out").glob("*image*"))


def test_our_own_words_are_kept_unless_they_name_the_file() -> None:
    plain = InputError("the network takes 3 channels, the image has 1")
    named = InputError("doe.png has 1 channel")

    assert describe(plain, "predict", ["/in/doe.png"])[1] == str(plain)
    assert "doe" not in describe(named, "predict", ["/in/doe.png"])[1]
    assert "doe" not in describe(InputError("/in/doe: bad"), "read", [])[1]


def test_only_refusals_that_say_something_about_the_file_are_final() -> None:
    assert is_final("truncated")
    assert not any(map(is_final, ("missing", "decoder_missing", "permission_denied", "predict_failed", "")))


def test_only_the_disk_of_the_results_ends_a_run() -> None:
    full = StorageError("cannot write")
    full.__cause__ = OSError(28, "No space left on device")
    refusal = RefusedInput(RefusalCode.IO_ERROR, "the system cannot read the file")
    refusal.__context__ = OSError(5, "Input/output error")

    assert is_fatal(full) == "the disk is full"
    assert is_fatal(refusal) == ""
    assert is_fatal(StorageError("came back changed")) == ""
