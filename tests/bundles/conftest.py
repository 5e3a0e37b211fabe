"""Each bundle's main job, done once for all tests of this session: training, evaluation and inference."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.utils import set_determinism
from PIL import Image

from msrf_monai.data import load_datalist, synthesize_dataset
from support.bundle_runs import (
    HIGMIS,
    IMFF,
    MSRF,
    SSR,
    Bundle,
    Evaluate,
    MainJob,
    Segment,
    Train,
    finished,
    run_bundle,
)

# Images to segment: name, mode and size, (width, height).
IMAGES = {
    "a.png": ("RGB", (80, 60)),
    "b.jpg": ("RGB", (90, 60)),
    "ward/a.png": ("RGB", (100, 60)),
    "c.tif": ("RGB", (110, 60)),
    "d.ppm": ("RGB", (120, 60)),
    "grey.png": ("L", (71, 53)),
}


@pytest.fixture(autouse=True)
def free_randomness() -> Iterator[None]:
    """Undo the seeds that a bundle sets for its own run."""
    yield
    set_determinism(None)


@pytest.fixture(scope="session")
def lesion_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images with lesions, not square; three to test, which two processes cannot share alike."""
    folder = tmp_path_factory.mktemp("drawn") / "lesions"
    synthesize_dataset("lesion", folder, counts=(8, 2, 3), size=(64, 96), seed=3)
    return folder


@pytest.fixture(scope="session")
def few_lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few drawn images with lesions as a job can do with, not square."""
    folder = tmp_path_factory.mktemp("drawn") / "few"
    synthesize_dataset("lesion", folder, counts=(4, 2, 2), size=(48, 64), seed=3)
    return folder


@pytest.fixture(scope="session")
def vessel_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn retinas with fields of view, not square; a second observer saw the test images as the first saw others."""
    folder = tmp_path_factory.mktemp("drawn") / "vessels"
    synthesize_dataset("vessels", folder, counts=(6, 2, 3), size=(56, 72), seed=3)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "labels2").mkdir()
    for item, other in zip(content["test"], content["training"], strict=False):
        item["label2"] = item["label"].replace("labels/", "labels2/")
        shutil.copy(folder / other["label"], folder / item["label2"])
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, lesion_data: Path, vessel_data: Path) -> Train:
    """Train a bundle for two epochs, in a process of its own, when a test asks for it first."""

    @functools.cache
    def train(bundle: Bundle) -> MainJob:
        root = tmp_path_factory.mktemp(f"{bundle.name}_job")
        data = {"lesions": lesion_data, "vessels": vessel_data}[bundle.data]
        overrides = {"bundle_root": root, "dataset_dir": data, "max_epochs": 2}
        small = {**bundle.small("train.json"), **bundle.first_training}
        finished(run_bundle(bundle, "training", "train.json", **overrides, **small))
        return MainJob(bundle, root, data)

    return train


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Evaluate a trained bundle on its test images, in a process of its own; return the folder of the report."""

    @functools.cache
    def evaluate(job: MainJob) -> Path:
        bundle, out = job.bundle, tmp_path_factory.mktemp(f"{job.bundle.name}_evaluated")
        folders = {"bundle_root": job.root, "dataset_dir": job.data, "output_dir": out}
        configs = ("train.json", "evaluate.json")
        finished(run_bundle(bundle, "evaluating", *configs, **folders, **bundle.small(*configs)))
        return out

    return evaluate


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    """Segment images of many kinds and sizes, in a process of its own; return their folder and that of the masks."""

    @functools.cache
    def segment(job: MainJob) -> tuple[Path, Path]:
        bundle, root = job.bundle, tmp_path_factory.mktemp(f"{job.bundle.name}_segmented")
        images = draw_images(root / "in", job)
        folders = {"bundle_root": job.root, "dataset_dir": images, "output_dir": root / "out"}
        files = {"save_probabilities": True, "save_overlays": True}
        small = {**bundle.small("inference.json"), **bundle.inference}
        finished(run_bundle(bundle, "evaluating", "inference.json", **folders, **files, **small))
        return images, root / "out"

    return segment


def draw_images(folder: Path, job: MainJob) -> Path:
    """Write images of many kinds and sizes, the smallest and a very wide one among them."""
    (folder / "ward").mkdir(parents=True)
    sources = [item["image"] for item in load_datalist(job.data, "test")]
    for k, (name, (mode, size)) in enumerate(IMAGES.items()):
        Image.open(sources[k % len(sources)]).convert(mode).resize(size).save(folder / name)
    Image.new("L", (1, 1), 90).save(folder / "one_pixel.png")
    Image.new("RGB", (40, 30)).save(folder / "black.png")
    Image.new("RGBA", (job.bundle.widest, 8), (180, 90, 90, 255)).save(folder / "wide.png")
    return folder


@pytest.fixture(scope="session")
def msrf_job(trained: Train) -> MainJob:
    """MSRF-Net's bundle, trained."""
    return trained(MSRF)


@pytest.fixture(scope="session")
def ssr_job(trained: Train) -> MainJob:
    """SSR-U-Net's bundle, trained."""
    return trained(SSR)


@pytest.fixture(scope="session")
def imff_job(trained: Train) -> MainJob:
    """IMFF-Net's bundle, trained."""
    return trained(IMFF)


@pytest.fixture(scope="session")
def higmis_job(trained: Train) -> MainJob:
    """Hi-gMISnet's bundle, trained."""
    return trained(HIGMIS)
