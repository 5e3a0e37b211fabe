"""``msrf-monai lint``: what it prints, its exit codes, and that looking at a bundle of others runs nothing of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from msrf_monai.cli.main import app

POLYPS = "msrf_net_polyp_segmentation"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["lint", *arguments])


@pytest.fixture
def polyps(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one of our bundles where info does not find it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere" / POLYPS
    return shutil.copytree(repository / "bundles" / POLYPS, folder, ignore=shutil.ignore_patterns("eval", "data"))


def test_all_bundles_of_the_checkout_are_clean(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = run("all", "--fast", "--json")

    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert report["ok"]
    assert {each["name"] for each in report["bundles"]} == {path.name for path in (repository / "bundles").iterdir()}
    assert all(each["ok"] and "executes" not in each for each in report["bundles"])


def test_reading_loads_neither_torch_nor_monai(repository: Path) -> None:
    program = (
        "import sys\nfrom msrf_monai.cli.main import main\n"
        f"sys.argv = ['msrf-monai', 'lint', {str(repository / 'bundles' / POLYPS)!r}, '--fast', '--explain']\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print('loaded', *[name for name in 'torch monai numpy ignite'.split() if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1:] == ["loaded"], done.stderr


def test_one_line_a_check_and_exit_code_0(repository: Path) -> None:
    done = run(str(repository / "bundles" / POLYPS), "--fast")

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{POLYPS} (")
    assert lines[1].startswith("  ok           files         LICENSE, configs and docs are there")
    assert sum(line.startswith("  not checked") for line in lines) == 5
    assert "  8 checks ok, 0 problems, 5 not checked" in lines
    assert "would execute" not in done.stdout


def test_problems_are_sentences_with_file_and_key_and_exit_code_1(polyps: Path) -> None:
    path = polyps / "configs" / "datasets" / "kvasir_seg.json"
    path.write_text("{\n    \"dataset_dir\": \"$open('executed', 'w')\"\n}\n")
    (polyps / "LICENSE").unlink()

    done = run(str(polyps), "--no-explain")

    assert done.exit_code == 1
    assert "  PROBLEMS     configs " in done.stdout
    assert "      kvasir_seg.json: dataset_dir: the expression calls open()" in done.stdout.splitlines()
    assert "      LICENSE is missing" in done.stdout.splitlines()
    assert "would execute the bundle, and there are problems above; mend them first" in done.stdout
    assert not Path("executed").exists()


def test_a_bundle_from_elsewhere_is_explained_and_not_executed_unasked(polyps: Path) -> None:
    path = polyps / "configs" / "datasets" / "kvasir_seg.json"
    path.write_text("{\n    \"dataset_dir\": \"$open('executed\\u001b[2J', 'w')\"\n}\n")

    done = run(str(polyps))

    lines = done.stdout.splitlines()
    assert f"what {POLYPS} would execute (nothing of it was imported, evaluated or loaded)" in lines
    assert "  beyond the rules for configs: 1" in lines
    place = "    configs/datasets/kvasir_seg.json::dataset_dir  expression  "
    assert place + r"$open('executed\x1b[2J', 'w')" in lines
    assert any(line.startswith("      msrf_monai.networks.MSRFNet x2  in configs/inference.json") for line in lines)
    assert "\x1b" not in done.stdout
    assert not list(polyps.parent.glob("executed*"))


def test_a_clean_bundle_from_elsewhere_is_executed_only_with_trust(
    polyps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[str] = []
    monkeypatch.setattr("msrf_monai.bundle.linting._execute", lambda name, root: executed.append(name) or [])

    unasked = run(str(polyps), "--no-explain")
    before = list(executed)
    asked = run(str(polyps), "--no-explain", "--trust")

    assert unasked.exit_code == asked.exit_code == 0
    assert "which is not part of the installation; --trust does" in unasked.stdout
    assert before == []
    assert executed == ["check_properties", "check_network", "check_torchscript", "check_exported"]


def test_json_holds_each_check_and_what_would_run(polyps: Path) -> None:
    report = json.loads(run(str(polyps), "--json", "--fast").stdout)["bundles"][0]

    assert report["checks"][0]["name"] == "files"
    assert report["checks"][0]["state"] == "ok"
    assert {"kind", "text", "module", "place", "warnings"} == set(report["executes"][0])


def test_the_schema_is_used_when_it_is_given(polyps: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"properties": {"version": {"type": "integer"}}}')

    done = run(str(polyps), "--fast", "--no-explain", "--schema", str(tmp_path / "schema.json"))

    assert done.exit_code == 1
    assert "metadata.json: version: '" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["a.zip"], "a.zip is a file; unpack it first"),
        ([], "Missing argument"),
        (["all", "--nothing"], "No such option"),
    ],
    ids=["no-folder", "file", "nothing", "option"],
)
def test_wrong_use_is_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.zip").touch()

    done = run(*arguments)

    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
