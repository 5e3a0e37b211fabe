"""Reading prepared data sets and folders of pictures, and what is said when they are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from msrf_monai.data import list_images, load_datalist, prepare_dataset, verify_dataset
from msrf_monai.errors import DataError, InputError
from msrf_monai.transforms import SafeFolderLayout

Maker = Callable[..., Path]


@pytest.fixture
def prepared(tmp_path: Path, paired_source: Maker) -> Path:
    return prepare_dataset("paired", paired_source(20), tmp_path / "out", folds=4).folder


def stems(items: list[dict[str, str]]) -> set[str]:
    return {Path(item["image"]).stem for item in items}


def test_paths_are_absolute_and_image_and_label_belong_together(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.parent)

    items = load_datalist("out", "training")

    assert len(items) == 16
    for item in items:
        assert Path(item["image"]).is_absolute()
        assert Path(item["label"]).is_file()
        assert Path(item["image"]).stem == Path(item["label"]).stem


def test_folds_partition_what_is_not_test(prepared: Path) -> None:
    everything = stems(load_datalist(prepared, "training")) | stems(load_datalist(prepared, "validation"))
    validations = [stems(load_datalist(prepared, "validation", fold=fold)) for fold in range(4)]

    assert set.union(*validations) == everything
    assert sum(len(part) for part in validations) == len(everything) == 18
    for fold, validation in enumerate(validations):
        assert stems(load_datalist(prepared, "training", fold=fold)) == everything - validation
        assert load_datalist(prepared, "test", fold=fold) == load_datalist(prepared, "test")


def test_limit_takes_the_first_ones(prepared: Path) -> None:
    assert load_datalist(prepared, "training", limit=3) == load_datalist(prepared, "training")[:3]


@pytest.mark.parametrize(
    ("split", "options", "reason"),
    [
        ("train", {}, "split is 'train'; expected one of training, validation, test"),
        ("training", {"limit": 0}, "limit is 0"),
        ("training", {"fold": 4}, "fold is 4; expected from 0 to 3"),
    ],
)
def test_wrong_arguments_are_named(prepared: Path, split: str, options: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_datalist(prepared, split, **options)


def test_a_data_set_without_folds_says_so(tmp_path: Path, paired_source: Maker) -> None:
    prepare_dataset("paired", paired_source(5), tmp_path / "none", folds=0)

    with pytest.raises(InputError, match="prepared without folds"):
        load_datalist(tmp_path / "none", "training", fold=0)


def test_a_missing_folder_or_datalist_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: the data set folder does not exist; make it with: msrf-monai data prep"):
        load_datalist(tmp_path / "gone", "training")
    with pytest.raises(DataError, match=r"dataset.json: is missing.*msrf-monai data prepare"):
        load_datalist(tmp_path, "training")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ('{"training": {"image": "a.png"}}', r"dataset\.json: 'training' is a dict; expected a list"),
        ('{"training": ["a.png"]}', r"dataset\.json: item 0 of 'training' is 'a\.png'; expected an object"),
        ('{"training": [{"image": "a", "label": "b"}, {"image": "c"}]}', r"item 1 of 'training' is \{'image': 'c'\}"),
        ('{"training": [{"image": "a", "label": 3}]}', "item 0 of 'training' is .*'label': 3"),
        ('{"training": [{"image": ["a"], "label": "b"}]}', "item 0 of 'training' is .*'image': .'a'"),
        ('{"training": [{"image": "a", "label": "b", "fold": "x"}]}', "item 0 of 'training' has the fold 'x'"),
        ('{"training": []}', "the training part is empty"),
    ],
)
def test_a_broken_datalist_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=reason):
        load_datalist(tmp_path, "training")


def test_missing_files_are_named_and_counted(prepared: Path) -> None:
    items = load_datalist(prepared, "training")
    Path(items[0]["label"]).unlink()
    with pytest.raises(DataError, match=r"labels/.*png: listed in dataset.json, missing on disk"):
        load_datalist(prepared, "training")

    Path(items[1]["image"]).unlink()
    with pytest.raises(DataError, match="and 1 more files: listed"):
        load_datalist(prepared, "training")


def test_verifying_lists_missing_changed_and_unknown_files(prepared: Path) -> None:
    assert verify_dataset(prepared) == 40
    items = load_datalist(prepared, "training")
    Path(items[0]["image"]).unlink()
    with Path(items[1]["label"]).open("ab") as handle:
        handle.write(b"x")
    content = json.loads((prepared / "dataset.json").read_text(encoding="utf-8"))
    content["test"][0]["image"] = "images/unknown.png"
    (prepared / "dataset.json").write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(DataError) as caught:
        verify_dataset(prepared)

    message = str(caught.value)
    assert "3 of 40 files" in message
    assert f"{Path(items[0]['image']).name}: cannot be read" in message
    assert f"{Path(items[1]['label']).name}: has changed" in message
    assert "images/unknown.png: has no sha256 sum" in message


def test_a_datalist_without_sums_cannot_be_verified(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"training": []}', encoding="utf-8")

    with pytest.raises(DataError, match="has no sha256 sums"):
        verify_dataset(tmp_path)


def test_pictures_of_a_folder_are_listed_in_order_without_hidden_and_other_files(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpg", "sub/c.tiff", "scan.dcm", "volume.nii.gz", "notes.txt", ".hidden.png", ".cache/x.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = [Path(item["image"]).relative_to(tmp_path).as_posix() for item in list_images(tmp_path)]

    assert found == ["a.jpg", "b.PNG", "scan.dcm", "sub/c.tiff", "volume.nii.gz"]
    assert len(list_images(tmp_path, recursive=False)) == 4
    assert list_images(tmp_path / "a.jpg") == [{"image": str(tmp_path / "a.jpg")}]


def test_a_linked_folder_of_pictures_keeps_its_own_name_and_its_sub_folders(tmp_path: Path) -> None:
    (tmp_path / "real" / "ward").mkdir(parents=True)
    (tmp_path / "real" / "ward" / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=tmp_path / "link")

    [item] = list_images(tmp_path / "link")

    assert item == {"image": str(tmp_path / "link" / "ward" / "a.png")}
    assert layout.filename(item["image"]) == str(tmp_path / "out" / "ward" / "a_seg.png")


def test_one_picture_in_place_of_a_folder_is_named_after_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    monkeypatch.chdir(tmp_path / "in")

    for given in (tmp_path / "in" / "a.png", "a.png", "../in/a.png"):
        layout = SafeFolderLayout(tmp_path / "out", "seg", data_root_dir=given)
        [item] = list_images(given)

        assert item == {"image": str(tmp_path / "in" / "a.png")}
        assert layout.filename(item["image"]) == str(tmp_path / "out" / "a_seg.png")


@pytest.mark.parametrize("exclude", ["in/eval", "in/../in/eval", "link/eval"])
def test_results_inside_the_folder_of_pictures_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclude: str
) -> None:
    for name in ("a.png", "eval/a_seg.png", "eval/ward/b_seg.png", "evaluation/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    monkeypatch.chdir(tmp_path)

    for folder in ("in", "link"):
        found = [item["image"] for item in list_images(folder, exclude=exclude)]
        assert found == [str(tmp_path / folder / "a.png"), str(tmp_path / folder / "evaluation" / "c.png")]


@pytest.mark.parametrize("exclude", ["..", "../out", "/", "gone"])
def test_an_output_folder_elsewhere_leaves_no_picture_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclude: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    monkeypatch.chdir(tmp_path / "in")

    assert list_images(".", exclude=exclude) == [{"image": str(tmp_path / "in" / "a.png")}]


def test_the_folder_of_pictures_cannot_be_that_of_the_results(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)

    for exclude in (tmp_path / "in", tmp_path / "link"):
        with pytest.raises(DataError, match="is the folder of the pictures and that of the results; choose another"):
            list_images(tmp_path / "in", exclude=exclude)


def test_a_missing_or_empty_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(DataError, match="gone: this folder of pictures does not exist"):
        list_images(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no picture in this folder; expected files that end in .bmp"):
        list_images(tmp_path)
