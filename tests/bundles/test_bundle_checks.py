"""The model zoo's checks that run offline, on every bundle of the repository.

Export to ONNX takes long: the commands of the READMEs do it, and ``test_readme_commands.py`` compares the networks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msrf_monai import bundle as checks

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
# Overlays that work with every configuration of their bundle; recipes, which are for training, or for inference where
# their name says so.
ANYWHERE, RECIPES = ("datasets", "recalibration", "widths", "sizes", "ablations"), "recipes"
# At its published size Hi-gMISnet has 136 million parameters: these checks take it narrow and without trunks.
OF_A_SIZE_TO_TEST: dict[str, dict[str, Any]] = {
    "higmisnet_breast_ultrasound_segmentation": {"network_def::features": 4, "network_def::backbones": []}
}
OVERLAYS = [
    pytest.param(bundle, overlay, id=f"{bundle.name}-{overlay.parent.name}-{overlay.stem}")
    for bundle in BUNDLES
    for overlay in sorted((bundle / "configs").glob("*/*.json"))
]


each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def problems_of(bundle: Path, configs: list[str], data: Path, work_dir: Path) -> list[str]:
    """Open the workflow that configurations make; return what is missing or breaks."""
    is_inference = "inference.json" in configs
    return checks.check_workflow(
        bundle,
        configs,
        "infer" if is_inference else "train",
        dataset_dir=str(data / "images" if is_inference else data),
        output_dir=str(work_dir / "out"),
        device="cpu",
        **OF_A_SIZE_TO_TEST.get(bundle.name, {}),
    )


@each_bundle
def test_files_are_complete_and_small(bundle: Path) -> None:
    assert checks.check_files(bundle) == []


@each_bundle
def test_weights_are_there_or_said_to_be_missing(bundle: Path) -> None:
    assert checks.check_weights(bundle) == []


@each_bundle
def test_metadata_holds_what_zoo_and_label_read(bundle: Path) -> None:
    assert checks.check_metadata(bundle) == []


@each_bundle
def test_metadata_validates_against_the_schema_of_monai(bundle: Path) -> None:
    schema = ROOT.parent / "shared" / "recipes" / "bundle" / "schema" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip("MONAI's metadata schema is not beside the checkout (shared/recipes/bundle/schema)")
    assert checks.check_schema(bundle, json.loads(schema.read_text())) == []


@each_bundle
def test_stated_versions_are_the_tested_ones(bundle: Path) -> None:
    assert checks.check_versions(bundle, ROOT / "constraints.txt") == []


@each_bundle
def test_configs_keep_the_static_rules(bundle: Path) -> None:
    assert checks.lint_bundle(bundle) == []


@each_bundle
def test_network_matches_the_metadata(bundle: Path) -> None:
    assert checks.check_network(bundle, **OF_A_SIZE_TO_TEST.get(bundle.name, {})) == []


@each_bundle
def test_torchscript_export_equals_eager(bundle: Path, tmp_path: Path) -> None:
    assert checks.check_torchscript(bundle, tmp_path, **OF_A_SIZE_TO_TEST.get(bundle.name, {})) == []


@pytest.mark.parametrize(
    "configs",
    [["train.json"], ["train.json", "evaluate.json"], ["inference.json"]],
    ids=["train", "evaluate", "inference"],
)
@each_bundle
def test_workflow_initialises_with_all_properties(
    bundle: Path, few_lesions: Path, tmp_path: Path, configs: list[str]
) -> None:
    assert problems_of(bundle, configs, few_lesions, tmp_path) == []


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_overlay_initialises_with_all_properties(
    bundle: Path, overlay: Path, few_lesions: Path, tmp_path: Path
) -> None:
    assert overlay.parent.name in (*ANYWHERE, RECIPES)
    bases = ["train.json", "inference.json"]
    if overlay.parent.name == RECIPES:
        bases = ["inference.json"] if overlay.stem.endswith("_inference") else ["train.json"]
    for base in bases:
        assert problems_of(bundle, [base, f"{overlay.parent.name}/{overlay.name}"], few_lesions, tmp_path) == []
