"""Every command of every bundle's README runs as it is written there, in the order of the README.

A copy of the bundle's folder gets small drawn downloads where the README says that they lie; what a command needs from
others before it (prepared data, weights) is what these left. Behind each command stand words that make it small, those
of ``SMALLER``; nothing else is changed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from msrf_monai.bundle import build_network, largest_difference, onnx_runner, openvino_runner, read_json
from msrf_monai.data import synthesize_dataset
from msrf_monai.engines import load_weights
from support.bundle_runs import HIGMIS, IMFF, MSRF, SSR, Bundle
from support.documented_commands import Command, DocumentError, documented, run_command
from support.drawn_downloads import SIZE, draw_breasts, draw_children, draw_heads, draw_pairs, draw_split, draw_trunks
from support.promised_outputs import missing, promised
from support.warm_programs import cold_path, warm_path

Words = dict[str, Any]


@dataclass(frozen=True)
class Smaller:
    """What makes a bundle's commands small enough: words behind them, by their form or by what they say."""

    lay: Callable[[Path], None]
    """Lays drawn downloads and data into the folder."""
    network: Words
    sizes: Words
    training: Words
    special: dict[str, Words] = field(default_factory=dict)
    """More words for commands in which a pattern is found; ``None`` takes a word away again."""

    def words(self, command: Command) -> str:
        """Return what is appended to a command."""
        epochs = {"max_epochs": 2 if "--resume" in command.text else 1}
        network = {} if "--network_def " in command.text else self.network
        added = {
            "train": {**network, **self.sizes, **self.training, **epochs},
            "evaluate": {**network, **self.sizes},
            "segment": {**network, **self.sizes},
            "ckpt_export": network,
            "onnx_export": network,
            "verify_net_in_out": network,
            "synthesize": {"count": "4,2,3", "size": "x".join(map(str, SIZE)), "overwrite": ""},
            "prepare": {},
            "cross-dataset": {},
        }[command.form]
        for pattern, words in self.special.items():
            if re.search(pattern, command.text):
                added = {**added, **words}
        return " ".join(f"--{key} {_quoted(value)}" for key, value in added.items() if value is not None)


def _quoted(value: Any) -> str:
    return shlex.quote(str(value).replace(" ", "")) if value != "" else ""


def _draw(folder: Path, kind: str, *names: str) -> None:
    synthesize_dataset(kind, folder / names[0], counts=(4, 2, 3), size=SIZE, seed=3)
    for name in names[1:]:
        (folder / name).symlink_to(folder / names[0])


def _lay_plain(root: Path) -> None:
    """The skin bundle beside the folder: cards train the plain U-Net with it."""
    (root.parent / SSR.folder_name).symlink_to(SSR.folder)


def _lay_msrf(root: Path) -> None:
    _lay_plain(root)
    draw_pairs(root / "downloads" / "Kvasir-SEG", 30)
    draw_split(root / "downloads" / "Kvasir-SEG-400", 12, "random_80_10_10")
    _draw(root / "data", "lesion", "mine", "dsb2018")


def _lay_ssr(root: Path) -> None:
    draw_pairs(root / "downloads" / "ISIC2018", 30)
    draw_split(root / "downloads" / "ISIC2017", 12, "official_2017_subset")
    _draw(root / "data", "lesion", "mine", "busi")


def _lay_imff(root: Path) -> None:
    draw_children(root / "downloads" / "CHASEDB1")
    _draw(root / "data", "vessels", "mine", "stare")


def _lay_higmis(root: Path) -> None:
    _lay_plain(root)
    draw_breasts(root / "downloads" / "Dataset_BUSI_with_GT", 30)
    draw_split(root / "downloads" / "BUSI-40", 12, "random_80_10_10", stem="benign_")
    draw_heads(root / "downloads" / "ct-ich", 6)
    draw_trunks(root / "weights")
    _draw(root / "data", "lesion", "cvc_clinicdb", "monuseg", "glas", "isic2018", "drive", "montgomery", "promise12")


PLAIN: Words = {"network_def::features": [4, 8, 16, 16]}
NARROW = {"features": [4, 8, 8], "window_size": [48, 48]}
SMALLER = {
    MSRF: Smaller(
        lay=_lay_msrf,
        network={"network_def::features": 2},
        sizes={"image_size": [48, 32], "patch_size": [48, 32]},
        training={"train_limit": 4},
        special={"recalibration/none": PLAIN},
    ),
    SSR: Smaller(
        lay=_lay_ssr,
        network={"network_def::features": [4, 8, 16, 16]},
        sizes={"image_size": [48, 32], "patch_size": [48, 32]},
        training={"train_limit": 4},
    ),
    IMFF: Smaller(
        lay=_lay_imff,
        network={"features": NARROW["features"]},
        sizes={"window_size": NARROW["window_size"]},
        training={"patch_size": [32, 32], "crops_per_image": 1, "train_limit": 4},
        special={
            "cross-dataset": {"override": "features=[4,8,8]"},
            "training.*runs/plain": {"val_interval": 1},
            "recipes/published(_inference)?.json": {"image_size": [48, 32], "window_size": [48, 32]},
            "recipes/published.json": {"patch_size": [48, 32]},
        },
    ),
    HIGMIS: Smaller(
        lay=_lay_higmis,
        network={"features": 4, "backbones": []},
        sizes={"image_size": [40, 32], "patch_size": [40, 32]},
        training={"train_limit": 4, "val_limit": 2, "discriminator_channels": [4, 8]},
        special={
            "--vgg_weights": {"backbones": None, "train_limit": 2, "val_limit": 1, "batch_size": 2, "use_ema": False},
            "recalibration/none": PLAIN
            | dict.fromkeys(("features", "backbones", "val_limit", "discriminator_channels")),
            "training.*multi_domain": {"samples_per_epoch": 4},
            "evaluating.*multi_domain": {"val_limit": 2},
            "--weights runs/published_size": {"backbones": None},
            "--mc_samples 20": {"mc_samples": 2},
        },
    ),
}


@dataclass(frozen=True)
class Tried:
    """A command that was run."""

    command: Command
    code: int
    said: str
    """What it wrote, to either stream."""
    missing: list[str]
    """Files that it should have left."""


def try_all(bundle: Bundle, folder: Path, path: str) -> Iterator[Tried]:
    """Run every command of a bundle's README in a copy of its folder; yield how each ended."""
    shutil.copytree(bundle.folder, folder)
    smaller, readme = SMALLER[bundle], folder / "docs" / "README.md"
    smaller.lay(folder)
    names = promised(readme)
    for command in (each for each in documented(readme) if each.is_run):
        since = time.time_ns() - 1_000_000_000  # file systems' clocks are coarse
        before = scores(folder / "eval" / "test") if "multi_gpu_evaluate" in command.text else None
        whole = replace(command, text=f"{command.text} {smaller.words(command)}")
        done = run_command(whole, folder=folder, path=path)
        absent = _absent(whole, folder)
        if command.form in names:
            absent += missing(whole, names[command.form], folder, since)
        if before is not None and scores(folder / "eval" / "test") != before:
            absent.append("the scores of one process")
        yield Tried(whole, done.returncode, done.stdout, absent)


def scores(folder: Path) -> dict[str, str]:
    """Return the tables and the threshold of a report, which do not depend on the number of processes."""
    names = ("cases.csv", "tables.csv", "threshold.json")
    return {name: (folder / name).read_text() for name in names if (folder / name).exists()}


def _absent(command: Command, folder: Path) -> list[str]:
    """What a command that prepares or exports should have left."""
    files = {
        "prepare": f"{command.value('out', '')}/dataset.json",
        "synthesize": f"{command.value('out', '')}/dataset.json",
        "ckpt_export": command.value("filepath", ""),
        "onnx_export": command.value("filepath", ""),
        "cross-dataset": f"{command.value('output', '')}/report.html",
    }
    name = files.get(command.form)
    return [name] if name and not (folder / name).is_file() else []


each_bundle = pytest.mark.parametrize("bundle", list(SMALLER), ids=lambda bundle: bundle.name)


def exported_differences(bundle: Bundle, folder: Path) -> dict[str, float]:
    """Return how far the exported networks are from the weights that they were made from, at other sizes too."""
    network = build_network(folder, **SMALLER[bundle].network)
    load_weights(network, folder / "models" / "model.pt")
    image = read_json(folder / "configs" / "metadata.json")["network_data_format"]["inputs"]["image"]
    shapes = [
        (1, image["num_channels"], 64, 48),
        (2, image["num_channels"], 72, 56),
        (1, image["num_channels"], 61, 45),
    ]
    onnx = folder / "models" / "model.onnx"
    runners = {
        "TorchScript": torch.jit.load(str(folder / "models" / "model.ts")).eval(),  # type: ignore[no-untyped-call]
        "ONNX Runtime": onnx_runner(onnx),
        "OpenVINO": openvino_runner(onnx),
    }
    return {name: largest_difference(network.eval(), runner, shapes) for name, runner in runners.items()}


def check(bundle: Bundle, folder: Path, path: str) -> None:
    """Run all commands and fail with those that failed, and with exported networks that differ from their weights."""
    done = list(try_all(bundle, folder, path))
    failed = [
        f"{each.command.text}\nexit code {each.code}, missing {each.missing}:\n{each.said[-1500:]}"
        for each in done
        if each.code != 0 or each.missing
    ]
    assert not failed, "\n\n".join(failed)
    assert len(done) == len(documented(folder / "docs" / "README.md"))
    allowed = 1e-3 if bundle is HIGMIS else 1e-4  # the README's tolerances
    assert max(exported_differences(bundle, folder).values()) <= allowed


@pytest.mark.slow
@each_bundle
def test_commands_of_the_readme_run_as_written(bundle: Bundle, tmp_path: Path) -> None:
    check(bundle, tmp_path / "bundle", warm_path())


@pytest.mark.extended
@each_bundle
def test_commands_of_the_readme_run_as_written_in_new_processes(bundle: Bundle, tmp_path: Path) -> None:
    check(bundle, tmp_path / "bundle", cold_path())


@each_bundle
def test_no_command_is_overlooked_and_every_smaller_word_is_used(bundle: Bundle) -> None:
    readme = bundle.folder / "docs" / "README.md"
    commands = documented(readme)
    starts = re.findall(r"^(?:[A-Z_]+=\S+ )?(?:python|torchrun|msrf-monai)\b", readme.read_text(), re.MULTILINE)
    assert len(commands) == len(starts) >= 14
    assert {each.form for each in commands} >= {"prepare", "train", "evaluate", "segment", "ckpt_export", "onnx_export"}
    unused = [key for key in SMALLER[bundle].special if not any(re.search(key, each.text) for each in commands)]
    assert unused == []
    assert set(promised(readme)) == {"train", "evaluate", "segment"}
    assert all(each.is_run for each in commands)


@pytest.mark.parametrize("line", ["python train.py", "curl example.org", "python -m monai.bundle rum training --x y"])
def test_command_in_no_known_form_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "README.md").write_text(f"Text\n\n```bash\nmsrf-monai data synthesize lesion --out a\n{line}\n```\n")
    with pytest.raises(DocumentError, match=re.escape(line)):
        documented(tmp_path / "README.md")


def test_command_that_needs_a_gpu_is_the_only_one_left_out(tmp_path: Path) -> None:
    needs = "```bash\nmsrf-monai data synthesize lesion \\\n  --out a\n```\n"
    reasons = ("<!-- not run: needs TensorRT, which needs a GPU -->", "<!-- not run: takes long -->")
    for reason, is_run in zip(reasons, (False, True), strict=True):
        (tmp_path / "README.md").write_text(f"Text\n\n{reason}\n{needs}")
        (command,) = documented(tmp_path / "README.md")
        assert (command.text, command.is_run) == ("msrf-monai data synthesize lesion --out a", is_run)


def test_failing_command_and_a_missing_file_are_told(tmp_path: Path) -> None:
    texts = ("false", "true", "echo spoken; exit 3")
    done = [run_command(Command(text, "x"), folder=tmp_path, path=warm_path()) for text in texts]
    assert [each.returncode for each in done] == [1, 0, 3]
    command = Command("msrf-monai data prepare x --out data/x", "prepare")
    assert _absent(command, tmp_path) == ["data/x/dataset.json"]
    train = Command("train --ckpt_dir runs/m --output_dir runs/o", "train")
    assert missing(train, ["models/model.pt", "eval/run.json"], tmp_path, 0) == ["runs/m/model.pt", "runs/o/run.json"]
    (tmp_path / "runs" / "m").mkdir(parents=True)
    (tmp_path / "runs" / "m" / "model.pt").touch()
    assert missing(train, ["models/model.pt"], tmp_path, 0) == []
    assert missing(train, ["models/model.pt"], tmp_path, time.time_ns() + 10**12) == ["runs/m/model.pt"]
