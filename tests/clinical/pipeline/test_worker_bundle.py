"""A real bundle in worker processes and in Ray, by the program itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.clinical_runs import result_bytes
from support.dicom_files import as_bytes, image_dataset, pattern

BUNDLE = "bundles/msrf_net_polyp_segmentation"


@pytest.mark.slow
def test_a_real_bundle_gives_the_same_bytes_in_workers_and_actors(repository: Path, tmp_path: Path) -> None:
    """A network of tiny width with weights of its own; one that does not fit is refused with the loader's sentence."""
    import torch

    from msrf_monai.networks import MSRFNet

    torch.manual_seed(3)
    network = MSRFNet(spatial_dims=2, in_channels=3, out_channels=1, features=8)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    (tmp_path / "in").mkdir()
    for number in range(6):
        dataset = image_dataset(pattern(50, 70, samples=3, peak=150 + 10 * number))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (tmp_path / "in" / f"{number}.dcm").write_bytes(as_bytes(dataset))
    command = [sys.executable, "-m", "msrf_monai.cli.main", "predict", str(repository / BUNDLE), str(tmp_path / "in")]
    command += ["--weights", str(tmp_path / "model.pt"), "--threads", "1", "--json", "--device", "cpu"]
    command += ["--set", "network_def::features=8", "--set", "image_size=[64,64]", "--set", "patch_size=[64,64]"]

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, "--output", str(tmp_path / name), *words], capture_output=True, text=True)

    here, there = run("here"), run("there", "--num-workers", "2")
    cluster = run("cluster", "--num-workers", "1", "--engine", "ray")
    wrong = run("wrong", "--num-workers", "1", "--set", "network_def::features=4")

    counted = [json.loads(done.stdout)["done"] for done in (here, there, cluster)]
    assert counted == [6, 6, 6], there.stderr + cluster.stderr
    expected = result_bytes(tmp_path / "here")
    for name in ("there", "cluster"):
        found = result_bytes(tmp_path / name)
        assert found.keys() == expected.keys()
        assert {path for path in expected if found[path] != expected[path]} <= {"report.html", "summary.csv"}
    assert wrong.returncode == 2
    assert "model.pt" in json.loads(wrong.stdout)["error"]
    assert "worker" not in json.loads(wrong.stdout)["error"]
