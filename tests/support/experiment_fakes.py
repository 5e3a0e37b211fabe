"""A bundle, a data set and a runner that take no time or fail, for tests of cross-validation."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msrf_monai.experiments import CrossValidation, Outcome

Settings = Callable[..., CrossValidation]
TRAIN: dict[str, Any] = {
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "$@bundle_root + '/data'",
    "seed": 42,
    "max_epochs": 3,
    "resume": False,
    "network_def": {"recalibration": None, "features": [4, 8]},
    "training": [],
}
EVALUATE = {"split": "test", "weights": "$@ckpt_dir + '/model.pt'", "evaluating": []}
SCORES = ("dice", "iou", "precision", "recall")
EFFECTS = {"ssr": 0.05, "cse": -0.02}
"""What two variants add to the Dice of every image."""


def make_bundle(root: Path, *, variants: Sequence[str] = ("none", "cse", "ssr"), resume: bool = True) -> Path:
    """Write a bundle with overlays for recalibrations, a recipe and a data set."""
    train = {key: value for key, value in TRAIN.items() if resume or key != "resume"}
    files: dict[str, Any] = {"train": train, "evaluate": EVALUATE, "datasets/drawn": {"max_epochs": 4}}
    files |= {f"recalibration/{name}": {"network_def#recalibration": name} for name in variants}
    files |= {"recipes/paper": {"max_epochs": 5}}
    for name, content in files.items():
        path = root / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def make_dataset(
    folder: Path,
    count: int = 12,
    *,
    groups: Callable[[int], str] | None = None,
    strata: Callable[[int], str] | None = None,
    split: str = "random",
    name: str = "drawn",
    content: Callable[[int], str] = str,
) -> Path:
    """Write a prepared data set of pictures of a few bytes: three in four for training, then validation and test."""
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    digests = {}
    for index in range(count):
        item: dict[str, Any] = {"id": f"case_{index:03d}"}
        for key in ("image", "label"):
            item[key] = f"{key}s/case_{index:03d}.png"
            path = folder / item[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{key} {content(index)}")
            digests[item[key]] = hashlib.sha256(path.read_bytes()).hexdigest()
        item |= {"group": groups(index)} if groups else {}
        item |= {"stratum": strata(index)} if strata else {}
        part = "training" if index < 0.75 * count else ("validation", "test")[index % 2]
        parts[part].append(item)
    header = {"name": name, "licence": "CC0 1.0", "citation": "A & B, <Journal> 1", "split": split}
    (folder / "dataset.json").write_text(json.dumps({**header, **parts, "sha256": digests}))
    return folder


def options_of(command: Sequence[str]) -> dict[str, str]:
    """Return the overrides of a bundle's command."""
    words = [word.removeprefix("--").partition("=") for word in command if word.startswith("--") and "=" in word]
    return {key: value for key, _, value in words}


class FakeRunner:
    """Writes what a training and an evaluation would write.

    Args:
        effects: what each variant adds to the Dice of every image.
        fail: called with run and variant; returns an exit code, or raises what ends the program.
    """

    def __init__(
        self,
        effects: Mapping[str, float] | None = None,
        fail: Callable[[str, str, int], int] = lambda run, variant, fold: 0,
    ) -> None:
        self.effects = effects or {}
        self.fail = fail
        self.calls: list[tuple[str, str, int]] = []
        self.options: list[dict[str, str]] = []

    def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
        run, options = command[4], options_of(command)
        variant, fold = log.parent.parent.name, int(log.parent.name.removeprefix("fold_"))
        self.calls.append((run, variant, fold))
        self.options.append(options)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as handle:
            handle.write(f"{run}\nerror: the last line\n")
        output = Path(options["output_dir"])
        output.mkdir(parents=True, exist_ok=True)
        code = self.fail(run, variant, fold)
        if code:
            return code
        if run == "training":
            self._train(Path(options["ckpt_dir"]), output, int(options["seed"]), fold)
        else:
            self._evaluate(Path(options["dataset_dir"]), output, variant, fold)
        return 0

    def _train(self, models: Path, output: Path, seed: int, fold: int) -> None:
        (models / "state").mkdir(parents=True, exist_ok=True)
        (models / "state" / "training_state.pt").write_text("state")
        (models / "model.pt").write_text(f"weights {seed}")
        (models / "model.json").write_text(json.dumps({"epoch": 2}))
        epochs = 3 + fold % 2
        rows = [f"{epoch},{1 / epoch},0.1,2.5,{0.2 * epoch - 0.01 * fold}" for epoch in range(1, epochs + 1)]
        (output / "history.csv").write_text("\n".join(["epoch,train_loss,learning_rate,seconds,val_dice", *rows, ""]))

    def _evaluate(self, dataset: Path, output: Path, variant: str, fold: int) -> None:
        items = json.loads((dataset / "dataset.json").read_text())["test"]
        with (output / "cases.csv").open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["file", *SCORES, "hd95_px"])
            for number, item in enumerate(items):
                dice = fake_dice(item["id"], variant, fold, self.effects)
                writer.writerow([Path(item["image"]).name, dice, dice - 0.1, dice, dice, "" if number == 0 else 3.5])
        (output / "summary.json").write_text(json.dumps({"pooled": {"dice": {"value": 0.75}}}))


def fake_dice(identity: str, variant: str, fold: int, effects: Mapping[str, float]) -> float:
    """Return the Dice of an image: its own level, the variant's effect, and a little that is neither."""
    noise = int(hashlib.sha256(f"{identity}{variant}{fold}".encode()).hexdigest()[:4], 16) / 65536
    level = int(hashlib.sha256(identity.encode()).hexdigest()[:4], 16) / 65536
    return round(0.4 + 0.3 * level + 0.02 * noise + effects.get(variant, 0.0), 6)


class InterruptError(Exception):
    """Stands for a kill."""


def failing(*where: tuple[str, str, int], code: int = 1) -> Callable[[str, str, int], int]:
    """Return what fails at these runs, variants and folds."""
    return lambda run, variant, fold: code if (run, variant, fold) in where else 0


def interrupting(*where: tuple[str, str, int]) -> Callable[[str, str, int], int]:
    """Return what ends the program at these runs, variants and folds."""

    def fail(run: str, variant: str, fold: int) -> int:
        if (run, variant, fold) in where:
            raise InterruptError
        return 0

    return fail


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def states(outcomes: Sequence[Outcome[Any]]) -> list[str]:
    """Return how each run has ended."""
    return [outcome.state for outcome in outcomes]
