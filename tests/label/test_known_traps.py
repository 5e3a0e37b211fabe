"""What goes wrong with MONAI Label 0.8.5 as it is, and does not with a server that our command starts."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest
import requests
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


@pytest.mark.parametrize(
    ("path", "name", "field"),
    [
        ("image?image=../app/stock", "x.png", "file"),
        ("image?image=/outside", "x.png", "file"),
        ("image?image=..", "x.png", "file"),
        ("image?image=datastore_v2", "x.json", "file"),
        ("label?image=colour&tag=../../app/lib", "x.png", "label"),
        ("label?image=colour&tag=/tmp", "x.png", "label"),
        ("label?image=../colour&tag=final", "x.png", "label"),
    ],
    ids=["folder", "absolute", "dots", "configuration", "tag", "absolute tag", "id of a label"],
)
def test_no_request_writes_outside_the_folder_of_images(studio, path, name, field):
    before = files_below(studio.pictures.parent)

    answer = studio.server.put(f"/datastore/{path}", files={field: (name, b"not for here")})

    assert answer.status_code == 400
    assert "expected" in answer.json()["detail"]
    assert files_below(studio.pictures.parent) == before


@pytest.mark.parametrize("origin", ["http://pages.example", "null"])
def test_pages_of_other_addresses_get_no_leave_to_write_or_to_read(studio, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}

    before_writing = requests.options(f"{studio.server.url}/datastore/image", headers=asked, timeout=60)
    reading = studio.server.get("/info/", headers=asked)
    form = studio.server.post(f"/infer/{MSRF}?image=colour", headers=asked, data={"params": "{}"})

    for answer in (before_writing, reading, form):
        assert answer.status_code == 403
        assert "another address" in answer.json()["detail"]
        assert "access-control-allow-origin" not in answer.headers


def test_pages_of_the_server_itself_may_ask(studio):
    assert studio.server.get("/info/", headers={"Origin": studio.server.url}).status_code == 200


def test_authentication_of_monai_label_refuses_a_token_that_is_right():
    # once this fails, MONAI Label's own login works: mend docs/monai-label.md and the warning of the start
    program = """
import jwt, time
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa
from monailabel.endpoints.user import auth
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode()
token = jwt.encode({"preferred_username": "anna", "exp": time.time() + 600}, key, algorithm="RS256")
print(jwt.decode(token, public, algorithms=["RS256"])["preferred_username"])
auth.get_public_key = lambda realm: public
auth.settings.MONAI_LABEL_AUTH_ENABLE = True
try:
    auth.from_token(token)
except jwt.InvalidTokenError as error:
    print(type(error).__name__)
"""
    done = run_in_label_environment("-c", program)

    assert done.stdout.split() == ["anna", "DecodeError"], done.stderr


def files_below(folder: Path) -> set[str]:
    """Return what there is, without the server's log."""
    return {str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
