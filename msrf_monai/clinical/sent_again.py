"""What becomes of earlier results when some of their files are given again, under another input's name.

A result goes only when what it was made of is known to have changed, or when all its files are in the plan and make
other inputs now. A part of a volume that comes again unchanged takes nothing away, and is no input of its own. Some
files of a DICOM slide take nothing away either, but are predicted by themselves: whether they have changed would have
to be read from gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry
from msrf_monai.clinical.naming import short_hash
from msrf_monai.clinical.reading import Limits, RefusedInput, kind_of
from msrf_monai.clinical.reading.dicom_header import parse_dicom
from msrf_monai.clinical.reading.quiet import quiet_pydicom, refusing_bad_headers
from msrf_monai.clinical.reading.regular import digest_of, read_head, read_regular
from msrf_monai.clinical.reading.series import VolumeSlices
from msrf_monai.clinical.reading.volume_file import joint_digest
from msrf_monai.clinical.slide_inputs import head_limits
from msrf_monai.clinical.sources import FileMark, KnownSources

__all__ = ["ALREADY_IN_VOLUME", "SUPERSEDED", "Settled", "marks_of", "settle"]

ALREADY_IN_VOLUME = "already_in_volume"
"""Code of an input that is an unchanged part of a volume whose result stands."""
SUPERSEDED = "superseded"
"""Code of a result that was taken back."""
_SETTLED = (SUPERSEDED, ALREADY_IN_VOLUME)


@dataclass(frozen=True)
class Settled:
    """A plan, and what it takes back."""

    plan: list[PlannedInput]
    superseded: Mapping[str, str]
    """The folders whose results no longer hold, each with the reason."""


@dataclass
class _Earlier:
    """An input of an earlier run, some of whose files are in the plan as other inputs."""

    entry: Entry
    files: Mapping[str, FileMark]
    same: set[str] = field(default_factory=set)
    """Files that are there again and have not changed."""
    unknown: set[str] = field(default_factory=set)
    """Files of which nothing is known but that they are there again."""
    changed: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)
    """Folders of the inputs that its files are now."""

    def meet(self, name: str, mark: FileMark, folder: str) -> None:
        """Take note of a file that is there again as a part of another input."""
        before = self.files[name].digest
        known = self.changed if mark.digest != before else self.same
        (known if before and mark.digest else self.unknown).add(name)
        self.now.add(folder)

    @property
    def is_superseded(self) -> bool:
        met = self.same | self.unknown | self.changed
        return bool(self.changed) or met == self.files.keys()

    @property
    def reason(self) -> str:
        why = "its files have changed since" if self.changed else "its files make other inputs now"
        return f"{why}; what became of them: {', '.join(sorted(self.now)[:3])}"

    def contains(self, names: Iterable[str]) -> bool:
        """Return whether files are an unchanged part of it and its result is of them."""
        is_of_them = joint_digest([mark.digest for mark in self.files.values()]) == self.entry.digest
        return self.entry.state == "done" and is_of_them and self.same.issuperset(names)


def marks_of(planned: PlannedInput) -> tuple[FileMark, ...]:
    """Return what tells whether the files of an input change; nothing for what is opened when its turn comes.

    The files of a slide may be gigabytes, so that only their UIDs are known.
    """
    if planned.case is None:
        return tuple(FileMark("", _hashed(uid)) for uid in planned.instances)
    pixels = planned.case.pixels
    return tuple(map(_mark_of_case, pixels.cases if isinstance(pixels, VolumeSlices) else (planned.case,)))


def settle(
    plan: Sequence[PlannedInput], entries: Mapping[str, Entry], sources: KnownSources, limits: Limits
) -> Settled:
    """Decide what a plan takes back of earlier results, and which of its inputs are in one of these already.

    Args:
        plan: the inputs.
        entries: the last line about each input, by its folder.
        sources: the files of each.
        limits: for reading.

    Returns:
        The plan, in which an unchanged part of a volume is skipped, and the results that go.
    """
    planned = {each.folder for each in plan}
    earlier: dict[str, _Earlier] = {}
    for each in plan:
        marks: tuple[FileMark, ...] | None = None
        for place, path in enumerate(each.paths):
            folders = [folder for folder in sources.folders_of(path) - planned if _stands(entries.get(folder))]
            if not folders:
                continue
            marks = marks_of(each) if marks is None else marks  # a series may have thousands of files
            mark = marks[place] if marks else _mark_of_path(each, path, limits)
            for folder in folders:
                found = earlier.setdefault(folder, _Earlier(entries[folder], sources.files_of(folder)))
                name = sources.name_of(path)
                if not _is_another(found.files[name], mark, each, limits):
                    found.meet(name, mark, each.folder)
    gone = {folder: found.reason for folder, found in sorted(earlier.items()) if found.is_superseded}
    kept = {folder: found for folder, found in sorted(earlier.items()) if folder not in gone}
    return Settled(
        [_skipped(each, entries.get(each.folder), kept, sources) for each in plan] if kept else [*plan], gone
    )


def _stands(entry: Entry | None) -> bool:
    return entry is not None and entry.code not in _SETTLED


def _skipped(
    planned: PlannedInput, before: Entry | None, kept: Mapping[str, _Earlier], sources: KnownSources
) -> PlannedInput:
    """Return an input as it is, or skipped where it is a part of a volume that is kept."""
    is_done = planned.case is not None and before is not None and before.state == "done"
    if planned.skipped is not None or (is_done and before and planned.case and before.digest == planned.case.digest):
        return planned
    names = [sources.name_of(path) for path in planned.paths]
    for folder, volume in kept.items():
        if volume.contains(names):
            reason = f"it is an unchanged part of a volume that is predicted already, and whose result stays: {folder}"
            return replace(planned, skipped=(ALREADY_IN_VOLUME, reason))
    return planned


def _is_another(before: FileMark, now: FileMark, planned: PlannedInput, limits: Limits) -> bool:
    """Return whether a path is used again for another object; a file that cannot be read is the old one, damaged."""
    if not before.instance or before.instance == now.instance:
        return False
    return bool(now.instance) or _is_picture(planned, limits)


def _is_picture(planned: PlannedInput, limits: Limits) -> bool:
    if planned.is_slide or planned.case is not None:
        return True
    try:
        return kind_of(read_head(Path(planned.paths[0]), head_limits(limits))) not in ("dicom", "unknown")
    except RefusedInput:
        return False


def _mark_of_path(planned: PlannedInput, path: str, limits: Limits) -> FileMark:
    return FileMark() if planned.is_slide else _mark_of_file(Path(path), limits)


def _mark_of_case(case: Case) -> FileMark:
    return FileMark(case.digest, _hashed(case.info.sop[0].sop_instance_uid if case.info.sop else ""))


def _mark_of_file(path: Path, limits: Limits) -> FileMark:
    try:
        content = read_regular(path, limits)
    except (RefusedInput, MemoryError):
        return FileMark()
    uid = ""
    with suppress(RefusedInput), quiet_pydicom(), refusing_bad_headers():
        uid = str(parse_dicom(content, limits).get("SOPInstanceUID") or "")
    return FileMark(digest_of(content), _hashed(uid))


def _hashed(uid: str) -> str:
    return short_hash(uid) if uid else ""
