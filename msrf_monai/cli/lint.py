"""``msrf-monai lint``: every check of a bundle, and what a bundle of others would execute."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from msrf_monai import __version__
from msrf_monai.bundle.explain import Explanation, Item, explain_bundle
from msrf_monai.bundle.linting import Check, run_checks
from msrf_monai.cli.info import find_bundles

__all__ = ["app", "bundle_folder"]

app = typer.Typer(help="Check bundles offline, and show what one would execute.", add_completion=False)

_ALL = "all"
_SHOWN_PLACES = 3
_LONGEST = 160
_STATES = {"ok": "ok", "problems": "PROBLEMS", "not checked": "not checked"}
_TITLES = (
    ("script", "code of its own"),
    ("weights", "files that are loaded"),
    ("address", "addresses"),
    ("macro", "values taken from other files"),
    ("logging", "logging, which Python evaluates"),
    ("link", "links"),
    ("unread", "not read"),
)


@app.command()
def lint(
    bundle: Annotated[
        str, typer.Argument(help="Folder of a bundle, its name in the folder bundles, or all for every one found.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out what needs torch: building the network.")] = False,
    explain: Annotated[
        bool | None,
        typer.Option(
            "--explain/--no-explain",
            help="List what it would execute, without executing it; by default for bundles that info does not find.",
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="MONAI's JSON schema for metadata; else what MSRF_METADATA_SCHEMA names.", dir_okay=False),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Also execute a bundle of others, when its files are clean."),
    ] = False,
) -> None:
    """Check bundles; the exit code is 0 when all is well, 1 when there are problems, 2 after a wrong use."""
    known = {folder.resolve() for folder in find_bundles()}
    folders = find_bundles() if bundle == _ALL else [bundle_folder(bundle)]
    if not folders:
        raise typer.BadParameter("no bundles found in ./bundles or beside the package; give the folder of one")
    reports = []
    is_clean = True
    for folder in folders:
        checks = run_checks(folder, fast=fast, trusted=trust or _is_ours(folder), schema=schema)
        is_clean = is_clean and not any(check.problems for check in checks)
        wanted = explain if explain is not None else folder.resolve() not in known
        explanation = explain_bundle(folder) if wanted else None
        if as_json:
            reports.append(_as_json(folder, checks, explanation))
            continue
        for line in _lines(folder, checks, explanation):
            typer.echo(_plain(line))
    if as_json:
        typer.echo(json.dumps({"version": __version__, "ok": is_clean, "bundles": reports}, indent=2))
    raise typer.Exit(0 if is_clean else 1)


def bundle_folder(given: str) -> Path:
    """Return the folder of a bundle that is given by its folder or by its name among those found.

    Raises:
        typer.BadParameter: when it is neither.
    """
    if Path(given).is_dir():
        return Path(given)
    named = {folder.name: folder for folder in find_bundles()}
    if given in named:
        return named[given]
    what = "is a file; unpack it first: msrf-monai unpack" if Path(given).is_file() else "is no folder"
    known = f", or one of {', '.join(sorted(named))}" if named else ""
    raise typer.BadParameter(f"{given} {what}; give the folder of a bundle{known}")


def _is_ours(folder: Path) -> bool:
    """Say whether a bundle belongs to the checkout that this package runs from, and so is no more code than that."""
    return folder.resolve().parent == Path(__file__).resolve().parents[2] / "bundles"


def _as_json(folder: Path, checks: list[Check], explanation: Explanation | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "folder": str(folder),
        "name": folder.resolve().name,
        "ok": not any(check.problems for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    if explanation is not None:
        report["executes"] = [asdict(item) for item in explanation.items]
    return report


def _lines(folder: Path, checks: list[Check], explanation: Explanation | None) -> Iterator[str]:
    yield f"{folder.resolve().name} ({folder})"
    width = max(len(check.name) for check in checks)
    for check in checks:
        end = check.note or check.what
        yield f"  {_STATES[check.state]:<11}  {check.name:<{width}}  {end}"
        yield from (f"      {problem}" for problem in check.problems)
    counts = Counter(check.state for check in checks)
    problems = sum(len(check.problems) for check in checks)
    yield f"  {counts['ok']} checks ok, {problems} problems, {counts['not checked']} not checked"
    if explanation is not None:
        yield ""
        yield from _explained(explanation)
    yield ""


def _explained(explanation: Explanation) -> Iterator[str]:
    yield f"what {explanation.bundle} would execute (nothing of it was imported, evaluated or loaded)"
    dangerous = explanation.dangerous
    yield f"  beyond the rules for configs: {len(dangerous) or 'nothing'}"
    for item in dangerous:
        yield f"    {item.place}  {item.kind}  {_short(item.text)}"
        yield from (f"        {warning}" for warning in item.warnings)
    for module, items in explanation.by_module().items():
        yield f"  {module} ({len(items)})"
        yield from _grouped(items)
    for kind, title in _TITLES:
        others = [item for item in explanation.items if item.kind == kind]
        if others:
            yield f"  {title} ({len(others)})"
            yield from _grouped(others)
    plain = [item for item in explanation.items if item.kind == "expression" and not item.module]
    if plain:
        yield f"  expressions without a module ({len(plain)})"
        yield from _grouped(plain)


def _grouped(items: Iterable[Item]) -> Iterator[str]:
    """Yield one line a text with its count and places, those with warnings first."""
    places: dict[str, list[str]] = {}
    for item in sorted(items, key=lambda item: not item.warnings):
        places.setdefault(("! " if item.warnings else "  ") + _short(item.text), []).append(item.place)
    for text, found in places.items():
        more = f", and {len(found) - _SHOWN_PLACES} more" if len(found) > _SHOWN_PLACES else ""
        count = f" x{len(found)}" if len(found) > 1 else ""
        yield f"    {text}{count}  in {', '.join(found[:_SHOWN_PLACES])}{more}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _plain(line: str) -> str:
    """Return a line in which nothing moves a terminal's cursor or hides: names and texts come from strangers."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
