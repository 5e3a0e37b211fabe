"""``msrf-monai doctor``: what this installation can do, and the exact command for each thing that it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import logging
import platform
import re
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Annotated, Any

import typer

from msrf_monai import __version__

__all__ = ["Finding", "app", "examine"]

logger = logging.getLogger(__name__)

app = typer.Typer(help="Show what works here, and what to install for the rest.", add_completion=False)

_JPEG = "1.2.840.10008.1.2.4."
_SYNTAXES = {
    _JPEG + "50": "JPEG baseline",
    _JPEG + "51": "JPEG extended, 12 bits",
    _JPEG + "57": "JPEG lossless",
    _JPEG + "70": "JPEG lossless, first order",
    _JPEG + "80": "JPEG-LS lossless",
    _JPEG + "81": "JPEG-LS near lossless",
    _JPEG + "90": "JPEG 2000 lossless",
    _JPEG + "91": "JPEG 2000",
    _JPEG + "201": "HTJ2K lossless",
    _JPEG + "202": "HTJ2K lossless, RPCL",
    _JPEG + "203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE",
}
"""Short names; pydicom's fill a line."""
_SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where servers are, which is not on everybody's path."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    group: str
    name: str
    """What it is for, in words."""
    works: bool
    detail: str
    """Version or place; of what does not work, what is wrong with it."""
    install: str = ""
    """The command that brings it; empty when it works or nothing can be installed."""


@dataclass(frozen=True)
class _Library:
    group: str
    name: str
    module: str
    package: str


@dataclass(frozen=True)
class _Program:
    group: str
    name: str
    program: str
    install: str


_LIBRARIES = (
    _Library("backends", "eager, torchscript (PyTorch)", "torch", "torch"),
    _Library("backends", "onnxruntime", "onnxruntime", "onnxruntime"),
    _Library("backends", "openvino", "openvino", "openvino"),
    _Library("backends", "export to ONNX for both", "onnxscript", "onnxscript"),
    _Library("backends", "digests in large_files.yml", "yaml", "pyyaml"),
    _Library("writing", "DICOM SEG, SR, presentation states", "highdicom", "highdicom"),
    _Library("writing", "NIfTI masks", "nibabel", "nibabel"),
    _Library("writing", "report.html", "jinja2", "jinja2"),
    _Library("slides", "DICOM whole slides", "pydicom.pixels", "pydicom"),
    _Library("slides", "tiles of TIFF and SVS", "imagecodecs", "imagecodecs"),
    _Library("slides", "NDPI, MIRAX and others' (OpenSlide)", "openslide", "openslide-python openslide-bin"),
    _Library("slides", "masks as pyramid OME-TIFF", "tifffile", "tifffile"),
    _Library("network", "C-STORE in and out (pynetdicom)", "pynetdicom", "pynetdicom"),
    _Library("network", "DICOMweb (requests)", "requests", "requests"),
    _Library("scale-out", "several machines (Ray)", "ray", "ray"),
)

_PROGRAMS = (
    _Program("validators", "dciodvfy, all objects but LABELMAP", "dciodvfy", "apt-get install dicom3tools"),
    _Program("validators", "dcmpschk, presentation states", "dcmpschk", "apt-get install dcmtk"),
    _Program("validators", "dcmqi, segmentations", "segimage2itkimage", "pip install dcmqi"),
    _Program("validators", "dcmqi, structured reports", "tid1500reader", "pip install dcmqi"),
    _Program("network", "Orthanc, a PACS to test against", "Orthanc", "apt-get install orthanc orthanc-dicomweb"),
)

_NOT_FOR_THIS = ("all", "dev", "label")
"""Extras that bring far more, or, for MONAI Label, older versions."""

_GROUPS = ("decoders", "backends", "writing", "slides", "validators", "network", "scale-out")


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Try everything that is optional; the exit code is 0 whatever is missing."""
    findings = list(examine())
    if as_json:
        machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
        shown = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"version": __version__, **machine, "findings": shown}, indent=2))
        return
    typer.echo(f"msrf-monai {__version__}, Python {platform.python_version()}, {platform.system()}")
    width = max(len(finding.name) for finding in findings)
    for group in _GROUPS:
        typer.echo(f"\n{group}")
        for finding in (each for each in findings if each.group == group):
            end = f"{finding.detail}: {finding.install}" if finding.install else finding.detail
            typer.echo(f"  {'ok     ' if finding.works else 'missing'}  {finding.name:<{width}}  {end}")
    missing = sum(not finding.works for finding in findings)
    typer.echo(f"\n{len(findings) - missing} of {len(findings)} work; what is missing is needed only for what it names")


def examine() -> Iterator[Finding]:
    """Try every optional part of the package.

    Yields:
        What was found, group by group; nothing is raised for what is missing or broken.
    """
    yield from _decoders()
    for library in _LIBRARIES:
        yield _library(library)
    yield from _accelerators()
    for program in _PROGRAMS:
        yield _program(program)


def _decoders() -> Iterator[Finding]:
    """Ask reading itself which transfer syntaxes it decodes, so that this list never differs from what it does."""
    reading, problem = _load("msrf_monai.clinical.reading.decoders")
    if reading is None:
        yield Finding("decoders", "compressed DICOM", False, problem, _pip("pydicom"))
        return
    from pydicom.uid import UID

    from msrf_monai.errors import DataError, MissingExtraError

    yield Finding("decoders", "uncompressed and deflated", True, "pydicom " + _version("pydicom"))
    for uid, (_, package) in reading.PINNED_PLUGINS.items():
        name = f"{_SYNTAXES.get(uid, UID(uid).name)} ({uid.removeprefix('1.2.840.10008.1.2')})"
        try:
            reading.pinned_plugin(UID(uid))
        except (DataError, MissingExtraError):
            yield Finding("decoders", name, False, f"{package} is not installed", _pip(package))
        else:
            yield Finding("decoders", name, True, f"{package} {_version(package)}")


def _library(library: _Library) -> Finding:
    module, problem = _load(library.module)
    first = library.package.split()[0]
    if module is None:
        return Finding(library.group, library.name, False, problem, _pip(library.package))
    return Finding(library.group, library.name, True, f"{first} {_version(first)}".strip())


def _accelerators() -> Iterator[Finding]:
    torch, _ = _load("torch")
    names = _quietly(lambda: [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]) or []
    if names:
        yield Finding("backends", "CUDA", True, ", ".join(names))
    else:
        built = torch is not None and torch.version.cuda is not None
        detail = "no NVIDIA GPU or no driver" if built else "this build of PyTorch has no CUDA"
        yield Finding("backends", "CUDA", False, detail, "" if built else "see https://pytorch.org/get-started/locally")
    runtime, _ = _load("onnxruntime")
    providers = _quietly(lambda: list(runtime.get_available_providers())) or []
    for name, provider in (("onnxruntime on CUDA", "CUDA"), ("tensorrt", "Tensorrt")):
        works = f"{provider}ExecutionProvider" in providers
        detail = "its provider is there" if works else "ONNX Runtime has no such provider"
        package = "onnxruntime-gpu" + (" tensorrt" if name == "tensorrt" else "")
        yield Finding("backends", name, works, detail, "" if works else f"pip install {package}")


def _program(program: _Program) -> Finding:
    # a virtual environment that is not activated has its programs beside its Python
    places = (None, sysconfig.get_path("scripts"), _SYSTEM_PROGRAMS)
    path = next((found for place in places if (found := shutil.which(program.program, path=place))), None)
    if path is None:
        return Finding(program.group, program.name, False, f"no {program.program} on the path", program.install)
    return Finding(program.group, program.name, True, path)


def _load(name: str) -> tuple[Any, str]:
    """Import a module without a word; return it, or None and what is wrong with it."""
    top = name.partition(".")[0]
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(name), ""
    except ModuleNotFoundError as error:
        if error.name == top:
            return None, "not installed"
        return None, f"installed, but it needs {error.name}"
    except Exception as error:  # a library with a broken binary raises nearly anything
        return None, f"installed, but it does not load ({type(error).__name__})"


def _quietly(ask: Callable[[], list[str]]) -> list[str] | None:
    try:
        return ask()
    except Exception as error:  # drivers that do not fit raise nearly anything, and then there is no such device
        logger.debug("no answer about devices (%s)", type(error).__name__)
        return None


def _pip(packages: str) -> str:
    """Return the command that installs packages: by what of this package needs them, so that versions fit."""
    wanted = {_normal(package) for package in packages.split()}
    for extra, brought in sorted(_requirements().items()):
        if wanted <= brought:
            return f"pip install 'msrf-monai[{extra}]'" if extra else "pip install msrf-monai"
    return f"pip install {packages}"


def _requirements() -> dict[str, set[str]]:
    """Return what this package needs by itself (the extra ``""``) and what each extra for users brings."""
    found: dict[str, set[str]] = {}
    try:
        requirements = importlib.metadata.requires("msrf-monai") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*[\"']([^\"']+)", requirement)
        if name and (extra is None or extra[1] not in _NOT_FOR_THIS):
            found.setdefault(extra[1] if extra else "", set()).add(_normal(name[0]))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package.replace("-", "_")), "__version__", ""))
