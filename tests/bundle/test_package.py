"""The zip of a bundle: the same bytes each time, what belongs in it and no more, and MONAI takes it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import download, load, load_bundle_config

from msrf_monai.bundle import package_bundle, unpack_bundle
from msrf_monai.errors import ConfigError
from msrf_monai.files import sha256_of

VESSELS = "imff_net_retinal_vessel_segmentation"
POLYPS = "msrf_net_polyp_segmentation"


@pytest.fixture
def polyps(repository: Path, tmp_path: Path) -> Path:
    """A copy of a bundle of ours without weights."""
    return shutil.copytree(repository / "bundles" / POLYPS, tmp_path / POLYPS, ignore=shutil.ignore_patterns("eval"))


def _tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_unpacked_tree_equals_the_packed_one(repository: Path, tmp_path: Path) -> None:
    source = repository / "bundles" / VESSELS

    made = package_bundle(source, tmp_path / "a.zip")
    folder = unpack_bundle(made.path, tmp_path / "out")

    unpacked = _tree(folder)
    assert folder.name == VESSELS
    assert tuple(sorted(unpacked)) == tuple(sorted(made.files))
    assert all((source / name).read_bytes() == content for name, content in unpacked.items())
    assert {"LICENSE", "large_files.yml", "models/model.pt", "configs/recipes/published.json"} <= set(unpacked)
    assert made.sha256 == sha256_of(made.path)


def test_the_same_files_give_the_same_bytes(polyps: Path, tmp_path: Path) -> None:
    first = package_bundle(polyps, tmp_path / "a.zip")
    other = shutil.copytree(polyps, tmp_path / "elsewhere" / POLYPS)
    for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o700)
    previous = os.umask(0o077)
    try:
        second = package_bundle(other, tmp_path / "b.zip")
    finally:
        os.umask(previous)

    assert second.sha256 == first.sha256
    with zipfile.ZipFile(first.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {stat.S_IFREG | 0o644}


def test_what_runs_leave_and_exports_are_not_packed_unless_asked(polyps: Path, tmp_path: Path) -> None:
    for name in ("eval/run.json", "data/a.png", "__pycache__/a.pyc", ".cache/a", "models/old.pt~", "models/state/a.pt"):
        (polyps / name).parent.mkdir(exist_ok=True)
        (polyps / name).write_text("{}")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(polyps / "models" / "model.ts"))

    without = set(package_bundle(polyps, tmp_path / "a.zip").files)
    with_exports = set(package_bundle(polyps, tmp_path / "b.zip", with_exports=True).files)

    assert not any(name.startswith(("eval", "data", "__py", ".")) for name in without)
    shipped = {"models/model.json", "models/model.pt", "models/test_io.safetensors"}
    assert {name for name in without if name.startswith("models")} == shipped
    assert with_exports - without == {"models/model.ts"}


def test_a_zip_in_the_own_folder_is_not_packed_again(polyps: Path) -> None:
    first = package_bundle(polyps, polyps / "a.zip", lint=False)
    second = package_bundle(polyps, polyps / "a.zip", lint=False)

    assert second == first
    assert "a.zip" not in second.files


def test_a_bundle_with_problems_is_packed_only_when_asked(polyps: Path, tmp_path: Path) -> None:
    (polyps / "LICENSE").unlink()

    with pytest.raises(ConfigError, match=r"LICENSE is missing.*msrf-monai lint shows all"):
        package_bundle(polyps, tmp_path / "a.zip")
    refused = not (tmp_path / "a.zip").exists()
    made = package_bundle(polyps, tmp_path / "a.zip", lint=False)

    assert refused
    assert "LICENSE" not in made.files


def test_other_weights_than_the_listed_are_never_packed(polyps: Path, tmp_path: Path) -> None:
    listing = "large_files:\n- {path: models/model.pt, hash_type: sha256, hash_val: '%s'}\n" % ("0" * 64)
    (polyps / "large_files.yml").write_text(listing)
    torch.save({}, polyps / "models" / "model.pt")

    with pytest.raises(ConfigError, match=r"models/model\.pt is not the file whose sha256 is listed"):
        package_bundle(polyps, tmp_path / "a.zip", lint=False)


def test_links_are_never_packed(polyps: Path, tmp_path: Path) -> None:
    (polyps / "docs" / "again.md").symlink_to("README.md")

    with pytest.raises(ConfigError, match=r"docs/again\.md is a link or a device"):
        package_bundle(polyps, tmp_path / "a.zip", lint=False)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no configs/metadata\.json"):
        package_bundle(tmp_path, tmp_path / "a.zip")


def test_monai_reads_configs_inside_the_zip(polyps: Path, tmp_path: Path) -> None:
    made = package_bundle(polyps, tmp_path / f"{POLYPS}.zip")

    parser = load_bundle_config(str(made.path), "inference.json")

    metadata = json.loads((polyps / "configs" / "metadata.json").read_text())
    assert parser["_meta_"]["version"] == metadata["version"]
    assert parser["network_def"]["_target_"] == "msrf_monai.networks.MSRFNet"


def test_monai_downloads_the_zip_and_loads_the_same_weights(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # load starts the run's record in the current folder
    source = repository / "bundles" / VESSELS
    made = package_bundle(source, tmp_path / f"{VESSELS}.zip")

    download(name=VESSELS, url=made.path.as_uri(), bundle_dir=str(tmp_path / "hub"), progress=False)
    network = load(VESSELS, bundle_dir=str(tmp_path / "hub"), workflow_type="inference")

    original = torch.load(source / "models" / "model.pt", weights_only=True)
    loaded = network.state_dict()
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[name], original[name].to(loaded[name].dtype)) for name in original)
