"""The folder that training reads: dataset.json with pictures and masks, there as a whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msrf_monai.data.splits import PARTS
from msrf_monai.errors import DataError, StorageError
from msrf_monai.files import umask, write_text

__all__ = ["DATALIST_NAME", "Entry", "new_dataset_folder", "write_datalist"]

DATALIST_NAME = "dataset.json"
_OURS = frozenset({DATALIST_NAME, "images", "labels", "labels2", "fov"})


@dataclass(frozen=True)
class Entry:
    """One picture of a finished data set.

    Attributes:
        identity: name, unique in the data set.
        image: path of the picture relative to the folder, or absolute when it stays where it is.
        label: path of the mask relative to the folder.
        part: "training", "validation" or "test".
        fold: number of its fold, None for test pictures and where there are no folds.
        group: patient, sequence, … or None.
        stratum: class by which parts and folds are balanced, or None.
        fov: path of the mask of the field of view, or None.
        label2: path of the second observer's mask, or None.
        details: what else is known, such as "spacing_mm"; written after the other keys.
    """

    identity: str
    image: str
    label: str
    part: str
    fold: int | None = None
    group: str | None = None
    stratum: str | None = None
    fov: str | None = None
    label2: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the entry as it stands in the datalist."""
        item: dict[str, Any] = {"id": self.identity, "image": self.image, "label": self.label}
        for key in ("fov", "label2", "fold", "group", "stratum"):
            value = getattr(self, key)
            if value is not None:
                item[key] = value
        return item | dict(self.details)


@contextmanager
def new_dataset_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``out`` when, and only when, the block ends without an error.

    Args:
        out: the folder to make.
        overwrite: replace ``out`` when it holds a data set already; the old one stays until the new one is complete.

    Yields:
        The temporary folder, beside ``out``.

    Raises:
        DataError: when ``out`` is a file, or is not empty and must not be replaced, or holds anything that we did not
            make.
        StorageError: when the operating system cannot make, write or rename something (disk full, no permission, …);
            nothing was changed then.
    """
    _refuse_occupied(out, overwrite=overwrite)
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name[:80]}.", suffix=".part", dir=out.parent))
        temporary.chmod(0o777 & ~umask())
        yield temporary
        _replace(out, temporary)
        temporary = None
    except (DataError, StorageError):
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}; nothing was changed there. "
            "Free some space or choose another folder, then run again."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_datalist(
    folder: Path, header: Mapping[str, Any], entries: Sequence[Entry], digests: Mapping[str, str]
) -> dict[str, int]:
    """Write dataset.json in the form of the Medical Segmentation Decathlon, which MONAI reads, plus folds and digests.

    Args:
        folder: folder of the data set.
        header: name, description, licence, labels, …; copied as it stands.
        entries: the pictures.
        digests: SHA-256 in hexadecimal for each path that occurs in the entries.

    Returns:
        The number of pictures of each part.
    """
    ordered = sorted(entries, key=lambda entry: entry.identity)
    parts = {part: [entry.as_json() for entry in ordered if entry.part == part] for part in PARTS}
    counts = {part: len(items) for part, items in parts.items()}
    content = {
        **header,
        "numTraining": counts["training"],
        "numValidation": counts["validation"],
        "numTest": counts["test"],
        **parts,
        "sha256": dict(sorted(digests.items())),
    }
    write_text(folder / DATALIST_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return counts


def _refuse_occupied(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; expected a folder to make")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{out}: is not empty; choose another folder, or ask to overwrite it")
    if not (out / DATALIST_NAME).is_file():
        raise DataError(f"{out}: holds no {DATALIST_NAME}, so that it is no data set of ours; it is not overwritten")
    if not _is_ours(out / DATALIST_NAME):
        raise DataError(f"{out / DATALIST_NAME}: has no sha256 sums, so that it is not ours; it is not overwritten")
    others = sorted(child.name for child in out.iterdir() if child.name not in _OURS)
    if others:
        shown = ", ".join(others[:8]) + (", …" if len(others) > 8 else "")
        raise DataError(f"{out}: holds more than a data set of ours: {shown}; move that away, then run again")


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("sha256"), dict)


def _replace(out: Path, new: Path) -> None:
    """Put the new folder in the place of the old one, which comes back when that fails."""
    if not out.exists():
        new.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name[:80]}.", suffix=".old", dir=out.parent))
    out.replace(old)
    try:
        new.rename(out)
    except OSError:
        old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
