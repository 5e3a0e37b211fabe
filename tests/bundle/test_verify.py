"""A bundle's recorded files and outputs: coreutils and NumPy judge, and one changed weight or byte is found."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import Result
from typer.testing import CliRunner

from msrf_monai.bundle import build_network
from msrf_monai.bundle.stored_io import STORED_IO, read_stored_io
from msrf_monai.bundle.verify import SUMS, Tolerance, check_files, compare, record, verify_outputs
from msrf_monai.cli.main import app
from msrf_monai.errors import CheckpointError, ConfigError, MissingExtraError
from support.bundle_runs import BUNDLES, HIGMIS, IMFF, SSR, Bundle
from support.predictor_bundles import shake, stock_config, stock_metadata
from support.small_label_bundles import small_bundle

TIGHT = Tolerance(1e-5, 1e-5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with its stored outputs."""
    bundle = narrow_bundle(SSR, tmp_path_factory.mktemp("recorded"))
    record(bundle)
    return bundle


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(recorded, tmp_path / recorded.name)


def narrow_bundle(ours: Bundle, folder: Path) -> Path:
    """Write one of our bundles with a small network, and with the image size that its metadata declares."""
    bundle = small_bundle(ours, folder)
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config |= {key: declared(bundle)["spatial_shape"] for key in ("image_size", "patch_size") if key in config}
    path.write_text(json.dumps(config))
    return bundle


def declared(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("ours", BUNDLES, ids=lambda each: each.name)
def test_every_bundle_gives_its_stored_outputs_at_three_sizes(ours: Bundle, tmp_path: Path) -> None:
    bundle = narrow_bundle(ours, tmp_path)
    record(bundle)
    channels, (height, width) = declared(bundle)["num_channels"], declared(bundle)["spatial_shape"]

    # Hi-gMISnet's norms see as few as four values in a plane, and rounding grows in them
    tolerance = Tolerance(2e-2, 0.0) if ours is HIGMIS else Tolerance(1e-4, 1e-4)
    found = list(verify_outputs(bundle, ["eager", "torchscript"], tolerance=tolerance))

    assert [each.problem for each in found] == [None] * 6
    sizes = [(height // 4, width // 4), (height // 2, width // 2), (height, width)]
    assert [each.shape for each in found] == [(1, 1, *size) for size in sizes] * 2
    stored = read_stored_io(bundle)
    assert [each.shape for each in stored.inputs] == [(1, channels, *size) for size in sizes]
    assert all(float(each.std()) > 1e-3 for each in (*stored.inputs, *stored.outputs))


def test_exported_networks_give_the_stored_outputs(tmp_path: Path) -> None:
    bundle = narrow_bundle(IMFF, tmp_path)
    record(bundle)

    found = list(verify_outputs(bundle, ["onnxruntime", "openvino"], cache=tmp_path / "cache"))

    assert [(each.backend, each.n, each.problem) for each in found] == [
        (name, n, None) for name in ("onnxruntime", "openvino") for n in range(3)
    ]


def test_the_same_bundle_is_recorded_in_the_same_bytes(bundle: Path) -> None:
    before = {name: (bundle / name).read_bytes() for name in (STORED_IO, SUMS)}

    record(bundle)

    assert {name: (bundle / name).read_bytes() for name in before} == before


def test_one_changed_weight_is_found_with_its_worst_place(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    name = next(name for name in state if name.endswith("head.weight"))
    state[name].view(-1)[0] += 0.25
    torch.save(state, path)

    found = list(verify_outputs(bundle, ["eager"], tolerance=TIGHT))

    stored = read_stored_io(bundle)
    assert all(each.problem for each in found)
    for each in found:
        assert each.ppm == pytest.approx(1e6 * each.mismatched / stored.outputs[each.n].numel())
        assert each.worst is not None
        assert each.stored == pytest.approx(float(stored.outputs[each.n][each.worst]))
        assert each.found != pytest.approx(each.stored)


def test_values_that_are_allowed_to_differ_are_counted_all_the_same(bundle: Path) -> None:
    tensors = safetensors.torch.load_file(bundle / STORED_IO)
    with safetensors.safe_open(bundle / STORED_IO, framework="pt") as handle:
        about = handle.metadata()
    tensors["pred.2"][0, 0, 5, 7] += 3
    safetensors.torch.save_file(tensors, bundle / STORED_IO, metadata=about)
    pixels = tensors["pred.2"].numel()

    strict = list(verify_outputs(bundle, ["eager"], tolerance=TIGHT))
    patient = list(verify_outputs(bundle, ["eager"], tolerance=Tolerance(1e-5, 1e-5, ppm=1e6 / pixels)))

    assert [each.mismatched for each in strict] == [each.mismatched for each in patient] == [0, 0, 1]
    assert strict[2].worst == (0, 0, 5, 7)
    assert strict[2].problem is not None
    assert patient[2].problem is None


@pytest.mark.parametrize("seed", range(5))
def test_the_count_is_that_of_numpy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    stored = generator.normal(size=(2, 3, 5, 7))
    found = stored + generator.normal(scale=0.02, size=stored.shape)

    count, worst = compare(torch.tensor(stored), torch.tensor(found), Tolerance(0.01, 0.01))

    assert count == int((~np.isclose(found, stored, rtol=0.01, atol=0.01)).sum())
    assert worst == np.unravel_index(np.abs(found - stored).argmax(), stored.shape)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_the_worst(value: float) -> None:
    stored = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = stored.clone()
    found[0, 0, 0, 0] += 100
    found[0, 0, 1, 2] = value

    assert compare(stored, found, Tolerance()) == (2, (0, 0, 1, 2))


def test_sha256sum_agrees_with_the_list(bundle: Path) -> None:
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=bundle, capture_output=True, text=True)

    files = check_files(bundle)
    assert checked.returncode == 0, checked.stderr
    assert sorted(line.removesuffix(": OK") for line in checked.stdout.splitlines()) == [each.path for each in files]
    assert all(each.problem is None for each in files)
    assert {"configs/inference.json", "models/model.pt", STORED_IO} <= {each.path for each in files}


def test_every_kind_of_difference_in_the_files_is_told(bundle: Path) -> None:
    (bundle / "LICENSE").write_text("none")
    (bundle / "configs" / "train.json").unlink()
    (bundle / "scripts.py").write_text("")
    (bundle / "models" / "model.ts").write_bytes(b"an export")
    (bundle / "eval").mkdir()
    (bundle / "eval" / "cases.csv").write_text("left by a run")

    found = {each.path: each.problem for each in check_files(bundle) if each.problem}

    assert found == {"LICENSE": "changed", "configs/train.json": "missing", "scripts.py": "not listed"}


def test_a_link_does_not_pass_for_a_file(bundle: Path) -> None:
    (bundle / "LICENSE").rename(bundle.parent / "LICENSE")
    (bundle / "LICENSE").symlink_to(bundle.parent / "LICENSE")

    assert {each.path: each.problem for each in check_files(bundle) if each.problem} == {"LICENSE": "missing"}


@pytest.mark.parametrize(
    "line", ["0" * 64 + "  ../other", "0" * 64 + "  /etc/passwd", "LICENSE", "0" * 63 + "  LICENSE"]
)
def test_a_list_that_leaves_the_bundle_is_refused(bundle: Path, line: str) -> None:
    (bundle / SUMS).write_text(line + "\n")

    with pytest.raises(ConfigError, match="line 1 is no digest"):
        check_files(bundle)


@pytest.mark.parametrize("content", [b"", b"no tensors", safetensors.torch.save({"image.0": torch.zeros(1, 3, 4, 4)})])
def test_a_file_that_holds_no_stored_outputs_is_named(bundle: Path, content: bytes) -> None:
    (bundle / STORED_IO).write_bytes(content)

    with pytest.raises(CheckpointError, match=r"test_io\.safetensors holds no stored inputs and outputs"):
        read_stored_io(bundle)


def test_the_command_says_it_all_by_its_exit_code(bundle: Path) -> None:
    good = run(bundle, "--backend", "eager")
    (bundle / "LICENSE").write_text("none")
    bad = run(bundle, "--fast")
    told = json.loads(run(bundle, "--backend", "eager", "--json").stdout)

    assert (good.exit_code, bad.exit_code) == (0, 1), good.stdout
    assert "0 values differ (0 ppm)" in good.stdout
    assert "PROBLEM      LICENSE: changed" in bad.stdout
    (report,) = told["bundles"]
    assert (told["ok"], report["problems"]) == (False, ["LICENSE: changed"])
    assert [each["n"] for each in report["outputs"]] == [0, 1, 2]
    assert len(report["files"]) > 10


def test_wrong_uses_and_a_bundle_without_a_record(bundle: Path, tmp_path: Path) -> None:
    (bundle / STORED_IO).unlink()
    (bundle / SUMS).unlink()

    assert run(tmp_path / "nowhere").exit_code == 2
    assert run(bundle, "--backend", "caffe").exit_code == 2
    without = run(bundle, "--backend", "eager")
    assert without.exit_code == 1
    assert without.stdout.count("--record") == 2


def test_a_form_whose_library_is_missing_is_not_checked_unless_asked_for(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msrf_monai.clinical.backends as backends

    def missing(name: str, extra: str) -> None:
        raise MissingExtraError(f"{name} is not installed: pip install 'msrf-monai[{extra}]'")

    monkeypatch.setattr(backends, "require", missing)

    unasked, asked = run(bundle), run(bundle, "--backend", "openvino")

    assert unasked.exit_code == 0, unasked.stdout
    assert unasked.stdout.count("not checked") == 2
    assert asked.exit_code == 1
    assert isinstance(asked.exception, MissingExtraError)


def test_a_stored_infinity_passes_for_nothing() -> None:
    both = torch.tensor([1.0, float("inf")])

    assert compare(both, both, Tolerance()) == (1, (1,))


@pytest.mark.parametrize("name", ["absolute", "relative", "ppm"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")], ids=str)
def test_tolerances_that_would_let_anything_pass_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match="finite numbers of 0 or more"):
        Tolerance(**{name: value})


def test_a_list_of_digests_that_is_no_text_is_refused(bundle: Path) -> None:
    (bundle / SUMS).write_bytes(b"\xff\xfe\x00" * 40)

    with pytest.raises(ConfigError, match="line 1 is no digest"):
        check_files(bundle)


def test_numbers_that_are_none_leave_the_json_readable(bundle: Path) -> None:
    weights = next((bundle / "models").glob("model.*t*"))
    state = torch.load(weights, weights_only=True)
    torch.save(
        {name: each * float("nan") if each.is_floating_point() else each for name, each in state.items()}, weights
    )

    told = run(bundle, "--backend", "eager", "--json")

    assert told.exit_code == 1
    content = json.loads(told.stdout, parse_constant=lambda word: pytest.fail(word))
    assert {each["found"] for each in content["bundles"][0]["outputs"]} <= {None}


def test_shapes_that_are_not_square_and_sizes_that_do_not_fit(tmp_path: Path) -> None:
    """A network of three halvings takes a quarter of 96 x 64, and none of 24 x 16."""
    folder = tmp_path / "stock"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config, metadata = stock_config(3, 2), stock_metadata(3, 2)
    config["network_def"] |= {"channels": [4, 8, 8, 8], "strides": [2, 2, 2]}
    # no resizing: the network gets the picture as it was drawn
    steps = config["preprocessing"]["transforms"]
    config["preprocessing"]["transforms"] = [each for each in steps if each["_target_"] != "Resized"]
    image = metadata["network_data_format"]["inputs"]["image"]
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    for shape in ([96, 64], [24, 16]):
        image["spatial_shape"] = shape
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        if shape == [96, 64]:
            torch.save(shake(build_network(folder)).state_dict(), folder / "models" / "model.pt")
            record(folder)
            assert [tuple(each.shape[2:]) for each in read_stored_io(folder).inputs] == [(24, 16), (48, 32), (96, 64)]
            assert [each.problem for each in verify_outputs(folder, ["eager"])] == [None] * 3
        else:
            with pytest.raises(ConfigError, match=r"cannot take \(1, 3, 6, 4\), a part of the declared shape"):
                record(folder)
