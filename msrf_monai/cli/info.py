"""``msrf-monai info``: this installation and its bundles, at once, since neither torch nor MONAI is imported."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from msrf_monai import __version__
from msrf_monai.errors import DataError
from msrf_monai.files import sha256_of

__all__ = ["app", "describe_bundle", "find_bundles"]

app = typer.Typer(help="Show this installation and its bundles.", add_completion=False)

_LIBRARIES = ("torch", "monai", "pytorch-ignite", "numpy", "pydicom", "highdicom", "onnxruntime", "openvino")
_METADATA = Path("configs") / "metadata.json"
_LISTINGS = ("large_files.yml", "large_files.yaml")
_WEIGHTS = ("models/model.pt", "models/model.safetensors")
_MOST_HASHED_BYTES = 1 << 28
_LICENCES = {
    r"Apache License\s+Version 2\.0": "Apache-2.0",
    r"MIT License": "MIT",
    r"BSD 3-Clause": "BSD-3-Clause",
    r"Attribution 4\.0 International": "CC-BY-4.0",
}


@app.command()
def info(
    bundle: Annotated[
        str | None, typer.Argument(help="Folder of a bundle, or its name in the folder bundles; default: all found.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read weights above 256 MiB for their digest too.")] = False,
) -> None:
    """Show the versions here, and what is known of each bundle."""
    folders = [_folder_of(bundle)] if bundle is not None else find_bundles()
    versions = {name: found for name in _LIBRARIES if (found := _version(name))}
    described = [describe_bundle(folder, verify=verify) for folder in folders]
    if as_json:
        package = {"name": "msrf-monai", "version": __version__, "python": platform.python_version()}
        typer.echo(json.dumps({"package": package, "libraries": versions, "bundles": described}, indent=2))
        return
    typer.echo(f"msrf-monai {__version__}, Python {platform.python_version()}")
    typer.echo("    " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for each in described:
        typer.echo("")
        for line in _lines(each):
            typer.echo(line)
    if not described:
        typer.echo("no bundles found in ./bundles; give the folder of one: msrf-monai info FOLDER")


def find_bundles() -> list[Path]:
    """Return the bundles in ``./bundles`` and, of a checkout, beside the package; sorted, each once."""
    found: dict[Path, Path] = {}
    for root in _roots():
        for path in root.glob(f"*/{_METADATA.as_posix()}"):
            found.setdefault(path.parent.parent.resolve(), path.parent.parent)
    return [found[key] for key in sorted(found)]


def describe_bundle(folder: Path, *, verify: bool = False) -> dict[str, Any]:
    """Return what a bundle's files say of it, in a form that JSON holds.

    Args:
        folder: the bundle's.
        verify: read weights for their digest however large they are.

    Raises:
        DataError: when it has no metadata.json that can be read.
    """
    metadata = _read_json(folder / _METADATA)
    data = metadata.get("network_data_format") or {}
    return {
        "folder": str(folder),
        "name": metadata.get("name", folder.name),
        "version": metadata.get("version", ""),
        "task": metadata.get("task", ""),
        "network": _network_of(folder),
        "inputs": {name: _format_of(image) for name, image in (data.get("inputs") or {}).items()},
        "outputs": {name: _format_of(image) for name, image in (data.get("outputs") or {}).items()},
        "labels": _labels_of(metadata),
        "weights": _weights_of(folder, verify),
        "licence": _licence_of(folder, metadata),
        "data_source": metadata.get("data_source", ""),
        "measured": metadata.get("eval_metrics") or {},
        "intended_use": metadata.get("intended_use", ""),
    }


def _lines(bundle: Mapping[str, Any]) -> Iterator[str]:
    yield f"{bundle['name']} {bundle['version']}"
    weights = bundle["weights"]
    state = weights["state"]
    if weights["path"]:
        checked = f", sha256 {weights['sha256']}" if weights["sha256"] else ""
        state = f"{weights['path']}, {weights['bytes'] / 1e6:.1f} MB{checked} ({state})"
    labels = (
        f"{each['number']} {each['label']}" + (f" ({each['scheme']} {each['code']})" if each["code"] else "")
        for each in bundle["labels"]
    )
    for title, text in (
        ("folder", bundle["folder"]),
        ("task", bundle["task"]),
        ("network", bundle["network"]),
        ("input", "; ".join(map(_shown, bundle["inputs"].values()))),
        ("labels", ", ".join(labels)),
        ("weights", state),
        ("licence", bundle["licence"]),
        ("data", bundle["data_source"]),
        ("measured", ", ".join(f"{name} {value}" for name, value in bundle["measured"].items()) or "nothing yet"),
        ("use", bundle["intended_use"]),
    ):
        if text:
            yield f"    {title + ':':<12}{text}"


def _shown(image: Mapping[str, Any]) -> str:
    size = " x ".join(str(part) for part in image["size"])
    parts = (image["modality"], f"{image['channels']} channels ({', '.join(image['channel_names'])})", size)
    return ", ".join(part for part in parts if part)


def _format_of(image: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": image.get("format", ""),
        "modality": image.get("modality", ""),
        "channels": image.get("num_channels"),
        "channel_names": list((image.get("channel_def") or {}).values()),
        "size": image.get("spatial_shape") or [],
    }


def _labels_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the classes as ``clinical.writing.segments_from_metadata`` reads them, without what that imports."""
    if metadata.get("segments"):
        made = []
        for item in metadata["segments"]:
            code = item.get("SegmentedPropertyTypeCodeSequence") or {}
            label = {"number": item.get("labelID"), "label": item.get("SegmentLabel", "")}
            made.append({**label, "code": code.get("CodeValue", ""), "scheme": code.get("CodingSchemeDesignator", "")})
        return made
    outputs = (metadata.get("network_data_format") or {}).get("outputs") or {}
    channels = next((image.get("channel_def") or {} for image in outputs.values()), {})
    return [
        {"number": int(number), "label": name, "code": "", "scheme": ""}
        for number, name in channels.items()
        if int(number) > 0
    ]


def _network_of(folder: Path) -> str:
    """Return the class of the network in the configuration of inference, or nothing when it is not JSON."""
    try:
        config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    candidates = (config.get(name) for name in ("network_def", "network"))
    named = next((each["_target_"] for each in candidates if isinstance(each, dict) and "_target_" in each), "")
    return str(named).rpartition(".")[2]


def _weights_of(folder: Path, verify: bool) -> dict[str, Any]:
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        listed = _listed_digest(folder, "models/model.pt")
        state = "not here; large_files.yml says where they are" if listed else "not here; train the bundle first"
        return {"path": "", "bytes": 0, "sha256": "", "state": state}
    name = path.relative_to(folder).as_posix()
    size = path.stat().st_size
    digest = sha256_of(path) if verify or size <= _MOST_HASHED_BYTES else ""
    return {"path": name, "bytes": size, "sha256": digest, "state": _compare(digest, _listed_digest(folder, name))}


def _compare(digest: str, listed: str) -> str:
    if not digest:
        return "not checked; --verify does"
    if not listed:
        return "no digest to compare with"
    return "as listed" if digest == listed else f"NOT the file that is listed, whose sha256 is {listed}"


def _listed_digest(folder: Path, name: str) -> str:
    """Return the SHA-256 that a bundle states for a file: in large_files.yml, or in the JSON beside it."""
    for listing in _LISTINGS:
        # read as text: a library for YAML takes longer than all else here, and need not be installed
        text = (folder / listing).read_text(encoding="utf-8") if (folder / listing).is_file() else ""
        for entry in re.split(r"^\s*-\s", text, flags=re.MULTILINE):
            digest = re.search(r"hash_val:\s*[\"']?([0-9a-fA-F]{64})\b", entry)
            if digest and re.search(rf"path:\s*[\"']?{re.escape(name)}[\"']?\s*$", entry, flags=re.MULTILINE):
                return digest[1].lower()
    beside = (folder / name).with_suffix(".json")
    return str(_read_json(beside).get("sha256", "")) if beside.is_file() else ""


def _licence_of(folder: Path, metadata: Mapping[str, Any]) -> str:
    stated = metadata.get("license") or metadata.get("licence")
    if stated:
        return str(stated)
    path = next((folder / name for name in ("LICENSE", "LICENSE.txt", "LICENCE") if (folder / name).is_file()), None)
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")[:4000]
    known = next((name for pattern, name in _LICENCES.items() if re.search(pattern, text)), "")
    return known or next((line.strip() for line in text.splitlines() if line.strip()), "")


def _roots() -> Iterator[Path]:
    yield Path("bundles")
    yield Path(__file__).resolve().parents[2] / "bundles"


def _folder_of(bundle: str) -> Path:
    candidates = [Path(bundle), *(root / bundle for root in _roots())]
    found = next((folder for folder in candidates if (folder / _METADATA).is_file()), None)
    if found is None:
        known = ", ".join(folder.name for folder in find_bundles())
        raise DataError(
            f"{bundle} is no bundle: it has no {_METADATA.as_posix()}; give its folder"
            + (f", or one of {known}" if known else "")
        )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}); mend it or fetch the bundle again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; mend it or fetch the bundle again")
    return content


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
