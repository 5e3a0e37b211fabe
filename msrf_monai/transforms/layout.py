"""Where results go: names that never meet and never leave the output folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from monai.data.folder_layout import FolderLayoutBase

from msrf_monai.errors import StorageError

__all__ = ["SafeFolderLayout"]

_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".webp",
    ".dcm",
    ".nii",
    ".nii.gz",
)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\/]')
_LONGEST = 120


class SafeFolderLayout(FolderLayoutBase):
    """Name each result after its source: ``output_dir/<sub-folders>/<stem><_postfix><extension>``.

    The name depends on the source's path only, never on what was saved before, so that a second run and another process
    name it alike. Sub-folders below ``data_root_dir`` are kept. Eight hexadecimal digits of a SHA-256 are added where
    the plain name could meet another one: when the source is not below ``data_root_dir`` (or none is given), when a
    file of another format but the same stem lies beside it, and when its name had to be cleaned or shortened.

    Args:
        output_dir: the folder of the results.
        postfix: added to the stem after an underscore; may be empty.
        extension: extension of the results, with its dot.
        data_root_dir: the folder below which sub-folders are kept; empty for none. A file stands for its folder, so
            that one picture can be given where a folder of them is expected.
        parent: put each result into a folder named after its stem.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        postfix: str = "",
        extension: str = ".png",
        data_root_dir: str | os.PathLike[str] = "",
        *,
        parent: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.postfix = postfix
        self.extension = extension
        self.data_root_dir = _root(data_root_dir) if str(data_root_dir) else None
        self.parent = parent

    def filename(self, subject: str | os.PathLike[str] = "subject", idx: object = None, **kwargs: Any) -> str:
        """Return the path of a result.

        Args:
            subject: path of the source file.
            idx: number of the patch, added to the name.
            kwargs: further ``key-value`` pairs, added to the name.

        Returns:
            The path; it lies below ``output_dir``, and its folder need not exist yet.

        Raises:
            StorageError: when the path would leave ``output_dir`` through a link, or is the source file itself.
        """
        # not resolve(): a link to an image below the root belongs where the link is
        source = Path(os.path.abspath(os.fspath(subject)))  # noqa: PTH100
        is_below = self.data_root_dir is not None and source.is_relative_to(self.data_root_dir)
        folder = source.parent.relative_to(self.data_root_dir) if is_below and self.data_root_dir else Path()
        # case.png of a folder of the root and case.png of elsewhere: the whole path tells them apart
        stem = self._stem(source, identity="" if is_below else str(source))
        cleaned = Path(*(_clean_folder(part) for part in folder.parts))
        extras = ([self.postfix] if self.postfix else []) + ([f"{idx}"] if idx is not None else [])
        name = "_".join([stem, *extras, *(f"{key}-{value}" for key, value in kwargs.items())])
        target = self.output_dir / cleaned / (stem if self.parent else "") / f"{_UNSAFE.sub('_', name)}{self.extension}"
        root = self.output_dir.resolve()
        if not target.parent.resolve().is_relative_to(root):
            raise StorageError(f"{target} leads out of {root} through a link; remove the link or choose another folder")
        if target.resolve() == source.resolve():
            raise StorageError(f"{target} is the source file itself; choose another output_dir or a postfix")
        return str(target)

    def _stem(self, source: Path, identity: str) -> str:
        name = source.name
        suffix = next((end for end in sorted(_SUFFIXES, key=len, reverse=True) if name.lower().endswith(end)), "")
        suffix = name[len(name) - len(suffix) :] if suffix else source.suffix
        stem = name[: len(name) - len(suffix)] if suffix else name
        cleaned = _clean(stem)
        if _has_namesake(source, stem):
            cleaned, identity = f"{cleaned}_{_clean(suffix.lstrip('.'))}", identity or name
        if cleaned != stem and not identity:
            identity = name
        return f"{cleaned[:_LONGEST]}-{_digest(identity)}" if identity else cleaned


def _root(path: str | os.PathLike[str]) -> Path:
    root = Path(os.path.abspath(path))  # noqa: PTH100
    return root.parent if root.is_file() else root


def _has_namesake(source: Path, stem: str) -> bool:
    names = {f"{stem}{end}" for end in _SUFFIXES} | {f"{stem}{end.upper()}" for end in _SUFFIXES}
    return any((source.parent / name).is_file() for name in names - {source.name})


def _clean(part: str) -> str:
    cleaned = _UNSAFE.sub("_", part).strip(". ")
    if not cleaned or len(cleaned) > _LONGEST:
        return f"{cleaned[:_LONGEST]}-{_digest(part)}" if cleaned else f"unnamed-{_digest(part)}"
    return cleaned


def _clean_folder(part: str) -> str:
    cleaned = _clean(part)
    return cleaned if cleaned == part else f"{cleaned}-{_digest(part)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
