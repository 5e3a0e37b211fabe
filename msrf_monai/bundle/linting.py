"""All checks of a bundle in one go: those that only read, then, where that is wanted, those that execute it."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from msrf_monai.bundle.contents import check_contents
from msrf_monai.bundle.keys import check_keys
from msrf_monai.bundle.large_files import check_large_files, check_weights
from msrf_monai.bundle.lint import lint_bundle
from msrf_monai.bundle.metadata_checks import check_files, check_metadata, check_requirements, check_schema
from msrf_monai.errors import ConfigError, MissingExtraError

__all__ = ["SCHEMA_VARIABLE", "Check", "run_checks", "static_checks"]

SCHEMA_VARIABLE = "MSRF_METADATA_SCHEMA"
"""Environment variable with the path of MONAI's schema for metadata, which does not come with this package."""

State = Literal["ok", "problems", "not checked"]

_READING: tuple[tuple[str, str, Callable[[Path], list[str]]], ...] = (
    ("files", "LICENSE, configs and docs are there, nothing over 25 MB, no user's folder", check_files),
    ("contents", "no code, YAML, foreign pickles or links that lead out", check_contents),
    ("large files", "each has its sha256, and is the file that it says", check_large_files),
    ("weights", "models/model.pt is there or said to be missing", check_weights),
    ("metadata", "the zoo's fields, a version that is in the changelog, image and pred", check_metadata),
    ("requirements", "each is one released version", check_requirements),
    ("configs", "nothing outside the allow list; name, layout, paths, keys of data", lint_bundle),
    ("keys", "the keys that MONAI and MONAI Label look up", check_keys),
)
_EXECUTING = (
    ("properties", "MONAI's check_properties", "check_properties"),
    ("network", "MONAI's verify_net_in_out with p = n = any = 1", "check_network"),
    ("TorchScript", "ckpt_export by script, equal to eager", "check_torchscript"),
    ("model.ts", "loads, where it is shipped", "check_exported"),
)


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    what: str
    """What it asks, in words."""
    state: State
    problems: tuple[str, ...] = ()
    note: str = ""
    """Why it was not done; empty when it was."""


def run_checks(
    bundle: str | os.PathLike[str],
    *,
    fast: bool = False,
    trusted: bool = True,
    schema: str | os.PathLike[str] | None = None,
) -> list[Check]:
    """Run every check of a bundle that works offline.

    Args:
        bundle: folder of the bundle.
        fast: leave out the checks that execute it and need torch.
        trusted: False leaves them out too; they never run after a check that reads found a problem.
        schema: MONAI's schema for metadata; by default the file that ``MSRF_METADATA_SCHEMA`` names, if any.

    Returns:
        One entry a check, in order.
    """
    found = list(static_checks(bundle, schema=schema))
    reason = ""
    if fast:
        reason = "left out by --fast"
    elif any(each.state == "problems" for each in found):
        reason = "would execute the bundle, and there are problems above; mend them first"
    elif not trusted:
        reason = "would execute this bundle, which is not part of the installation; --trust does"
    for name, what, function in _EXECUTING:
        if reason:
            found.append(Check(name, what, "not checked", note=reason))
        else:
            found.append(_checked(name, what, partial(_execute, function, Path(bundle))))
    return found


def static_checks(bundle: str | os.PathLike[str], *, schema: str | os.PathLike[str] | None = None) -> Iterator[Check]:
    """Run the checks that only read; neither torch nor anything of the bundle is imported.

    Args:
        bundle: folder of the bundle.
        schema: as for ``run_checks``.

    Yields:
        One entry a check, in order.
    """
    root = Path(bundle)
    for name, what, check in _READING:
        yield _checked(name, what, partial(check, root))
        if name == "metadata":
            yield _schema_check(root, schema)


def _schema_check(root: Path, given: str | os.PathLike[str] | None) -> Check:
    name, what = "schema", "metadata.json is valid by MONAI's schema"
    path = given or os.environ.get(SCHEMA_VARIABLE)
    if not path:
        note = f"give MONAI's schema with --schema or in {SCHEMA_VARIABLE}; metadata.json says where it is"
        return Check(name, what, "not checked", note=note)
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no JSON schema that can be read ({type(error).__name__})") from error
    try:
        return _checked(name, what, partial(check_schema, root, schema))
    except MissingExtraError as error:
        return Check(name, what, "not checked", note=str(error))


def _checked(name: str, what: str, check: Callable[[], list[str]]) -> Check:
    try:
        problems = check()
    except ConfigError as error:
        problems = [str(error)]
    return Check(name, what, "problems" if problems else "ok", tuple(dict.fromkeys(problems)))


def _execute(function: str, root: Path) -> list[str]:
    """Run a check of ``checks``, whose module is imported only here, without the lines that MONAI prints meanwhile."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), tempfile.TemporaryDirectory() as folder:
        check: Any = getattr(importlib.import_module("msrf_monai.bundle.checks"), function)
        return list(check(root, folder) if function == "check_torchscript" else check(root))
