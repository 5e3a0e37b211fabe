"""A real bundle from end to end, by the program itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.ledger import read_manifest
from support.dicom_files import as_bytes, image_dataset

BUNDLE = "bundles/msrf_net_polyp_segmentation"


@pytest.mark.slow
def test_a_real_bundle_from_end_to_end(repository: Path, tmp_path: Path) -> None:
    """A network of tiny width with weights of its own, through the program in a process of its own."""
    import torch

    from msrf_monai.networks import MSRFNet

    torch.manual_seed(3)
    network = MSRFNet(spatial_dims=2, in_channels=3, out_channels=1, features=8)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    generator = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    Image.fromarray(generator.integers(0, 255, (48, 80, 3), dtype=np.uint8)).save(tmp_path / "in" / "photo.png")
    colour = generator.integers(0, 255, (50, 70, 3), dtype=np.uint8)
    (tmp_path / "in" / "DOE.dcm").write_bytes(as_bytes(image_dataset(colour, PatientName="DOE^JOHN")))
    command = [sys.executable, "-m", "msrf_monai.cli.main", "predict", str(repository / BUNDLE), str(tmp_path / "in")]
    command += ["--output", str(tmp_path / "out"), "--weights", str(tmp_path / "model.pt"), "--threads", "1", "--json"]
    command += ["--set", "network_def::features=8", "--set", "image_size=[64,64]", "--set", "patch_size=[64,64]"]

    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    again = subprocess.run([*command, "--device", "cpu", "--resume"], capture_output=True, text=True)

    assert done.returncode in (0, 3), done.stderr
    found = json.loads(done.stdout)
    assert (found["done"], found["failed"]) == (2, 0)
    assert json.loads(again.stdout)["kept"] == 2
    entries = {entry.input.partition("-")[0]: entry for entry in read_manifest(tmp_path / "out").entries}
    assert {output.kind for output in entries["photo.png"].outputs} == {"mask", "stats", "thumbnail"}
    assert {output.kind for output in entries["dicom"].outputs} == {"mask", "seg", "stats", "thumbnail"}
    with Image.open(next((tmp_path / "out").glob("photo-*/mask.png"))) as mask:
        assert mask.size == (80, 48)
    assert "DOE" not in done.stdout + done.stderr
