"""The commands of ``msrf-monai data``, through typer's own runner."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from msrf_monai.cli import data as data_commands
from msrf_monai.cli.data import app
from msrf_monai.data import CATALOGUE, load_datalist
from msrf_monai.errors import DataError
from support.volume_files import mask_values, save_nifti, scan_values

Runner = Callable[..., str]


@pytest.fixture
def invoke() -> Runner:
    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 255, (9, 14, 3), dtype=np.uint8)).save(tmp_path / f"source/images/{index}.png")
        Image.fromarray(np.eye(9, 14, dtype=np.uint8) * 255).save(tmp_path / f"source/masks/{index}.png")
    return tmp_path / "source"


def test_list_shows_every_data_set_with_licence_and_folders(invoke: Runner) -> None:
    shown = invoke("list")

    for info in CATALOGUE.values():
        assert f"{info.name}: {info.title}" in shown
        assert info.licence in shown
    assert "grouped by: video sequence" in shown
    assert "splits: 20_8, 8_20, random" in shown


def test_prepare_says_where_the_data_set_is_and_what_comes_next(invoke: Runner, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    shown = invoke("prepare", "kvasir_seg", "--source", source, "--out", out, "--folds", 2, "--images", "reference")

    assert "note: 10 pictures (all) are here, the official number is 1000" in shown
    assert f"random split: 8 training, 1 validation, 1 test pictures, 2 folds in {out}" in shown
    assert "next: python -m monai.bundle run training" in shown
    assert shown.rstrip().endswith(f"--dataset_dir {out}")
    assert len(load_datalist(out, "training")) == 8


def command(shown: str) -> list[str]:
    line = next(line for line in shown.splitlines() if line.startswith("next: "))
    return shlex.split(line.removeprefix("next: "))


@pytest.mark.parametrize("name", ["kvasir_seg", "isic2017", "busi", "paired"])
def test_the_next_command_survives_a_shell_and_names_files_that_exist(
    invoke: Runner, source: Path, tmp_path: Path, repository: Path, name: str
) -> None:
    out = tmp_path / "my data; it's (new)"

    words = command(invoke("prepare", name, "--source", source, "--out", out))

    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "training"]
    assert options["--dataset_dir"] == str(out)
    assert (repository / options["--bundle_root"]).is_dir()
    configs = re.findall(r"[\w/]+\.json", options["--config_file"])
    overlay = {"kvasir_seg": ["kvasir_seg.json"], "isic2017": ["isic2018.json"], "busi": ["busi.json"], "paired": []}[
        name
    ]
    assert [Path(config).name for config in configs] == ["train.json", *overlay]
    assert all((repository / config).is_file() for config in configs)


def test_every_overlay_that_is_shown_exists_and_none_is_forgotten(repository: Path) -> None:
    shown = {repository / b / "configs" / "datasets" / f"{name}.json" for b, name in data_commands._OVERLAYS.values()}

    assert [path for path in shown if not path.is_file()] == []
    overlays = {path.stem for path in (repository / "bundles").glob("*/configs/datasets/*.json")}
    assert overlays == {path.stem for path in shown}
    assert data_commands._OVERLAYS.keys() <= CATALOGUE.keys()


def test_prepare_passes_strict_and_overwrite_on(invoke: Runner, source: Path, tmp_path: Path) -> None:
    arguments = ("prepare", "kvasir_seg", "--source", source, "--out", tmp_path / "out")
    invoke(*arguments)

    with pytest.raises(DataError, match="is not empty"):
        invoke(*arguments)
    with pytest.raises(DataError, match="the official number is 1000"):
        invoke(*arguments, "--overwrite", "--strict")
    assert "0 folds" not in invoke(*arguments, "--overwrite", "--folds", 0)


def test_prepare_takes_classes_that_are_left_out_when_asked(invoke: Runner, source: Path, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        for index in range(10):
            kind = "normal" if index > 7 else "benign"
            (source / folder / f"{index}.png").rename(source / folder / f"{kind}_{index}.png")
    arguments = ("prepare", "busi", "--source", source, "--out", tmp_path / "out")

    assert "note: 2 normal pictures were left out; include 'normal' to take them" in invoke(*arguments)
    assert "2 pictures (normal) are here" in invoke(*arguments, "--overwrite", "--include", "normal")


def test_synthesize_then_verify(invoke: Runner, tmp_path: Path) -> None:
    out = tmp_path / "drawn"

    shown = invoke("synthesize", "nuclei", "--out", out, "-n", "3,1,1", "--size", "32X48", "--seed", 4)

    assert f"nuclei: 3 training, 1 validation, 1 test pictures in {out}" in shown
    assert Image.open(load_datalist(out, "test")[0]["image"]).size == (48, 32)
    assert f"{out}: 10 files are as they were prepared" in invoke("verify", out)


def test_drawn_vessels_lead_to_the_bundle_of_vessels(invoke: Runner, tmp_path: Path, repository: Path) -> None:
    words = command(invoke("synthesize", "vessels", "--out", tmp_path / "drawn", "-n", "2,1,1", "--size", "32x40"))

    assert words[words.index("--bundle_root") + 1] == "bundles/imff_net_retinal_vessel_segmentation"
    assert (repository / words[words.index("--config_file") + 1]).is_file()


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "64"), ("--size", "64xwide"), ("-n", "3,1"), ("--count", "a,b,c")]
)
def test_numbers_that_cannot_be_read_are_wrong_use(invoke: Runner, tmp_path: Path, option: str, value: str) -> None:
    shown = invoke("synthesize", "lesion", "--out", tmp_path / "x", option, value, code=2)

    assert "expected" in shown
    assert not (tmp_path / "x").exists()


def test_a_bar_is_shown_when_it_takes_long(
    invoke: Runner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msrf_monai.cli.data._BAR_DELAY_S", 0.0)

    shown = invoke("prepare", "paired", "--source", source, "--out", tmp_path / "out")

    assert "checking: " in shown


def test_prepare_passes_window_and_depth_on(invoke: Runner, tmp_path: Path) -> None:
    for patient in (49, 50, 51):
        save_nifti(tmp_path / "s/ct_scans" / f"{patient:03d}.nii", scan_values(patient))
        save_nifti(tmp_path / "s/masks" / f"{patient:03d}.nii", mask_values())
    arguments = ("prepare", "physionet_ich", "--source", tmp_path / "s", "--out", tmp_path / "out")

    shown = invoke(*arguments, "--window", "50,100", "--bits", 16)

    assert "6 slices of 3 volumes were written as 16-bit PNG, window 0 to 100 HU (level 50, width 100)" in shown
