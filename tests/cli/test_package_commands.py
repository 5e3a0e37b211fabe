"""``msrf-monai package`` and ``msrf-monai unpack``: a bundle there and back, and what they refuse."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from msrf_monai.cli import main as main_module
from msrf_monai.cli.main import app
from msrf_monai.files import sha256_of

SKIN = "ssr_unet_skin_lesion_segmentation"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_there_and_back_by_name_with_the_digest(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    packed = run("package", SKIN, "--output", "skin.zip")
    digest = re.search(r"sha256 ([0-9a-f]{64})", packed.stdout)
    unpacked = run("unpack", "skin.zip", "--output", "there", "--sha256", digest[1] if digest else "")

    assert digest is not None
    assert digest[1] == sha256_of("skin.zip")
    assert (packed.exit_code, unpacked.exit_code) == (0, 0)
    assert f"msrf-monai lint there/{SKIN} --explain" in unpacked.stdout
    config = Path("configs") / "train.json"
    assert (tmp_path / "there" / SKIN / config).read_bytes() == (repository / "bundles" / SKIN / config).read_bytes()


def test_another_digest_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/x", "1")

    done = run("unpack", str(tmp_path / "a.zip"), "--output", str(tmp_path / "out"), "--sha256", "0" * 64)

    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_problems_stop_packing_unless_no_lint(tmp_path: Path, repository: Path) -> None:
    folder = shutil.copytree(repository / "bundles" / SKIN, tmp_path / SKIN, ignore=shutil.ignore_patterns("eval"))
    (folder / "docs" / "data_license.txt").unlink()
    refused = run("package", str(folder), "--output", str(tmp_path / "a.zip"))
    there = (tmp_path / "a.zip").exists()
    forced = run("package", str(folder), "--output", str(tmp_path / "a.zip"), "--no-lint")

    assert refused.exit_code == 1
    assert not there
    assert forced.exit_code == 0


def test_a_refused_zip_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/../../x", "1")
    monkeypatch.setattr(
        "sys.argv", ["msrf-monai", "unpack", str(tmp_path / "a.zip"), "--output", str(tmp_path / "out")]
    )

    with pytest.raises(SystemExit) as leave:
        main_module.main()

    shown = capsys.readouterr().err
    assert leave.value.code == 1
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert "leads out of its folder; nothing was unpacked" in shown
