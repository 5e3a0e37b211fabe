"""Names of result folders: harmless on every file system, the same in every run, never two alike."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from msrf_monai.errors import InputError

__all__ = ["Naming", "folder_names", "is_picture_name", "is_safe_name", "safe_name", "short_hash"]

_LONGEST = 48
_PICTURES = {
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".gif", ".webp"),
    *(".nii", ".gz", ".mhd", ".mha"),
    *(".svs", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".svslide", ".czi"),
}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Naming:
    """What an input's name is made of."""

    stem: str
    """What people recognise: a picture's name, or ``"dicom"`` where the name itself may identify a patient."""
    keys: tuple[str, ...]
    """What tells it from others, the most lasting first; only their hash is shown. The last is unique in a run."""


def safe_name(text: str) -> str:
    """Return a text as a file name: ``[A-Za-z0-9._-]`` only, at most 48 characters, no leading dot, never empty.

    Args:
        text: any text, also one with characters that are no Unicode.

    Example:
        >>> safe_name("../../Bild 7 (ä).png"), safe_name("..")
        ('Bild_7_.png', 'unnamed')
    """
    return _UNSAFE.sub("_", text)[-_LONGEST:].lstrip("._-") or "unnamed"


def is_picture_name(path: str) -> bool:
    """Return whether a file is called like a picture, a volume or a slide; what it is, its content decides."""
    return PurePath(path).suffix.lower() in _PICTURES


def is_safe_name(name: str) -> bool:
    """Return whether a name holds nothing but ``[A-Za-z0-9._-]`` and begins with no dot."""
    return _SAFE.fullmatch(name) is not None


def short_hash(*keys: str) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of some texts; two lists of texts never read as one."""
    joined = "".join(f"{len(key)}:{key}" for key in keys)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def folder_names(inputs: Sequence[Naming]) -> list[str]:
    """Give each input the name of its folder.

    A name is the stem and a hash of the first key; only inputs that would be called the same (also where a file system
    ignores case) get a hash of further keys, so that a name hardly ever depends on what else is in the run.

    Args:
        inputs: all inputs of a run.

    Returns:
        One name for each.

    Raises:
        InputError: when two inputs have the same keys.
    """
    names = [_name(each, 1) for each in inputs]
    for depth in range(2, 1 + max((len(each.keys) for each in inputs), default=1)):
        counts = Counter(name.casefold() for name in names)
        names = [
            _name(each, depth) if counts[name.casefold()] > 1 else name
            for each, name in zip(inputs, names, strict=True)
        ]
    if len({name.casefold() for name in names}) < len(names):
        raise InputError("two inputs are the same file; name each only once")
    return names


def _name(naming: Naming, depth: int) -> str:
    return f"{naming.stem}-{short_hash(*naming.keys[:depth])}"
