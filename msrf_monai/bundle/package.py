"""Make the zip of a bundle that MONAI, MONAI Label and MONAI Deploy take: the same bytes from the same files."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from msrf_monai.bundle.large_files import check_large_files
from msrf_monai.bundle.linting import static_checks
from msrf_monai.bundle.tree import bundle_files, links, specials
from msrf_monai.errors import ConfigError
from msrf_monai.files import atomic_write, sha256_of

__all__ = ["EXPORTS", "Package", "package_bundle", "packaged_files"]

EXPORTS = (".ts", ".onnx", ".pt2", ".engine", ".plan")
"""Ends of exported networks, which anybody can make anew from the weights."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644
_NOT_PACKED = frozenset({".gitkeep"})
# Weights hardly shrink, and texts do; both are packed the same way so that one library's choice decides nothing.
_LEVEL = 6
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Package:
    """A zip that was made."""

    path: Path
    sha256: str
    files: tuple[str, ...]
    """Names of the files in it, below the bundle's folder."""


def package_bundle(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    with_exports: bool = False,
    lint: bool = True,
) -> Package:
    """Pack a bundle: one top folder with the bundle's name, without what runs left there.

    The entries are sorted and have fixed times and modes, so that the same files give the same bytes; the file appears
    whole or not at all.

    Args:
        bundle: folder of the bundle.
        output: the zip to write.
        with_exports: also pack exported networks (``model.ts``, ``model.onnx`` and their like).
        lint: refuse a bundle in which a check that only reads finds a problem.

    Raises:
        ConfigError: when the bundle has a problem, a link, or a large file that is not the listed one.
        StorageError: when the zip cannot be written.
    """
    root = Path(bundle).resolve()
    if not (root / "configs" / "metadata.json").is_file():
        raise ConfigError(f"{bundle} is no bundle: it has no configs/metadata.json; give its folder")
    for path in (*links(root), *specials(root)):
        name = path.relative_to(root)
        raise ConfigError(f"{bundle}: {name} is a link or a device; put the file itself there, as zips hold files only")
    problems = [problem for check in static_checks(root) for problem in check.problems] if lint else []
    # digests are checked even then: other weights under this bundle's name are not the bundle
    problems = problems or check_large_files(root)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ConfigError(f"{root.name} has problems: {problems[0]}{more}; msrf-monai lint shows all")
    output = Path(output)
    # a zip written into the bundle's own folder is no part of the next one
    files = [path for path in packaged_files(root, with_exports=with_exports) if path != output.resolve()]
    with atomic_write(output) as handle:
        _write(root, files, handle)
    return Package(output, sha256_of(output), tuple(path.relative_to(root).as_posix() for path in files))


def packaged_files(root: Path, *, with_exports: bool = False) -> list[Path]:
    """Return the files of a bundle that belong into its zip, sorted by name."""
    return [
        path
        for path in bundle_files(root)
        if path.name not in _NOT_PACKED and (with_exports or not path.name.endswith(EXPORTS))
    ]


def _write(root: Path, files: list[Path], handle: IO[bytes]) -> None:
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for path in files:
            info = zipfile.ZipInfo(f"{root.name}/{path.relative_to(root).as_posix()}", _EPOCH)
            info.external_attr = _FILE_MODE << 16
            info.create_system = 3  # Unix, on every system
            info.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(info, "w") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
