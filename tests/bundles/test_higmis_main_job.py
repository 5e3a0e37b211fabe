"""The main job through Hi-gMISnet's bundle: train four networks, resume, choose a fusion, evaluate, segment, export."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from PIL import Image

from msrf_monai.bundle import build_network, export_onnx, export_torchscript, largest_difference, onnx_runner, read_json
from msrf_monai.data import load_datalist, prepare_dataset, synthesize_dataset
from msrf_monai.engines import load_weights
from msrf_monai.errors import CheckpointError
from msrf_monai.networks import HiGMISNet
from support.bundle_runs import HIGMIS, SMALL_HIGMIS, SMALL_HIGMIS_INFERENCE, MainJob, run_bundle

CONFIGS = HIGMIS / "configs"
# Published sizes, (width, height) as MONAI has them.
PUBLISHED_SIZES = {
    "physionet_ich": [256, 256],
    "busi": [256, 256],
    "cvc_clinicdb": [384, 288],
    "monuseg": [512, 512],
    "glas": [512, 512],
    "isic2018": [128, 128],
    "drive": [512, 512],
    "montgomery": [256, 256],
    "promise12": [256, 256],
}


def run_here(*configs: str, root: Path, data: Path, **overrides: Any) -> Path:
    """Run configurations of the bundle in this process; return the folder of the results."""
    is_inference = "inference.json" in configs
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in configs],
        workflow_type="infer" if is_inference else "train",
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(data),
        **{**(SMALL_HIGMIS_INFERENCE if is_inference else SMALL_HIGMIS), **overrides},
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    return Path(workflow.parser.get_parsed_content("output_dir"))


def history(folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / "history.json").read_text())
    return rows


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return every tensor of a nested state by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {k: v for key, part in items for k, v in tensors(part, f"{name}/{key}").items()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn lesions, not square."""
    folder = tmp_path_factory.mktemp("higmis") / "drawn"
    synthesize_dataset("lesion", folder, counts=(4, 2, 2), size=(48, 64), seed=3)
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> MainJob:
    """Train for two epochs."""
    root = tmp_path_factory.mktemp("higmis_job")
    run_here("train.json", root=root, data=drawn, max_epochs=2)
    return MainJob(root, drawn, "")


@pytest.fixture(autouse=True)
def free_randomness() -> Iterator[None]:
    """Undo the seeds that a bundle sets for its own run."""
    yield
    set_determinism(None)


def test_training_leaves_the_pair_its_fusion_pictures_and_every_term(job: MainJob) -> None:
    weights = torch.load(job.root / "models" / "model.pt", weights_only=True)
    assert {name.partition(".")[0] for name in weights} == {"lesion", "background", "fusion_code"}
    record = json.loads((job.root / "models" / "model.json").read_text())
    network = HiGMISNet(features=4, backbones=())
    load_weights(network, job.root / "models" / "model.pt")
    assert network.fusion == record["fusion"]
    with Image.open(job.root / "eval" / "curves.png") as image:
        assert image.size[1] >= 1000  # three lines of panels
    rows = history(job.root / "eval")
    assert [row["epoch"] for row in rows] == [1, 2]
    best = rows[int(record["epoch"]) - 1]
    assert best["val_dice"] == best[f"val_dice_{record['fusion']}"] == pytest.approx(record["value"])
    groups = {name.split("_")[2] for name in best if name.startswith("train_loss_")}
    assert groups == {"lesion", "background", "reciprocal", "discriminator"}


def test_resumed_training_ends_with_the_bits_of_one_without_a_stop(job: MainJob, tmp_path: Path) -> None:
    run_here("train.json", root=tmp_path, data=job.data, max_epochs=1, **{"lr_scheduler::t_total": 2})
    run_here("train.json", root=tmp_path, data=job.data, max_epochs=2, resume=True)

    one, two = (
        tensors(torch.load(root / "models" / "state" / "training_state.pt", weights_only=True)["objects"])
        for root in (job.root, tmp_path)
    )

    assert one.keys() == two.keys()
    assert {name.split("/")[1] for name in one} >= {
        *("network", "optimizer", "lesion_discriminator", "background_discriminator", "discriminator_optimizer", "ema")
    }
    assert [k for k, v in one.items() if not torch.equal(v, two[k])] == []


def test_evaluation_uses_the_chosen_fusion_is_deterministic_and_divides_by_size(job: MainJob, tmp_path: Path) -> None:
    first, second, other = (
        run_here("train.json", "evaluate.json", root=job.root, data=job.data, output_dir=str(tmp_path / name), **more)
        for name, more in (("one", {}), ("two", {}), ("three", {"fusion": "lesion"}))
    )
    assert (first / "cases.csv").read_text() == (second / "cases.csv").read_text()
    cases = {Path(row["file"]).stem: row for row in table(first / "cases.csv")}
    network = HiGMISNet(features=4, backbones=()).eval()
    load_weights(network, job.root / "models" / "model.pt")
    for item in load_datalist(job.data, "test"):
        row = cases[Path(item["image"]).stem]
        picture = Image.open(item["image"]).convert("RGB").resize((40, 32), Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 1, 0)[None] / 255
        with torch.no_grad():
            area = int((network(image) >= 0.5).sum())
        assert int(row["pred_area_px"]) == pytest.approx(area, abs=40 * 32 * 0.02)  # Pillow's and our Lanczos differ
    sizes = table(first / "by_target_size.csv")
    assert sum(int(row["images"]) for row in sizes) == 2
    lesion = [int(row["pred_area_px"]) for row in table(other / "cases.csv")]
    chosen = [int(row["pred_area_px"]) for row in table(first / "cases.csv")]
    assert network.fusion == "lesion" or lesion != chosen


def test_inference_gives_a_mask_of_each_image_in_its_own_size(job: MainJob, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k, item in enumerate(load_datalist(job.data, "test")):
        Image.open(item["image"]).convert("L" if k else "RGB").resize((71 + k, 53)).save(folder / f"{k}.png")

    out = run_here(
        "inference.json", root=job.root, data=folder, output_dir=str(tmp_path / "out"), save_probabilities=True
    )

    masks = [np.asarray(Image.open(path)) for path in sorted(out.rglob("*_seg.png"))]
    assert [mask.shape for mask in masks] == [(53, 71), (53, 72)]
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    assert len(list(out.rglob("*_prob.png"))) == 2


@pytest.mark.parametrize("name", sorted(PUBLISHED_SIZES))
def test_data_set_has_its_published_size_and_trains(drawn: Path, tmp_path: Path, name: str) -> None:
    overlay = read_json(CONFIGS / "datasets" / f"{name}.json")
    assert overlay["image_size"] == overlay["patch_size"] == PUBLISHED_SIZES[name]
    out = run_here("train.json", f"datasets/{name}.json", root=tmp_path, data=drawn, train_limit=2, val_limit=1)
    (row,) = history(out)
    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_dice"] <= 1


def test_every_data_set_of_the_article_has_an_overlay() -> None:
    assert {path.stem for path in (CONFIGS / "datasets").glob("*.json")} == set(PUBLISHED_SIZES)


def test_small_size_is_what_its_name_says(drawn: Path, tmp_path: Path) -> None:
    small = {**SMALL_HIGMIS}
    for key in ("features", "backbones", "discriminator_channels", "learning_rate"):
        small.pop(key)
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in ("train.json", "sizes/small.json")],
        workflow_type="train",
        logging_file=False,
        bundle_root=str(tmp_path),
        dataset_dir=str(drawn),
        train_limit=2,
        val_limit=1,
        **small,
    )
    workflow.initialize()
    workflow.run()
    network = workflow.parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.lesion.parameters()) == 2_528_492
    assert np.isfinite(history(tmp_path / "eval")[0]["train_loss"])


def test_published_recipe_monitors_the_better_of_and_and_or_and_lets_nothing_couple(
    drawn: Path, tmp_path: Path
) -> None:
    out = run_here("train.json", "recipes/published.json", root=tmp_path, data=drawn, image_size=[32, 32])
    (row,) = history(out)
    assert row["val_iou"] == max(row["val_iou_and"], row["val_iou_or"])
    assert {"val_iou_mean", "val_iou_lesion"}.isdisjoint(row)
    assert not any("reciprocal" in name for name in row)
    assert row["learning_rate"] == 0.005  # the override's, not halved yet
    assert json.loads((tmp_path / "models" / "model.json").read_text())["fusion"] in ("and", "or")


def test_odd_sizes_and_a_fixed_fusion(drawn: Path, tmp_path: Path) -> None:
    odd = {"image_size": [45, 37], "patch_size": [45, 37], "fusion": "or", "train_limit": 2, "val_limit": 1}
    out = run_here("train.json", root=tmp_path, data=drawn, **odd)
    (row,) = history(out)
    assert [name for name in row if name.startswith("val_dice_")] == ["val_dice_or"]
    assert json.loads((tmp_path / "models" / "model.json").read_text())["fusion"] == "or"


def test_one_network_learns_a_pool_and_is_tested_on_each_data_set(drawn: Path, tmp_path: Path) -> None:
    synthesize_dataset("nuclei", tmp_path / "nuclei", counts=(2, 1, 1), size=(40, 56), seed=4)
    pool = {"datasets": {"lesions": str(drawn), "nuclei": str(tmp_path / "nuclei")}, "samples_per_epoch": 4}
    run_here("train.json", "multi_domain.json", root=tmp_path, data=drawn, **pool)
    out = run_here("train.json", "evaluate.json", "multi_domain.json", root=tmp_path, data=drawn, **pool)
    rows = {row["dataset"]: row for row in table(out / "by_dataset.csv")}
    assert {name: row["images"] for name, row in rows.items()} == {"lesions": "2", "nuclei": "1"}
    assert all(0 <= float(row["dice"]) <= 1 for row in rows.values())


def test_dropout_in_evaluation_is_an_option_of_the_bundle() -> None:
    image = torch.rand(1, 3, 32, 32)
    network, sampled = (
        build_network(HIGMIS, features=4, backbones=[], mc_samples=samples, fusion="mean") for samples in (0, 2)
    )
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        assert not torch.equal(sampled(image), sampled(image))


def test_digest_of_trunk_weights_is_asked_for(tmp_path: Path, drawn: Path) -> None:
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"not these")
    options = {"backbones": ["vgg16"], "vgg_weights": str(path), "vgg_sha256": "0" * 64}
    with pytest.raises(Exception, match="verified_file") as raised:
        run_here("train.json", root=tmp_path, data=drawn, **options)
    cause: BaseException | None = raised.value
    while cause is not None and not isinstance(cause, CheckpointError):
        cause = cause.__cause__
    assert "is not the expected file" in str(cause)


def exported(job: MainJob) -> tuple[HiGMISNet, dict[str, Any]]:
    network = build_network(HIGMIS, features=4, backbones=[])
    assert isinstance(network, HiGMISNet)
    load_weights(network, job.root / "models" / "model.pt")
    return network, {"features": 4, "backbones": []}


SHAPES = [(1, 3, 64, 96), (2, 3, 72, 56)]


def test_pair_becomes_one_torchscript_module_with_the_chosen_fusion(job: MainJob, tmp_path: Path) -> None:
    network, options = exported(job)
    path = export_torchscript(HIGMIS, tmp_path / "m.ts", checkpoint=job.root / "models" / "model.pt", **options)
    script = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    assert largest_difference(network, script, SHAPES) < 1e-3
    assert int(script.fusion_code) == int(network.fusion_code)


@pytest.mark.extended
def test_pair_becomes_one_onnx_module(job: MainJob, tmp_path: Path) -> None:
    network, options = exported(job)
    path = export_onnx(HIGMIS, tmp_path / "m.onnx", checkpoint=job.root / "models" / "model.pt", **options)
    assert largest_difference(network, onnx_runner(path), SHAPES) < 1e-3


@pytest.mark.extended
def test_two_processes_train_and_score_every_test_image_once(job: MainJob, tmp_path: Path) -> None:
    words = {key: str(value).replace(" ", "") for key, value in SMALL_HIGMIS.items() if key != "device"}
    common = {"bundle": HIGMIS, "bundle_root": tmp_path, "dataset_dir": job.data, **words}
    trained = run_bundle("training", "train.json", "multi_gpu_train.json", torchrun=2, **{**common, "batch_size": 1})
    assert trained.returncode == 0, trained.stderr[-3000:]
    configs = ["train.json", "evaluate.json"]
    single = run_bundle("evaluating", *configs, output_dir=tmp_path / "one", **common)
    double = run_bundle(
        "evaluating", *configs, "multi_gpu_evaluate.json", torchrun=2, output_dir=tmp_path / "two", **common
    )
    assert single.returncode == 0, single.stderr[-2000:]
    assert double.returncode == 0, double.stderr[-2000:]
    assert (tmp_path / "one" / "cases.csv").read_text() == (tmp_path / "two" / "cases.csv").read_text()


@pytest.mark.realdata
def test_real_ultrasound_is_prepared_and_learnt(data_root: Path, tmp_path: Path) -> None:
    import shutil

    source, data = tmp_path / "source", tmp_path / "data"
    for kind in ("images", "masks"):
        (source / kind).mkdir(parents=True)
        for path in sorted((data_root / "BUSI" / kind).iterdir())[:60:6]:
            shutil.copy(path, source / kind)
    prepare_dataset("busi", source, data, split="random", images="reference")

    (row,) = history(run_here("train.json", "datasets/busi.json", root=tmp_path / "bundle", data=data))

    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_dice"] <= 1


def test_readme_of_the_bundle_names_every_config() -> None:
    text = (HIGMIS / "docs" / "README.md").read_text()
    assert [p.name for p in CONFIGS.rglob("*.json") if p.name not in text] == []
