"""Whether a bundle is what its author recorded: every file, and what its network gives in every form it is run in."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from msrf_monai.bundle.package import EXPORTS
from msrf_monai.bundle.stored_io import StoredIO, read_stored_io, record_stored_io
from msrf_monai.bundle.tree import bundle_files
from msrf_monai.clinical.backends import Backend, Runnable, build_backend, first_output, pick_device
from msrf_monai.clinical.predictor_config import read_bundle
from msrf_monai.clinical.predictor_network import load_runnable
from msrf_monai.errors import ConfigError, MissingExtraError, MsrfError
from msrf_monai.files import sha256_of, write_text

__all__ = [
    "BACKENDS",
    "SUMS",
    "Comparison",
    "FileCheck",
    "Tolerance",
    "check_files",
    "compare",
    "record",
    "verify_outputs",
]

BACKENDS: tuple[Backend, ...] = ("eager", "torchscript", "onnxruntime", "openvino")
SUMS = "SHA256SUMS"
"""Digests of a bundle's files, in the format of ``sha256sum``."""


@dataclass(frozen=True)
class FileCheck:
    """One file of a bundle beside what ``SHA256SUMS`` says of it."""

    path: str
    """Below the bundle's folder, with slashes."""
    sha256: str | None
    """None when the file is missing."""
    problem: str | None
    """``"changed"``, ``"missing"``, ``"not listed"`` or None."""


@dataclass(frozen=True)
class Tolerance:
    """How far two values may be apart: ``absolute + relative * |stored|``, as ``numpy.isclose`` counts.

    Raises:
        ConfigError: when a number is negative or not finite.
    """

    absolute: float = 1e-3
    relative: float = 1e-3
    ppm: float = 0.0
    """How many values in a million may be further apart."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(each) and each >= 0 for each in (self.absolute, self.relative, self.ppm)):
            raise ConfigError(f"tolerances must be finite numbers of 0 or more, got {self}")


@dataclass(frozen=True)
class Comparison:
    """One stored output beside what the network gives now."""

    backend: Backend
    n: int
    """Number of the stored input."""
    shape: tuple[int, ...]
    mismatched: int
    """Values that are further apart than the tolerance allows, or not finite."""
    ppm: float
    """The same in parts per million."""
    worst: tuple[int, ...] | None
    """Index of the largest difference; None when shapes differ."""
    stored: float | None
    found: float | None
    """The two values there."""
    seconds: float
    problem: str | None
    """One sentence, or None when all is well."""


def check_files(bundle: str | os.PathLike[str]) -> list[FileCheck]:
    """Compare every file of a bundle with ``SHA256SUMS``.

    Exported networks (``EXPORTS``) and what runs leave are no files of a bundle unless they are listed.

    Args:
        bundle: its folder.

    Returns:
        Every file that is there or listed, by name.

    Raises:
        ConfigError: when the list is missing or holds something else.
    """
    root = Path(bundle)
    listed = _read_sums(root / SUMS)
    there = {path.relative_to(root).as_posix(): path for path in _files(root)}
    found = []
    for name in sorted({*listed, *there}):
        path = there.get(name, root / name)
        digest = sha256_of(path) if path.is_file() and not path.is_symlink() else None
        problem: str | None
        if digest is None:
            problem = "missing"
        elif name not in listed:
            problem = "not listed"
        else:
            problem = None if digest == listed[name] else "changed"
        if problem != "not listed" or not name.endswith(EXPORTS):
            found.append(FileCheck(name, digest, problem))
    return found


def record(bundle: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Store what the network gives, and the digests of all files; for a bundle's author.

    Args:
        bundle: folder of the bundle.

    Returns:
        ``models/test_io.safetensors`` and ``SHA256SUMS``.

    Raises:
        MsrfError: when the bundle has no weights, cannot be run, or the files cannot be written.
    """
    root = Path(bundle)
    stored = record_stored_io(root, load_runnable(read_bundle(root)))
    lines = [
        f"{sha256_of(path)}  {path.relative_to(root).as_posix()}\n"
        for path in _files(root)
        if not path.name.endswith(EXPORTS)
    ]
    write_text(root / SUMS, "".join(lines))
    return stored, root / SUMS


def verify_outputs(
    bundle: str | os.PathLike[str],
    backends: Sequence[Backend] = BACKENDS,
    *,
    tolerance: Tolerance | None = None,
    cache: Path | None = None,
) -> Iterator[Comparison]:
    """Run the network on its stored inputs, in every form, and compare with its stored outputs.

    Args:
        bundle: folder of the bundle.
        backends: the forms.
        tolerance: default ``Tolerance()``.
        cache: folder of exported networks; None for the user's own.

    Yields:
        A comparison for each form and each input. A form that cannot be made has one, with the reason.

    Raises:
        MsrfError: when the bundle cannot be read, or has no weights or no stored outputs.
        MissingExtraError: when the library of a form is not installed.
    """
    tolerance = tolerance or Tolerance()
    stored = read_stored_io(bundle)
    source = load_runnable(read_bundle(Path(bundle)), cache=cache)
    for backend in backends:
        yield from _in_one_form(backend, source, stored, tolerance)


def compare(stored: torch.Tensor, found: torch.Tensor, tolerance: Tolerance) -> tuple[int, tuple[int, ...]]:
    """Count the values that are too far apart, and find the worst.

    Args:
        stored: any shape, at least one value.
        found: the same shape.
        tolerance: how far they may be apart. A value that is not finite in ``found`` is too far from everything.

    Returns:
        The count, and the index of the largest difference, the first one where there are several.
    """
    expected, got = stored.double(), found.double()
    difference = torch.where(got.isfinite(), (expected - got).abs(), torch.inf)
    too_far = ~(difference <= tolerance.absolute + tolerance.relative * expected.abs()) | ~got.isfinite()
    place = torch.unravel_index(difference.argmax(), difference.shape)
    return int(too_far.sum()), tuple(int(each) for each in place)


def _in_one_form(backend: Backend, source: Runnable, stored: StoredIO, tolerance: Tolerance) -> Iterator[Comparison]:
    started = time.perf_counter()
    try:
        network = build_backend(backend, source, pick_device("cpu", backend))
    except MissingExtraError:
        raise
    except MsrfError as error:
        yield Comparison(backend, 0, (), 0, 0.0, None, None, None, time.perf_counter() - started, str(error))
        return
    for n, (image, expected) in enumerate(zip(stored.inputs, stored.outputs, strict=True)):
        shape = tuple(expected.shape)
        try:
            with torch.no_grad():
                found = first_output(network(image)).float()
        except Exception as error:  # each library fails in its own way, and other sizes may do
            seconds, started = time.perf_counter() - started, time.perf_counter()
            reason = f"it cannot take the stored input ({type(error).__name__}: {str(error)[:200]})"
            yield Comparison(backend, n, shape, 0, 0.0, None, None, None, seconds, reason)
            continue
        seconds, started = time.perf_counter() - started, time.perf_counter()
        if found.shape != expected.shape:
            reason = f"it gives the shape {tuple(found.shape)}, stored is {shape}"
            yield Comparison(backend, n, shape, 0, 0.0, None, None, None, seconds, reason)
            continue
        mismatched, worst = compare(expected, found, tolerance)
        ppm = 1e6 * mismatched / expected.numel()
        problem = f"{ppm:.3g} ppm of the values are too far apart" if ppm > tolerance.ppm else None
        values = float(expected[worst]), float(found[worst])
        yield Comparison(backend, n, shape, mismatched, ppm, worst, *values, seconds, problem)


def _files(root: Path) -> Iterator[Path]:
    for path in bundle_files(root):
        if path != root / SUMS and path.name != ".gitkeep":
            yield path


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ConfigError(f"{path} is missing; the bundle's author makes it with msrf-monai verify BUNDLE --record")
    listed = {}
    # what is no text is no line that is looked for either
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"{path}: line {number} is no digest with the name of a file in the bundle")
        listed[name] = digest
    return listed
