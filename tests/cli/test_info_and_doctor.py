"""``msrf-monai info`` and ``msrf-monai doctor``: what they tell, and that info loads nothing heavy."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from msrf_monai import __version__
from msrf_monai.cli import doctor as doctor_module
from msrf_monai.cli.doctor import examine
from msrf_monai.cli.info import describe_bundle, find_bundles
from msrf_monai.cli.main import app
from msrf_monai.errors import DataError
from msrf_monai.files import sha256_of

VESSELS = "imff_net_retinal_vessel_segmentation"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def bundle(tmp_path):
    """A bundle with weights and nothing else than what info reads."""
    folder = tmp_path / "bundles" / "lungs"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {
        "name": "Lungs",
        "version": "1.2.3",
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "modality": "CT", "channel_def": {"0": "CT"}}},
            "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "lung"}}},
        },
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


@pytest.fixture
def requirements(monkeypatch):
    """What the package states that it needs, whatever is installed here."""
    stated = [
        "torch>=2.10",
        'pydicom<3; extra == "label"',
        "pydicom>=2.4",
        'imagecodecs>=2026.1; extra == "clinical"',
        "ray>=2.40; extra == 'scale'",
        'imagecodecs>=2026.1; extra == "all"',
        'python-gdcm>=3.0.26; extra == "clinical"',
        'hypothesis; extra == "dev"',
        'msrf-monai[slides]; extra == "openslide"',
        'openslide-python>=1.4; extra == "openslide"',
        'openslide-bin>=4.0.1; extra == "openslide"',
    ]
    monkeypatch.setattr(doctor_module.importlib.metadata, "requires", lambda _: stated)


def list_weights(bundle, digest):
    (bundle / "large_files.yml").write_text(
        "large_files:\n"
        '  - path: "models/other.pt"\n    hash_val: "' + "0" * 64 + '"\n    hash_type: "sha256"\n'
        f'  - path: "models/model.pt"\n    url: ""\n    hash_val: "{digest}"\n    hash_type: "sha256"\n'
    )


def test_info_loads_neither_torch_nor_monai(repository):
    program = (
        "import sys\nfrom msrf_monai.cli.main import main\n"
        f"sys.argv = ['msrf-monai', 'info', {str(repository / 'bundles' / VESSELS)!r}]\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print('loaded', *[name for name in 'torch monai numpy cv2 yaml PIL'.split() if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.splitlines()[0].startswith(f"msrf-monai {__version__}"), done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded"


def test_every_bundle_of_the_checkout_is_described(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    described = json.loads(run("info", "--json").stdout)

    assert described["package"]["version"] == __version__
    assert described["libraries"]["torch"] == importlib.metadata.version("torch")
    folders = {Path(each["folder"]).name for each in described["bundles"]}
    assert folders == {path.name for path in (repository / "bundles").iterdir() if path.is_dir()}
    for each in described["bundles"]:
        metadata = json.loads((Path(each["folder"]) / "configs" / "metadata.json").read_text())
        assert (each["name"], each["version"]) == (metadata["name"], metadata["version"])
        assert each["measured"] == metadata["eval_metrics"]
        assert each["licence"] == "Apache-2.0"
        assert each["network"]
        assert [label["number"] for label in each["labels"]] == [1]


def test_shipped_weights_are_the_listed_ones(repository):
    folder = repository / "bundles" / VESSELS

    weights = describe_bundle(folder)["weights"]

    assert weights["sha256"] == sha256_of(folder / "models" / "model.pt")
    assert weights["state"] == "as listed"


def test_a_bundle_is_found_by_its_folder_or_by_its_name(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for given in (str(bundle), "lungs"):
        shown = run("info", given).stdout
        assert "Lungs 1.2.3" in shown
        assert "1 lung" in shown
        assert "CT, 1 channels (CT)" in shown
    assert Path("bundles/lungs") in find_bundles()


def test_a_checkout_s_bundle_is_found_once(repository, monkeypatch):
    monkeypatch.chdir(repository)

    found = [folder for folder in find_bundles() if folder.name == VESSELS]

    assert found == [Path("bundles") / VESSELS]


@pytest.mark.parametrize("listed", ["right", "wrong", "none", "beside"])
def test_weights_are_held_against_the_digest_that_is_listed(bundle, listed):
    digest = sha256_of(bundle / "models" / "model.pt")
    if listed in ("right", "wrong"):
        list_weights(bundle, digest if listed == "right" else "f" * 64)
    if listed == "beside":
        (bundle / "models" / "model.json").write_text(json.dumps({"sha256": digest}))

    state = describe_bundle(bundle)["weights"]["state"]

    expected = {
        "right": "as listed",
        "wrong": f"NOT the file that is listed, whose sha256 is {'f' * 64}",
        "none": "no digest to compare with",
        "beside": "as listed",
    }
    assert state == expected[listed]


@pytest.mark.parametrize("is_listed", [True, False])
def test_weights_that_are_not_here_are_said_with_what_to_do(bundle, is_listed):
    (bundle / "models" / "model.pt").unlink()
    if is_listed:
        list_weights(bundle, "f" * 64)

    weights = describe_bundle(bundle)["weights"]

    assert weights["path"] == ""
    assert weights["state"] == "not here; " + (
        "large_files.yml says where they are" if is_listed else "train the bundle first"
    )


def test_large_weights_are_read_only_when_asked_for(bundle, monkeypatch):
    monkeypatch.setattr("msrf_monai.cli.info._MOST_HASHED_BYTES", 3)

    assert describe_bundle(bundle)["weights"]["state"] == "not checked; --verify does"
    assert describe_bundle(bundle, verify=True)["weights"]["sha256"]


@pytest.mark.parametrize(
    ("text", "licence"),
    [("\n  MIT License\n\nCopyright", "MIT"), ("\nOur own terms\nmore", "Our own terms"), (None, "")],
)
def test_the_licence_is_read_from_its_file(bundle, text, licence):
    if text is not None:
        (bundle / "LICENSE").write_text(text)

    assert describe_bundle(bundle)["licence"] == licence


def test_a_licence_that_the_metadata_state_comes_first(bundle):
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"license": "CC-BY-4.0"}))
    (bundle / "LICENSE").write_text("MIT License")

    assert describe_bundle(bundle)["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_metadata_that_cannot_be_read_are_refused(bundle, content):
    path = bundle / "configs" / "metadata.json"
    path.unlink() if content is None else path.write_text(content)

    with pytest.raises(DataError, match=r"metadata\.json"):
        describe_bundle(bundle)


def test_what_is_no_bundle_is_refused_with_those_that_are():
    done = subprocess.run(
        [sys.executable, "-m", "msrf_monai.cli.main", "info", "/no/such"], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: /no/such is no bundle")
    assert VESSELS in done.stderr


def test_the_doctor_has_a_line_for_everything_and_exit_code_0():
    done = run("doctor")

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for group in ("decoders", "backends", "writing", "slides", "validators", "network", "scale-out"):
        assert group in lines
    findings = [line for line in lines if line.startswith("  ")]
    assert all(line.split()[0] in ("ok", "missing") for line in findings)
    assert lines[-1].startswith(f"{sum(line.split()[0] == 'ok' for line in findings)} of {len(findings)} work")


def test_the_doctor_s_json_has_a_command_for_what_is_missing():
    told = json.loads(run("doctor", "--json").stdout)

    assert told["version"] == __version__
    for finding in told["findings"]:
        assert finding["works"] or finding["install"] or finding["name"] == "CUDA"
        assert not (finding["works"] and finding["install"])


def test_decoders_are_those_that_reading_uses():
    from msrf_monai.clinical.reading.decoders import PINNED_PLUGINS

    found = [finding for finding in examine() if finding.group == "decoders"]

    assert len(found) == 1 + len(PINNED_PLUGINS)


def test_a_missing_decoder_is_told_with_its_extra(monkeypatch, requirements):
    from msrf_monai.clinical.reading import RefusalCode, RefusedInput, decoders

    def refuse(_):
        raise RefusedInput(RefusalCode.DECODER_MISSING, "not here")

    monkeypatch.setattr(decoders, "pinned_plugin", refuse)

    jpeg = next(finding for finding in examine() if finding.name.startswith("JPEG baseline"))

    assert not jpeg.works
    assert jpeg.install == "pip install 'msrf-monai[clinical]'"


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ModuleNotFoundError("no", name="ray"), "not installed"),
        (ModuleNotFoundError("no", name="grpc"), "installed, but it needs grpc"),
        (OSError("libfoo.so: cannot open"), "installed, but it does not load (OSError)"),
    ],
    ids=["missing", "incomplete", "broken"],
)
def test_a_library_that_does_not_load_is_missing_with_the_reason(monkeypatch, requirements, error, detail):
    def refuse(name):
        if name == "ray":
            raise error
        return SimpleNamespace()

    monkeypatch.setattr(doctor_module.importlib, "import_module", refuse)
    library = next(each for each in doctor_module._LIBRARIES if each.module == "ray")

    finding = doctor_module._library(library)

    assert (finding.works, finding.detail) == (False, detail)
    assert finding.install == "pip install 'msrf-monai[scale]'"


@pytest.mark.parametrize(
    ("packages", "command"),
    [
        ("imagecodecs", "pip install 'msrf-monai[clinical]'"),
        ("python_gdcm imagecodecs", "pip install 'msrf-monai[clinical]'"),
        ("pydicom", "pip install msrf-monai"),
        ("hypothesis", "pip install hypothesis"),
        ("openslide-python openslide-bin", "pip install 'msrf-monai[openslide]'"),
        ("ray imagecodecs", "pip install ray imagecodecs"),
    ],
)
def test_what_is_missing_is_installed_by_the_extra_that_brings_it(requirements, packages, command):
    assert doctor_module._pip(packages) == command


def test_openslide_is_told_with_its_extra_when_it_is_missing(monkeypatch, requirements):
    monkeypatch.setitem(sys.modules, "openslide", None)

    (finding,) = [each for each in doctor_module.examine() if "OpenSlide" in each.name]

    assert (finding.group, finding.works, finding.install) == ("slides", False, "pip install 'msrf-monai[openslide]'")


def test_a_package_that_is_not_installed_itself_has_no_extras(monkeypatch):
    def refuse(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_module.importlib.metadata, "requires", refuse)

    assert doctor_module._pip("ray") == "pip install ray"


def test_a_graphics_card_and_its_providers_are_told(monkeypatch):
    cuda = SimpleNamespace(device_count=lambda: 1, get_device_name=lambda _: "Test GPU")
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="12.8"))
    runtime = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(doctor_module, "_load", lambda name: ({"torch": torch, "onnxruntime": runtime}[name], ""))

    found = {finding.name: finding for finding in doctor_module._accelerators()}

    assert found["CUDA"].detail == "Test GPU"
    assert found["onnxruntime on CUDA"].works
    assert found["tensorrt"].install == "pip install onnxruntime-gpu tensorrt"


def test_without_torch_and_onnxruntime_nothing_is_raised(monkeypatch):
    monkeypatch.setattr(doctor_module, "_load", lambda _: (None, "not installed"))

    found = list(doctor_module._accelerators())

    assert [finding.works for finding in found] == [False, False, False]


def test_a_program_is_found_and_a_missing_one_told_with_its_package(tmp_path, monkeypatch):
    program = next(each for each in doctor_module._PROGRAMS if each.program == "dciodvfy")
    monkeypatch.setattr(doctor_module, "_SYSTEM_PROGRAMS", str(tmp_path))
    monkeypatch.setattr(doctor_module.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = doctor_module._program(program)
    (tmp_path / "dciodvfy").write_text("#!/bin/sh\n")
    (tmp_path / "dciodvfy").chmod(0o755)

    found = doctor_module._program(program)

    assert (missing.works, missing.install) == (False, "apt-get install dicom3tools")
    assert (found.works, found.detail) == (True, str(tmp_path / "dciodvfy"))
