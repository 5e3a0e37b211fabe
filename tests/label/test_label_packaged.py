"""A bundle that went through a zip is served: the commands of docs/packaging.md, one after the other."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import synthesize_dataset
from support.bundle_runs import IMFF
from support.documented_commands import PYTHON, Command, blocks, run_command, split_commands
from support.label_server import NO_NETWORK, LabelServer, label_environment
from support.predictor_bundles import Tiny
from support.real_data import REPOSITORY

pytestmark = [pytest.mark.label, pytest.mark.slow]
BIN = Path(sys.executable).parent


def commands() -> list[str]:
    """Return the commands of the page, in their order."""
    page = (REPOSITORY / "docs" / "packaging.md").read_text(encoding="utf-8")
    return [line for _, language, code in blocks(page) if language != PYTHON for line in split_commands(code)]


def test_the_page_s_commands_pack_a_bundle_that_monai_takes_and_monai_label_serves(tmp_path: Path) -> None:
    *shell, start = commands()
    images = tmp_path / "images"
    synthesize_dataset("vessels", tmp_path / "drawn", counts=(2, 1, 1), size=(72, 96))
    images.mkdir()
    (picture,) = sorted((tmp_path / "drawn" / "images").iterdir())[:1]
    Image.open(picture).save(images / "eye.png")
    expected = Tiny(IMFF.folder, (), IMFF.folder / "models" / "model.pt").evaluate(images, tmp_path / "expected")
    (tmp_path / "label-env").symlink_to(label_environment().folder)
    assert [words.split()[:2] for words in shell] == [
        ["msrf-monai", "package"],
        ["msrf-monai", "unpack"],
        ["python", "-m"],
    ]

    for text in shell:
        done = run_command(Command(text, ""), folder=tmp_path, path=f"{BIN}:/usr/bin:/bin")
        assert done.returncode == 0, done.stdout

    words = shlex.split(start)
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {
        "--environment": "label-env",
        "--studies": "images",
        "--bundles": f"unpacked/{IMFF.folder_name}",
    }
    program = (BIN / "msrf-monai", "label", "--environment", given["--environment"])
    server = LabelServer(
        given["--studies"], [Path(given["--bundles"])], tmp_path / "app", variables=NO_NETWORK, program=program
    )
    with server:
        answer = server.post(f"/infer/{IMFF.folder_name}?image=eye&output=image")
    # the line that the command stands for, which needs what the first start has laid out
    server.log.unlink()
    server.start_plainly()
    try:
        plain = server.post(f"/infer/{IMFF.folder_name}?image=eye&output=image")
    finally:
        server.stop()

    assert "msrf_monai.cli" not in server.said()
    assert plain.content == answer.content
    (tmp_path / "answer.png").write_bytes(answer.content)
    mask = np.asarray(Image.open(tmp_path / "answer.png")) > 0
    (reference,) = expected.glob("eye*.png")
    truth = np.asarray(Image.open(reference)) > 0
    assert 0 < truth.sum() < truth.size
    assert mask.shape == truth.shape
    # other builds of the libraries round single pixels at the threshold otherwise
    assert np.count_nonzero(mask != truth) <= 0.002 * truth.size
    assert (tmp_path / "hub" / IMFF.folder_name / "models" / "model.pt").read_bytes() == (
        IMFF.folder / "models" / "model.pt"
    ).read_bytes()
