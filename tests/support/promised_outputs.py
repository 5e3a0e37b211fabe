"""The files that a bundle's README promises under "Outputs", and which of them a command has left."""

from __future__ import annotations

import re
from pathlib import Path

from support.documented_commands import Command

KINDS = {"Training": "train", "Evaluation": "evaluate", "Inference": "segment"}
DEFAULTS = {"train": "eval", "evaluate": "eval/test", "segment": "eval/masks"}
# What only some commands leave: the promised name, and the pattern of the commands that do.
ONLY_FOR = {
    "by_dataset.csv": r"multi_domain",
    "measures": r"^(?!.*--save_measures False)",
}


def promised(readme: Path) -> dict[str, list[str]]:
    """Return the names that the section "Outputs" gives for each form of a command, below the default folders."""
    section = readme.read_text(encoding="utf-8").partition("\n## Outputs\n")[2].partition("\n## ")[0]
    pieces = re.split(r"\b(Training|Evaluation|Inference)[:,]", section)[1:]
    names: dict[str, list[str]] = {}
    for kind, text in zip(pieces[::2], pieces[1::2], strict=True):
        folder, found = "", []
        for is_folder, token in re.findall(r"(\bin )?`([^`]+)`", text):
            if is_folder:
                folder = f"{token}/"
            else:
                found.append(f"{folder}{token}")
        names[KINDS[kind]] = found
    return names


def missing(command: Command, names: list[str], folder: Path, since_ns: int) -> list[str]:
    """Return which promised files a command has not written in a folder since a time.

    A resumed training keeps its best weights and their picture; those may be older.
    """
    default = DEFAULTS[command.form]
    places = {f"{default}/": command.value("output_dir", default), "models/": command.value("ckpt_dir", "models")}
    found = []
    for name in names:
        if any(word in name and not re.search(pattern, command.text) for word, pattern in ONLY_FOR.items()):
            continue
        start = next(start for start in places if name.startswith(start))
        for path in _paths(folder / places[start] / name.removeprefix(start), command, folder):
            is_old = _written(path) < since_ns and "--resume" not in command.text
            found += [str(path.relative_to(folder))] if is_old or not path.exists() else []
    return found


def _written(path: Path) -> int:
    """When a file, or the newest file of a folder, was written; 0 when there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return max((each.stat().st_mtime_ns for each in files if each.is_file()), default=0)


def _paths(path: Path, command: Command, folder: Path) -> list[Path]:
    """The files that a name stands for: NAME is that of each image of the command's folder."""
    if "NAME" not in path.name:
        return [path]
    images = sorted((folder / command.value("dataset_dir", "data/images")).iterdir())
    return [path.with_name(path.name.replace("NAME", image.stem)) for image in images]
