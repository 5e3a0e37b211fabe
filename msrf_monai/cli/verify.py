"""``msrf-monai verify``: a bundle's files are the recorded ones, and its network gives the stored outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from msrf_monai import __version__
from msrf_monai.bundle.verify import BACKENDS, Comparison, FileCheck, Tolerance, check_files, record, verify_outputs
from msrf_monai.cli.info import find_bundles
from msrf_monai.cli.lint import bundle_folder
from msrf_monai.clinical.backends import Backend
from msrf_monai.errors import MissingExtraError, MsrfError
from msrf_monai.json_files import null_for_nan

__all__ = ["app"]

app = typer.Typer(help="Check that bundles give what they gave when they were made.", add_completion=False)

_DEFAULT = Tolerance()


@app.command()
def verify(
    bundle: Annotated[
        str, typer.Argument(help="Folder of a bundle, its name in the folder bundles, or all for every one found.")
    ],
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="A form of the network, again for more: eager, torchscript, onnxruntime, openvino. Default: all."
        ),
    ] = None,
    atol: Annotated[float, typer.Option(help="How far a value may be from the stored one.")] = _DEFAULT.absolute,
    rtol: Annotated[
        float, typer.Option(help="The same as a part of the stored value; both are added.")
    ] = _DEFAULT.relative,
    ppm: Annotated[float, typer.Option(help="How many values in a million may be further off.")] = _DEFAULT.ppm,
    fast: Annotated[bool, typer.Option("--fast", help="Compare files only; the network is not built.")] = False,
    record_it: Annotated[
        bool, typer.Option("--record", help="For a bundle's author: store outputs and digests as they are now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify bundles; the exit code is 0 when all is well, 1 when something differs, 2 after a wrong use.

    The network is built and run: a bundle of others is code, look at it with msrf-monai lint first.
    """
    unknown = sorted(set(backend or ()) - set(BACKENDS))
    if unknown:
        raise typer.BadParameter(f"--backend {unknown[0]}: expected one of {', '.join(BACKENDS)}")
    tolerance = Tolerance(atol, rtol, ppm)
    folders = find_bundles() if bundle == "all" else [bundle_folder(bundle)]
    if not folders:
        raise typer.BadParameter("no bundles found in ./bundles or beside the package; give the folder of one")
    reports = []
    for folder in folders:
        if record_it:
            record(folder)
        report = _Report(folder, speaks=not as_json)
        report.read_files()
        if not fast:
            chosen = [name for name in BACKENDS if backend is None or name in backend]
            report.run(chosen, tolerance, skips_missing=backend is None)
        reports.append(report)
    if as_json:
        told = {"version": __version__, "ok": all(each.is_ok for each in reports)}
        content = null_for_nan({**told, "bundles": [each.as_json() for each in reports]})
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    raise typer.Exit(0 if all(each.is_ok for each in reports) else 1)


class _Report:
    """What is found of one bundle, told line by line as it is found."""

    def __init__(self, folder: Path, *, speaks: bool) -> None:
        self._folder = folder
        self._speaks = speaks
        self._files: list[FileCheck] = []
        self._comparisons: list[Comparison] = []
        self._not_checked: list[str] = []
        self._problems: list[str] = []
        self._say(f"{folder.resolve().name} ({folder})")

    @property
    def is_ok(self) -> bool:
        """Whether nothing differs."""
        return not self._problems

    def read_files(self) -> None:
        """Compare the files."""
        try:
            self._files = check_files(self._folder)
        except MsrfError as error:
            self._problem(str(error))
            return
        wrong = [each for each in self._files if each.problem]
        for each in wrong:
            self._problem(f"{each.path}: {each.problem}")
        if not wrong:
            self._say(f"  ok           {len(self._files)} files are the recorded ones")

    def run(self, backends: list[Backend], tolerance: Tolerance, *, skips_missing: bool) -> None:
        """Compare the outputs."""
        for backend in backends:
            try:
                for found in verify_outputs(self._folder, [backend], tolerance=tolerance):
                    self._comparisons.append(found)
                    if found.problem:
                        self._problem(_line(found))
                    else:
                        self._say(f"  ok           {_line(found)}")
            except MissingExtraError as error:
                if not skips_missing:
                    raise
                self._not_checked.append(backend)
                self._say(f"  not checked  {backend}: {error}")
            except MsrfError as error:
                self._problem(str(error))
                return  # the same would be said of every form

    def as_json(self) -> dict[str, Any]:
        """Return all that was found."""
        return {
            "folder": str(self._folder),
            "name": self._folder.resolve().name,
            "ok": self.is_ok,
            "problems": self._problems,
            "files": [asdict(each) for each in self._files],
            "outputs": [asdict(each) for each in self._comparisons],
            "not_checked": self._not_checked,
        }

    def _problem(self, text: str) -> None:
        self._problems.append(text)
        self._say(f"  PROBLEM      {text}")

    def _say(self, line: str) -> None:
        if self._speaks:
            typer.echo(line)


def _line(found: Comparison) -> str:
    return ", ".join(_parts(found))


def _parts(found: Comparison) -> Iterator[str]:
    size = "x".join(map(str, found.shape[2:]))
    yield f"{found.backend} {size}".rstrip()
    if found.worst is not None:
        yield f"{found.mismatched} values differ ({found.ppm:.3g} ppm)"
        yield f"most at {list(found.worst)}: stored {found.stored:.6g}, found {found.found:.6g}"
    if found.problem:
        yield found.problem
    yield f"{found.seconds:.1f} s"
