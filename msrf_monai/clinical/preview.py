"""What a run would do, input by input, and why: nothing is decoded, no network is loaded, no file is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from msrf_monai.clinical.failures import describe
from msrf_monai.clinical.inputs import PlannedInput, expand_patterns, plan_inputs
from msrf_monai.clinical.ledger import MANIFEST, Entry, read_manifest
from msrf_monai.clinical.outputs import plan_outputs
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.reading import open_case
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.clinical.sent_again import SUPERSEDED, settle
from msrf_monai.clinical.slides import open_slide
from msrf_monai.clinical.sources import KnownSources
from msrf_monai.errors import ConfigError, DataError
from msrf_monai.json_files import read_json

__all__ = ["Planned", "bundle_identity", "preview"]


@dataclass(frozen=True)
class Planned:
    """What a run would do with one input, and why."""

    input: str
    """See ``Entry.input``."""
    folder: str
    action: Literal["predict", "keep", "refuse", "skip", "take back"]
    """``keep``: an earlier run has finished it, as far as its digest says; ``take back``: an earlier run's result goes,
    since what it was made of has changed or makes other inputs now."""
    code: str = ""
    reason: str = ""
    kind: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 0
    outputs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    path: str = ""
    """The file as the user would name it, where it cannot be predicted and ``input`` does not say which it is; empty
    with ``hide_names``. It may name a patient, so it is for the user's own screen."""


def preview(inputs: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str], **options: Any) -> list[Planned]:
    """Say what ``predict`` would do, without decoding a pixel, loading a network or writing a file.

    Args:
        inputs: as ``predict``.
        output: as ``predict``; read when it holds results.
        **options: as ``predict``.

    Returns:
        One for each input, in the order of the run, then one for each earlier result that goes.

    Raises:
        InputError: when there are no inputs, or the result folder holds something else.
        ConfigError: when an option makes no sense.
    """
    settings = RunOptions(**options)
    results = ResultFolder(Path(output))
    results.check_is_ours()
    results.check_is_new(resume=settings.resume)
    entries = {}
    if (results.root / MANIFEST).exists():
        entries = {entry.folder: entry for entry in read_manifest(results.root).entries}
    with PrivateLogs().active():
        given = expand_patterns(inputs)
        plan = plan_inputs(given, settings.input_options(results.root))
        sources = KnownSources.of(results.root, hashed=not settings.source_list)
        settled = settle(plan, entries, sources, settings.limits)
        found = [_foreseen(each, entries.get(each.folder), results, settings) for each in settled.plan]
    if not settings.hide_names:
        found = [
            replace(each, path=_as_given(planned.paths[0], given)) if _needs_path(each, planned) else each
            for each, planned in zip(found, settled.plan, strict=True)
        ]
    gone = settled.superseded.items()
    return found + [Planned(entries[folder].input, folder, "take back", SUPERSEDED, why) for folder, why in gone]


def bundle_identity(bundle: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the name and the version of a bundle, from its metadata alone.

    Raises:
        ConfigError: when the folder holds no bundle.
    """
    try:
        found = read_json(Path(bundle) / "configs" / "metadata.json", "give the folder of a MONAI bundle")
    except DataError as error:
        raise ConfigError(str(error)) from error
    return str(found.get("name") or Path(bundle).resolve().name), str(found.get("version") or "")


def _foreseen(planned: PlannedInput, before: Entry | None, results: ResultFolder, settings: RunOptions) -> Planned:
    """Return what a run would do with one input."""
    found = Planned(planned.label, planned.folder, "predict", flags=planned.flags)
    if planned.skipped is not None:
        return replace(found, action="skip", code=planned.skipped[0], reason=planned.skipped[1])
    try:
        if planned.refusal is not None:
            raise planned.refusal
        if planned.is_slide:
            return _foreseen_slide(found, planned)
        case = planned.case or open_case(
            planned.paths[0], settings.limits, convert_unusual=settings.convert_unusual, keep=False
        )
    except Exception as error:
        code, reason = describe(error, "read", planned.paths)
        return replace(found, action="refuse", code=code, reason=reason)
    kinds = plan_outputs(case.info, settings.output_options(), probabilities=settings.keeps_probabilities)
    found = replace(
        found,
        kind=case.info.kind,
        rows=case.info.rows,
        columns=case.info.columns,
        frames=case.info.frames,
        outputs=kinds.kinds,
        flags=(*case.info.notes, *planned.flags, *(f"not_written:{each.kind}" for each in kinds.skipped)),
    )
    is_kept = before is not None and before.state == "done" and before.digest == case.digest
    if before is not None and is_kept and results.holds(before.outputs):
        return replace(found, action="keep", reason="an earlier run has finished it, and it has not changed")
    return found


def _needs_path(found: Planned, planned: PlannedInput) -> bool:
    return found.action == "refuse" and not planned.shows_name


def _as_given(path: str, inputs: Iterable[str]) -> str:
    """Return a path as it follows from what the user gave, without characters that a screen would obey."""
    shown = path
    for given in inputs:
        root = os.path.abspath(given)  # noqa: PTH100 (keeps links, and names that are no Unicode)
        if path == root or path.startswith(os.path.join(root, "")):  # noqa: PTH118 (the same)
            shown = given.rstrip(os.sep) + path[len(root) :]
            break
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in shown
    )


def _foreseen_slide(found: Planned, planned: PlannedInput) -> Planned:
    with open_slide(planned.paths[0]) as slide:
        finest = slide.info.levels[0]
        flags = (*slide.info.notes, *planned.flags)
        return replace(found, kind="slide", rows=finest.rows, columns=finest.columns, frames=1, flags=flags)
