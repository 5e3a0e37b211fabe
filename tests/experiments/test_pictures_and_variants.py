"""What a cross-validation reads: the prepared data set and the bundle's overlays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msrf_monai.data import load_datalist, synthesize_dataset, verify_dataset
from msrf_monai.errors import ConfigError, DataError, InputError
from msrf_monai.experiments import make_folds, read_pictures
from msrf_monai.experiments.pictures import Picture, find_dataset, match_file, write_fold
from msrf_monai.experiments.variants import find_bundle
from support.experiment_fakes import make_bundle, make_dataset, options_of


def test_all_parts_of_a_random_split_are_taken_and_the_official_test_part_is_not(tmp_path: Path) -> None:
    random = read_pictures(make_dataset(tmp_path / "random", 12))
    official = read_pictures(make_dataset(tmp_path / "official", 12, split="official"))
    chosen = read_pictures(tmp_path / "official", parts=("training",))

    assert [len(found.pictures) for found in (random, official, chosen)] == [12, 10, 9]
    assert random.parts == ("training", "validation", "test")
    assert official.parts == ("training", "validation")


def test_pictures_are_ordered_by_name_with_groups_strata_and_digests(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", 8, groups=lambda i: f"p{i // 2}", strata=lambda i: "ab"[i % 2])

    found = read_pictures(folder)

    assert [picture.identity for picture in found.pictures] == [f"case_{index:03d}" for index in range(8)]
    assert found.groups["case_003"] == "p1"
    assert found.strata is not None
    assert found.strata["case_003"] == "b"
    assert Path(found.pictures[3].image).read_text() == "image 3"
    assert found.pictures[3].digests[0] is not None
    assert found.header["licence"] == "CC0 1.0"


def test_strata_are_those_of_all_pictures_or_none(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", 4, strata=lambda i: "a")
    assert read_pictures(folder).strata is None  # one stratum divides nothing

    content = json.loads((folder / "dataset.json").read_text())
    content["training"][0]["stratum"] = "b"
    del content["training"][1]["stratum"]
    (folder / "dataset.json").write_text(json.dumps(content))
    assert read_pictures(folder).strata is None


def test_a_list_without_names_and_digests_will_do(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", 4)
    content = json.loads((folder / "dataset.json").read_text())
    for part in ("training", "validation", "test"):
        content[part] = [{key: item[key] for key in ("image", "label")} for item in content.get(part, [])]
    del content["sha256"], content["name"]
    (folder / "dataset.json").write_text(json.dumps(content))

    found = read_pictures(folder)

    assert [picture.identity for picture in found.pictures] == [f"case_{index:03d}" for index in range(4)]
    assert found.name == "data"
    assert found.copies() == {}


def test_copies_are_found(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", 6, content=lambda index: str(index % 5))

    assert list(read_pictures(folder).copies().values()) == [["case_000", "case_005"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ("{}", "has no picture in training and validation; choose other parts"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DataError, match=message):
        read_pictures(tmp_path)


def test_names_must_be_unique_and_parts_known(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", 4)
    with pytest.raises(InputError, match="no part 'dev'; expected some of training, validation, test"):
        read_pictures(folder, parts=("dev",))

    content = json.loads((folder / "dataset.json").read_text())
    content["training"][1]["id"] = content["training"][0]["id"]
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="two pictures are called 'case_000'"):
        read_pictures(folder)


def test_a_data_set_is_found_by_folder_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make_dataset(tmp_path / "data" / "mine", 4)
    inside = make_dataset(tmp_path / "bundle" / "data" / "other", 4)
    monkeypatch.chdir(tmp_path)

    assert find_dataset(here, tmp_path / "bundle") == here
    assert find_dataset("data/mine", tmp_path / "bundle") == here
    assert find_dataset("mine", tmp_path / "bundle") == here
    assert find_dataset("other", tmp_path / "bundle") == inside
    with pytest.raises(DataError, match=r"data set 'nothing': no dataset\.json in nothing or data/nothing"):
        find_dataset("nothing", tmp_path / "bundle")
    with pytest.raises(DataError, match=r"no dataset\.json in no/where; make one"):
        find_dataset("no/where", tmp_path / "bundle")


def test_a_fold_is_a_data_set_that_copies_nothing(tmp_path: Path) -> None:
    folder = synthesize_dataset("lesion", tmp_path / "drawn", counts=(6, 2, 2), size=(32, 32))
    prepared = read_pictures(folder)
    split = make_folds(prepared.groups, folds=2, seed=0)[1]

    write_fold(tmp_path / "fold", prepared, split)

    assert [path.name for path in (tmp_path / "fold").iterdir()] == ["dataset.json"]
    assert verify_dataset(tmp_path / "fold") == 16
    parts = {"training": split.training, "validation": split.validation, "test": split.test}
    for part, names in parts.items():
        listed = load_datalist(tmp_path / "fold", part)
        assert [Path(item["image"]).stem for item in listed] == list(names)
        assert all(Path(item["label"]).is_relative_to(folder) for item in listed)


def test_a_file_of_an_evaluation_is_the_picture_whose_path_ends_so() -> None:
    pictures = [Picture("1", "/data/a/x.png", ""), Picture("2", "/data/b/x.png", ""), Picture("3", "/data/y.png", "")]

    assert match_file("y.png", pictures) == pictures[2]
    assert match_file("b/x.png", pictures) == pictures[1]
    assert match_file("x.png", pictures) is None
    assert match_file("z.png", pictures) is None


def test_variants_are_overlays_of_the_bundle(tmp_path: Path) -> None:
    configs = find_bundle(make_bundle(tmp_path / "bundle"))

    assert configs.names() == ["cse", "none", "ssr", "recipes/paper"]
    assert configs.variant("ssr").overlay == tmp_path / "bundle/configs/recalibration/ssr.json"
    assert configs.variant("recipes/paper").overlay == tmp_path / "bundle/configs/recipes/paper.json"
    assert configs.variant("recipes/paper").folder_name == "recipes-paper"
    assert configs.variant("default").overlay is None
    for name in ("srm", "recipes/none", "../../outside"):
        (tmp_path / "outside.json").write_text("{}")
        with pytest.raises(InputError, match="expected cse, none, ssr, recipes/paper, or default"):
            configs.variant(name)


def test_overlays_come_in_order_and_the_evaluation_last(tmp_path: Path) -> None:
    configs = find_bundle(make_bundle(tmp_path / "bundle")).having(["recipes/paper"], dataset="drawn")
    variant = configs.variant("ssr")

    names = ["train.json", "recipes/paper.json", "datasets/drawn.json", "recalibration/ssr.json", "evaluate.json"]
    assert configs.evaluation_files(variant) == [configs.root / "configs" / name for name in names]
    assert configs.training_files(variant) == configs.evaluation_files(variant)[:-1]
    assert find_bundle(tmp_path / "bundle").having([], dataset="unknown").overlays == ()
    with pytest.raises(InputError, match="no overlay 'recipes/other': expected cse"):
        configs.having(["recipes/other"], dataset="drawn")


def test_isic_2017_takes_the_overlay_of_isic_2018(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle")
    (root / "configs/datasets/isic2018.json").write_text("{}")

    assert [path.name for path in find_bundle(root).having([], dataset="isic2017").overlays] == ["isic2018.json"]


def test_a_command_is_a_list_whose_values_stay_whole(tmp_path: Path) -> None:
    configs = find_bundle(make_bundle(tmp_path / "bundle"))

    command = configs.command("training", [Path("a b.json")], {"key": "--x; rm $HOME", "other": "a=b"})

    assert command[1:7] == ["-m", "monai.bundle", "run", "training", "--config_file", "['a b.json']"]
    assert options_of(command) == {"bundle_root": str(configs.root), "key": "--x; rm $HOME", "other": "a=b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, "this bundle does not exist"),
        ("train.json", None, r"train\.json: cannot be read"),
        ("evaluate.json", "{", r"evaluate\.json: cannot be read"),
        ("train.json", "[]", "holds a list"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str | None, content: str | None, message: str
) -> None:
    root = tmp_path / "bundle"
    if name is not None:
        path = make_bundle(root) / "configs" / name
        path.unlink()
        if content is not None:
            path.write_text(content)

    with pytest.raises(ConfigError, match=message):
        find_bundle(root)
