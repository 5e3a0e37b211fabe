"""The main job through IMFF-Net's bundle: training, evaluation by both protocols, inference, and every overlay."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.inferers import SlidingWindowInferer
from PIL import Image
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

from msrf_monai.bundle import check_torchscript
from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.field_of_view import derive_field_of_view
from msrf_monai.networks import IMFFNet
from support.bundle_runs import IMFF, SMALL_IMFF, SMALL_IMFF_INFERENCE, MainJob, run_bundle

NARROW = [4, 4, 8, 8, 8]
PARAMETERS = {"full": 34_684_354, "half": 8_677_090, "quarter": 2_172_274, "eighth": 544_570}
# Ablation: levels with attention-pooling fusion, whether there is a side pyramid, number of shares that are learnt.
ABLATIONS = {
    "apf_on_all_skips": ({0, 1, 2, 3}, True, 0),
    "learnable_mixing": ({1}, True, 5),
    "no_apf": (set(), True, 0),
    "no_udff": ({1}, False, 0),
    "plain_unet": (set(), False, 0),
}
# One tiny epoch inside this process, where values need no shell; pictures and the state for a resume are left out.
TINY: dict[str, Any] = {
    "features": NARROW,
    "patch_size": [32, 32],
    "window_size": [48, 48],
    "crops_per_image": 1,
    "train_limit": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "device": "cpu",
    "train::handlers::10::_disabled_": True,
    "train::handlers::11::_disabled_": True,
    "validate::handlers::3::_disabled_": True,
}
HERE = {"features": [4, 8, 8], "window_size": [48, 48], "device": "cpu"}


def run_here(*configs: str, kind: str = "train", **overrides: Any) -> ConfigWorkflow:
    """Run configurations in this process."""
    workflow = ConfigWorkflow(
        config_file=[str(IMFF / "configs" / name) for name in configs],
        workflow_type=kind,
        logging_file=False,
        **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def train_here(*overlays: str, root: Path, data: Path, **overrides: Any) -> list[dict[str, float]]:
    """Train in this process and return the rows of the history."""
    run_here("train.json", *overlays, bundle_root=root, dataset_dir=data, **{**TINY, **overrides})
    rows: list[dict[str, float]] = json.loads((root / "eval" / "history.json").read_text())
    return rows


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return every tensor of a nested state by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {k: v for key, part in items for k, v in tensors(part, f"{name}/{key}").items()}


def weights_of(root: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(root / "models" / "model.pt", weights_only=True)
    return state


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_mask(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)) > 127


def said_by(job: MainJob, image: str, fov: np.ndarray, *, flips: bool = False) -> np.ndarray:
    """The probability (H, W) that the trained network gives inside a field of view, without the bundle."""
    network = IMFFNet(features=(4, 8, 8)).eval()
    network.load_state_dict(weights_of(job.root))
    values = np.asarray(Image.open(image).convert("RGB")).astype(np.float64)
    values = (values - values[fov].mean(axis=0)) / values[fov].std(axis=0) * fov[..., None]
    x = torch.from_numpy(values.transpose(2, 1, 0)[None]).float()  # MONAI's order: columns before rows
    window = SlidingWindowInferer((48, 48), overlap=0.25, mode="gaussian")
    passes = [(), (2,), (3,), (2, 3)] if flips else [()]
    with torch.no_grad():
        logits = torch.stack([torch.flip(window(torch.flip(x, axes), network), axes) for axes in passes]).mean(dim=0)
    return np.asarray(torch.sigmoid(logits)[0, 0].T) * fov


def pixels_of(job: MainJob, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of all pixels inside the fields of view of a part."""
    found = []
    for item in load_datalist(job.data, part):
        fov = read_mask(item["fov"])
        found.append((said_by(job, item["image"], fov)[fov], read_mask(item["label"])[fov]))
    said, true = (np.concatenate(each) for each in zip(*found, strict=True))
    return said, true


@pytest.fixture(scope="module")
def evaluated(imff_job: MainJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on the test part by one process, this one, with as many threads as the others have."""
    out = tmp_path_factory.mktemp("evaluated")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folders = {"bundle_root": imff_job.root, "dataset_dir": imff_job.data, "output_dir": out}
        run_here("train.json", "evaluate.json", **folders, **HERE)
    finally:
        torch.set_num_threads(threads)
    return out


def test_training_leaves_weights_pictures_and_a_record(imff_job: MainJob) -> None:
    assert all(isinstance(v, torch.Tensor) for v in weights_of(imff_job.root).values())
    run = imff_job.root / "eval"
    for picture in ("curves.png", "gallery.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) >= 300
    rows = table(run / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train_loss", "val_f1", "val_sensitivity", "val_mcc"} <= rows[0].keys()
    assert json.loads((run / "run.json").read_text())["seed"] == 42
    assert json.loads((imff_job.root / "models" / "model.json").read_text())["metric"] == "val_f1"


def test_resumed_training_ends_with_the_bits_of_one_without_a_stop(vessel_data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "train::handlers::11::_disabled_": False,
        "cldice_weight": 0.2,
        "cldice_after": 1,
        "lr_scheduler::t_total": 3,
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here(root=whole, data=vessel_data, max_epochs=3, **settings)
    train_here(root=parts, data=vessel_data, max_epochs=2, **settings)
    train_here(root=parts, data=vessel_data, max_epochs=3, resume=True, **settings)

    one, two = (
        tensors(torch.load(root / "models" / "state" / "training_state.pt", weights_only=True))
        for root in (whole, parts)
    )

    assert one.keys() == two.keys()
    assert [k for k, v in one.items() if not torch.equal(v, two[k])] == []


def test_the_threshold_is_that_of_the_validation_images_alone(imff_job: MainJob, evaluated: Path) -> None:
    said, true = pixels_of(imff_job, "validation")
    precision, recall, _ = precision_recall_curve(true, said)

    chosen = json.loads((evaluated / "threshold.json").read_text())

    assert chosen["images"] == 2
    assert chosen["pixels"] == "in the field of view"
    assert chosen["f1"] == pytest.approx(f1_score(true, said >= chosen["threshold"]), abs=2e-3)
    assert chosen["f1"] == pytest.approx((2 * precision * recall / (precision + recall + 1e-9)).max(), abs=5e-3)


def test_scores_of_the_test_images_are_those_of_scikit_learn(imff_job: MainJob, evaluated: Path) -> None:
    said, true = pixels_of(imff_job, "test")
    threshold = json.loads((evaluated / "threshold.json").read_text())["threshold"]

    summary = json.loads((evaluated / "summary.json").read_text())

    assert summary["images"] == 3
    assert summary["threshold"] == threshold
    pooled = summary["protocols"]["fov_chosen"]["pooled"]
    assert pooled["f1"] == pytest.approx(f1_score(true, said >= threshold), abs=2e-3)
    assert pooled["auc_roc"] == pytest.approx(roc_auc_score(true, said), abs=2e-3)
    assert summary["protocols"].keys() == {"fov_chosen", "fov_0.5", "fov_observer", "full_0.5", "full_observer"}


def test_the_report_has_a_row_for_each_image_and_protocol_and_a_picture_of_each(
    imff_job: MainJob, evaluated: Path
) -> None:
    names = {Path(item["image"]).stem for item in load_datalist(imff_job.data, "test")}
    cases = table(evaluated / "cases.csv")
    assert len(cases) == 3 * 5
    assert {Path(row["file"]).stem for row in cases} == names
    inside = {row["protocol"]: sum(int(row[n]) for n in ("tp", "fp", "fn", "tn")) for row in cases[:5]}
    fov = read_mask(load_datalist(imff_job.data, "test")[0]["fov"])
    assert inside["fov_chosen"] == fov.sum()
    assert inside["full_0.5"] == fov.size
    assert {row["protocol"] for row in table(evaluated / "tables.csv")} == {row["protocol"] for row in cases}
    assert {path.stem.removesuffix("_vessels") for path in (evaluated / "overlays").rglob("*.png")} == names
    for name in ("report.html", "reliability.png", "gallery.png", "run.json"):
        assert (evaluated / name).stat().st_size > 500


def test_two_processes_score_every_test_image_once(imff_job: MainJob, evaluated: Path, tmp_path: Path) -> None:
    overrides = {"bundle_root": imff_job.root, "dataset_dir": imff_job.data, "output_dir": tmp_path, **SMALL_IMFF}
    configs = ("train.json", "evaluate.json", "multi_gpu_evaluate.json")
    result = run_bundle("evaluating", *configs, bundle=IMFF, torchrun=2, **overrides)
    assert result.returncode == 0, result.stderr[-2000:]

    for name in ("cases.csv", "tables.csv"):
        assert (tmp_path / name).read_text() == (evaluated / name).read_text()
    one, two = (json.loads((folder / "threshold.json").read_text()) for folder in (evaluated, tmp_path))
    assert one == two


@pytest.mark.slow
def test_two_processes_train(vessel_data: Path, tmp_path: Path) -> None:
    overrides = {"bundle_root": tmp_path, "dataset_dir": vessel_data, "max_epochs": 1, **SMALL_IMFF}
    result = run_bundle("training", "train.json", "multi_gpu_train.json", bundle=IMFF, torchrun=2, **overrides)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "models" / "model.pt").is_file()


def test_inference_gives_a_mask_and_measures_of_each_image_in_its_own_size(imff_job: MainJob, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "ward").mkdir(parents=True)
    images = [item["image"] for item in load_datalist(imff_job.data, "test")]
    for k, name in enumerate(("a.png", "b.jpg", "ward/a.png", "c.tif", "d.ppm")):
        Image.open(images[k % len(images)]).convert("RGB").resize((80 + 10 * k, 60)).save(folder / name)
    Image.new("L", (1, 1), 90).save(folder / "one_pixel.png")
    Image.new("RGB", (40, 30)).save(folder / "black.png")

    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle=IMFF,
        bundle_root=imff_job.root,
        dataset_dir=folder,
        output_dir=out,
        tta=True,
        save_probabilities=True,
        save_overlays=True,
        **SMALL_IMFF_INFERENCE,
    )

    assert result.returncode == 0, result.stderr[-2000:]
    masks = [np.asarray(Image.open(path)) for path in sorted(out.rglob("*_seg.png"))]
    assert {mask.shape for mask in masks} == {(60, 80 + 10 * k) for k in range(5)} | {(1, 1), (30, 40)}
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    for pattern in ("*_prob.png", "*_overlay.jpg", "*_measures.json"):
        assert len(list(out.rglob(pattern))) == 7
    assert {row["measures"] for row in table(out / "measures.csv")} == {
        path.relative_to(out).as_posix() for path in out.rglob("*_measures.json")
    }


@pytest.mark.parametrize("tta", [False, True])
def test_inference_gives_the_probability_that_the_network_gives(imff_job: MainJob, tmp_path: Path, tta: bool) -> None:
    (tmp_path / "in").mkdir()
    source = Path(load_datalist(imff_job.data, "test")[0]["image"])
    shutil.copy(source, tmp_path / "in")
    fov = derive_field_of_view(np.asarray(Image.open(source)))

    folders = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    run_here(
        "inference.json",
        kind="infer",
        bundle_root=imff_job.root,
        **folders,
        **HERE,
        tta=tta,
        save_probabilities=True,
        save_measures=False,
    )

    (path,) = (tmp_path / "out").glob("*_prob.png")
    found = np.asarray(Image.open(path)).astype(np.float64) / 65535
    np.testing.assert_allclose(found, said_by(imff_job, str(source), fov, flips=tta), atol=1e-4)


@pytest.mark.parametrize(("source", "is_masked"), [("derived", True), ("derived", False), ("whole", True)])
def test_the_field_of_view_is_that_of_the_flags(
    imff_job: MainJob, tmp_path: Path, source: str, is_masked: bool
) -> None:
    (tmp_path / "in").mkdir()
    image = Path(load_datalist(imff_job.data, "test")[1]["image"])
    shutil.copy(image, tmp_path / "in")
    outside = ~derive_field_of_view(np.asarray(Image.open(image)))
    assert outside.any()

    run_here(
        "inference.json",
        kind="infer",
        bundle_root=imff_job.root,
        dataset_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        **HERE,
        fov_source=source,
        mask_outside=is_masked,
        threshold=0.01,
        pixel_spacing_um=10.0,
    )

    (mask,) = (read_mask(path) for path in (tmp_path / "out").glob("*_seg.png"))
    assert mask[outside].any() is np.bool_(source == "whole" or not is_masked)
    (report,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_measures.json"))
    area = outside.size if source == "whole" else int((~outside).sum())
    assert report["measures"]["fov_area_px"] == area
    assert report["measures"]["vessel_density"] == pytest.approx(
        (mask & (~outside if source == "derived" else True)).sum() / area
    )
    assert report["spacing_um"] == {"pixel_height": 10.0, "pixel_width": 10.0}


@pytest.mark.parametrize("width", sorted(PARAMETERS))
def test_every_width_trains(vessel_data: Path, tmp_path: Path, width: str) -> None:
    features = json.loads((IMFF / "configs" / "widths" / f"{width}.json").read_text())["features"]

    (row,) = train_here(f"widths/{width}.json", root=tmp_path, data=vessel_data, features=features, train_limit=2)

    assert np.isfinite(row["train_loss"])
    learnt = {k: v for k, v in weights_of(tmp_path).items() if "running_" not in k and "num_batches" not in k}
    assert sum(v.numel() for v in learnt.values()) == PARAMETERS[width]


def test_the_default_is_a_quarter_of_the_published_width() -> None:
    quarter = json.loads((IMFF / "configs" / "widths" / "quarter.json").read_text())
    for name in ("train", "inference"):
        assert json.loads((IMFF / "configs" / f"{name}.json").read_text())["features"] == quarter["features"]


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_every_ablation_trains_the_network_that_it_names(vessel_data: Path, tmp_path: Path, name: str) -> None:
    levels, has_pyramid, shares = ABLATIONS[name]

    (row,) = train_here(f"ablations/{name}.json", root=tmp_path, data=vessel_data)

    assert np.isfinite(row["train_loss"])
    weights = weights_of(tmp_path)
    assert {int(key.split(".")[1]) for key in weights if key.startswith("skips.")} == levels
    assert any(key.startswith("fusion.") for key in weights) is has_pyramid
    default = IMFFNet(features=NARROW).state_dict().keys()
    assert len([key for key, v in weights.items() if v.numel() == 1 and key not in default]) == shares


def test_every_ablation_is_tested() -> None:
    assert sorted(ABLATIONS) == sorted(path.stem for path in (IMFF / "configs" / "ablations").glob("*.json"))
    assert sorted(PARAMETERS) == sorted(path.stem for path in (IMFF / "configs" / "widths").glob("*.json"))


# the others are these with less
@pytest.mark.parametrize("name", ["apf_on_all_skips", "learnable_mixing", "plain_unet"])
def test_ablations_are_exported_by_script(tmp_path: Path, name: str) -> None:
    overlay = json.loads((IMFF / "configs" / "ablations" / f"{name}.json").read_text())
    overrides = {key.replace("#", "::"): value for key, value in overlay.items()}
    assert check_torchscript(IMFF, tmp_path, features=NARROW, **overrides) == []


def test_soft_cldice_joins_the_loss_after_the_epochs_that_are_asked_for(vessel_data: Path, tmp_path: Path) -> None:
    workflow = run_here(
        "train.json",
        bundle_root=tmp_path,
        dataset_dir=vessel_data,
        **{**TINY, "max_epochs": 4, "train_limit": 2, "cldice_weight": 0.3, "cldice_after": 1},
    )

    # 0 up to the first epoch, then by a fifth of the weight each epoch
    assert workflow.parser.get_parsed_content("loss").cldice_weight == pytest.approx(0.3 * 3 / 5)
    assert all(np.isfinite(row["train_loss"]) for row in json.loads((tmp_path / "eval" / "history.json").read_text()))


SQUASHED: dict[str, Any] = {"image_size": [48, 32], "patch_size": [48, 32], "window_size": [48, 32]}


def test_the_published_recipe_keeps_the_last_weights_and_its_rate(vessel_data: Path, tmp_path: Path) -> None:
    workflow = run_here(
        "train.json",
        "recipes/published.json",
        bundle_root=tmp_path,
        dataset_dir=vessel_data,
        **{**TINY, **SQUASHED, "max_epochs": 3},
    )

    rows = json.loads((tmp_path / "eval" / "history.json").read_text())
    assert {row["learning_rate"] for row in rows} == {1e-3}
    assert json.loads((tmp_path / "models" / "model.json").read_text())["epoch"] == 3
    item = workflow.parser.get_parsed_content("train#dataset")[0]
    assert item.keys() == {"image", "label"}
    assert item["image"].shape == (3, 48, 32)
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert ((item["label"] > 0) & (item["label"] < 1)).any()  # resized as published, not decided again
    network, average = (workflow.parser.get_parsed_content(name) for name in ("network", "validate#evaluator"))
    assert average.network is network

    # whichever order the overlays are named in, masks are scored at the size of the photographs
    overlays = ("recipes/published.json", "evaluate.json")
    for k, order in enumerate((overlays, overlays[::-1])):
        run_here(
            "train.json",
            *order,
            bundle_root=tmp_path,
            dataset_dir=vessel_data,
            output_dir=tmp_path / str(k),
            topology=False,
            features=NARROW,
            device="cpu",
            **SQUASHED,
        )
    cases = table(tmp_path / "0" / "cases.csv")
    assert cases == table(tmp_path / "1" / "cases.csv")
    full = [row for row in cases if row["protocol"] == "full_0.5"]
    assert [sum(int(row[n]) for n in ("tp", "fp", "fn", "tn")) for row in full] == [56 * 72] * 3

    (tmp_path / "in").mkdir()
    Image.open(load_datalist(vessel_data, "test")[0]["image"]).resize((90, 60)).save(tmp_path / "in" / "a.jpg")
    run_here(
        "inference.json",
        "recipes/published_inference.json",
        kind="infer",
        bundle_root=tmp_path,
        dataset_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        features=NARROW,
        device="cpu",
        **{key: value for key, value in SQUASHED.items() if key != "patch_size"},
    )
    assert read_mask(tmp_path / "out" / "a_seg.png").shape == (60, 90)


def test_weights_of_another_width_are_refused_in_one_line(imff_job: MainJob, tmp_path: Path) -> None:
    result = run_bundle(
        "evaluating",
        "inference.json",
        bundle=IMFF,
        bundle_root=imff_job.root,
        dataset_dir=imff_job.data / "images",
        output_dir=tmp_path,
        **{**SMALL_IMFF_INFERENCE, "features": "[4,8,16]"},
    )
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "model.pt" in line


@pytest.mark.realdata
def test_real_photographs_are_prepared_learnt_scored_and_segmented(data_root: Path, tmp_path: Path) -> None:
    source, data, root = tmp_path / "source", tmp_path / "data", tmp_path / "bundle"
    for path in sorted((data_root / "CHASE_DB1").glob("*/Image_*")):
        if path.stem[6:] in ("01L", "01R", "02L", "10L", "11R"):
            (source / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / path.parent.name)
    prepare_dataset("chase_db1", source, data, images="reference")

    sizes = {"features": [4, 8, 8], "window_size": [576, 576]}
    (row,) = train_here("datasets/chase_db1.json", root=root, data=data, **sizes)
    run_here(
        "train.json",
        "evaluate.json",
        bundle_root=root,
        dataset_dir=data,
        output_dir=tmp_path / "test",
        topology=False,
        device="cpu",
        **sizes,
    )
    (tmp_path / "in").mkdir()
    shutil.copy(source / "images" / "Image_11R.jpg", tmp_path / "in")
    folders = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
    run_here("inference.json", kind="infer", bundle_root=root, **folders, device="cpu", **sizes)

    assert np.isfinite(row["train_loss"])
    (case,) = (each for each in table(tmp_path / "test" / "cases.csv") if each["protocol"] == "fov_observer")
    assert case["file"].endswith("Image_11R.jpg")
    assert 0.6 < float(case["f1"]) < 0.95  # the second observer against the first
    assert read_mask(tmp_path / "out" / "Image_11R_seg.png").shape == (960, 999)


def test_readme_of_the_bundle_names_every_config() -> None:
    text = (IMFF / "docs" / "README.md").read_text()
    assert [p.name for p in (IMFF / "configs").rglob("*.json") if p.name not in text] == []
