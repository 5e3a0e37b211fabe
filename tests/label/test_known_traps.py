"""What goes wrong with MONAI Label 0.8.5 as it is, and does not with a server that our command starts."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.transforms import LoadImage2D
from support.bundle_runs import BUNDLES
from support.label_pictures import PICTURES
from support.label_server import run_in_label_environment

pytestmark = pytest.mark.label
MSRF = "msrf_net_polyp_segmentation"


def test_the_server_starts_where_no_network_is_reached_and_offers_no_foreign_model(studio):
    # its proxy is a port that nobody listens on, see NO_NETWORK in conftest.py
    models = studio.server.get("/info/").json()["models"]

    assert sorted(models) == sorted(bundle.folder_name for bundle in BUNDLES)
    assert "sam_2d" not in models


def test_every_kind_of_picture_in_the_folder_is_listed(studio):
    listed = studio.server.get("/datastore/", params={"output": "all"}).json()["objects"]

    present = [name for name in PICTURES if (studio.pictures / name).exists()]
    assert sorted(name + entry["image"]["ext"] for name, entry in listed.items()) == sorted(present)


def test_torchvision_is_imported_beside_a_torch_without_cuda():
    done = run_in_label_environment("-c", "import torchvision.utils as u, torchvision; print(torchvision.__version__)")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.28.0")


def test_a_batch_runs_on_the_cpu_although_several_gpus_are_asked_for(studio):
    # what QuPath and the page of the interface send by default
    asked = {"device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING", "save_label": True}

    answer = studio.server.post(f"/batch/infer/{MSRF}?run_sync=true", json={**asked, "label_tag": "original"})

    assert answer.status_code == 200, studio.server.said()[-2000:]
    present = [name for name in PICTURES if (studio.pictures / name).exists()]
    assert sorted(answer.json()) == sorted(name.partition(".")[0] for name in present)
    for name in present:
        kept = studio.pictures / "labels" / "original" / f"{name.partition('.')[0]}.png"
        assert studio.differing(np.asarray(Image.open(kept)), MSRF, name) == 0


def test_the_loaders_pass_their_own_tests_on_numpy_1_and_pydicom_2(tmp_path):
    for name in ("_pytest", "iniconfig", "packaging", "pluggy", "pygments", "pytest"):
        folder = Path(importlib.import_module(name).__file__).parent
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "py.py").symlink_to(Path(pytest.__file__).parents[1] / "py.py")
    program = (
        "import sys; sys.path.append(sys.argv.pop(1)); import numpy, pydicom, pytest; "
        "assert numpy.__version__ < '2' and pydicom.__version__ < '3'; sys.exit(pytest.main(sys.argv[1:]))"
    )
    files = ["tests/transforms/test_load.py", "tests/transforms/test_load_mask.py"]

    done = run_in_label_environment("-c", program, str(tmp_path), "-q", "-p", "no:cacheprovider", *files)

    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_dicom_photographs_and_radiographs_give_the_same_pixels_on_both_pydicoms(data_root):
    files = [str(path) for path in sorted((data_root / "dicom_samples").glob("*.dcm")) if "multiframe" not in path.name]
    program = (
        "import sys, hashlib; from msrf_monai.transforms import LoadImage2D; load = LoadImage2D()\n"
        "for name in sys.argv[1:]: print(hashlib.sha256(load(name).numpy().tobytes()).hexdigest())"
    )

    done = run_in_label_environment("-c", program, *files)

    load = LoadImage2D()
    here = [hashlib.sha256(load(name).numpy().tobytes()).hexdigest() for name in files]
    assert done.stdout.split() == here, done.stderr
    assert len(set(here)) > 3
