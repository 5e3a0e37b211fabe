"""DICOM files of a study as volumes and single images: grouped, sorted, checked, and refused with the reason.

Files belong together when series, frame of reference, size, spacing, orientation and, within a series, the echo, the
b-value, the moment and the like agree. A group is a volume when its slices lie one behind the other along their normal
at one distance. Nothing is interpolated, dropped or repaired in silence.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.dicom import inspect_dicom
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput

__all__ = ["Opened", "Refused", "VolumeSlices", "open_series"]

_VOLUMETRIC = ("CT", "MR", "PT")
_SPLITTING = ("EchoTime", "EchoNumbers", "InversionTime", "DiffusionBValue", "TemporalPositionIdentifier")
"""Attributes whose values divide one series into several volumes."""
_SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines, and relative one of spacings: what scanners round."""
_SAME_DISTANCE = 0.01
"""Largest deviation of a distance between slices from their median, as a part of it."""
_SAME_PLACE = 0.1
"""Largest shift of a slice across the normal, in pixels: a tilted gantry shifts by more with its first slice."""


@dataclass(frozen=True)
class Refused:
    """Files that were not read, and why."""

    paths: tuple[Path, ...]
    refusal: RefusedInput


@dataclass(frozen=True)
class Opened:
    """What a set of files holds: each file is in exactly one of the cases, the refusals or the duplicates."""

    cases: tuple[Case, ...]
    refused: tuple[Refused, ...]
    duplicates: tuple[Path, ...] = ()
    """Copies of slices that are in a volume already."""


@dataclass(frozen=True)
class _File:
    case: Case
    key: tuple[str, ...]
    is_localizer: bool

    @property
    def path(self) -> Path:
        return self.case.sources[0]

    @property
    def sop_instance_uid(self) -> str:
        return self.case.info.sop[0].sop_instance_uid


def open_series(paths: Iterable[Path], limits: Limits | None = None, *, slice_by_slice: bool = False) -> Opened:
    """Open DICOM files as volumes (CT, MR, PET with several slices) and single images (all others).

    Args:
        paths: the files, in any order, of any number of series.
        limits: bounds; default ``Limits()``; ``frames`` also bounds the slices of a volume.
        slice_by_slice: give the slices of a series that is no clean volume as single images, with the note
            ``not_a_volume``, instead of refusing them.

    Returns:
        The cases, sorted by their first file; slices run along the normal (row direction x column direction).
        Volumes out of a series that had to be divided have the note ``series_divided``.
    """
    limits = limits or Limits()
    files, refused = _inspect(sorted(paths), limits)
    files, duplicates, clashes = _without_copies(files)
    refused += clashes
    cases: list[Case] = []
    groups = _groups(files)
    series = [group[0].case.info.sop[0].series_instance_uid for group in groups]
    counts = Counter(series)
    for group, uid in zip(groups, series, strict=True):
        note = ("series_divided",) if counts[uid] > 1 else ()
        try:
            cases += _cases_of(group, limits, note)
        except RefusedInput as refusal:
            if slice_by_slice and refusal.code == RefusalCode.NOT_A_VOLUME:
                cases += [_noted(file.case, (*note, "not_a_volume")) for file in group]
            else:
                refused.append(Refused(tuple(file.path for file in group), refusal))
    cases.sort(key=lambda case: min(case.sources))
    return Opened(tuple(cases), tuple(refused), tuple(duplicates))


def _inspect(paths: Sequence[Path], limits: Limits) -> tuple[list[_File], list[Refused]]:
    files: list[_File] = []
    refused: list[Refused] = []
    for path in paths:
        try:
            case, dataset = inspect_dicom(path, limits)
            with quiet_pydicom():
                files.append(_File(case, _key(case, dataset), "LOCALIZER" in str(dataset.get("ImageType") or "")))
        except RefusedInput as refusal:
            refused.append(Refused((path,), refusal))
    return files, refused


def _key(case: Case, dataset: Any) -> tuple[str, ...]:
    info = case.info
    parts = [info.sop[0].series_instance_uid, info.frame_of_reference_uid, info.rows, info.columns, info.samples]
    parts += [info.photometric, info.modality, info.orientation is None, info.spacing_mm is None]
    parts += [dataset.get(keyword) for keyword in _SPLITTING]
    return tuple("" if part is None else str(part) for part in parts)


def _without_copies(files: list[_File]) -> tuple[list[_File], list[Path], list[Refused]]:
    """Drop copies of slices, and refuse objects of one UID that show different images."""
    by_uid: dict[str, list[_File]] = {}
    for number, file in enumerate(files):
        by_uid.setdefault(file.sop_instance_uid or f"none {number}", []).append(file)
    kept: list[_File] = []
    copies: list[Path] = []
    clashes: list[Refused] = []
    for same in by_uid.values():
        if all(_is_copy(same[0].case, other.case) for other in same[1:]):
            # a copy would be a slice too many in a volume; as an image of its own it is an input like any other
            is_slice = same[0].case.info.modality in _VOLUMETRIC
            kept += same[:1] if is_slice else same
            copies += [other.path for other in same[1:]] if is_slice else []
        else:
            reason = RefusedInput(
                RefusalCode.DUPLICATE_UID,
                f"{len(same)} files have one SOP instance UID and different images; find out which one is meant",
            )
            clashes.append(Refused(tuple(file.path for file in same), reason))
    return kept, copies, clashes


def _is_copy(one: Case, other: Case) -> bool:
    if one.digest == other.digest:
        return True
    if one.info != other.info:
        return False
    try:
        return all(np.array_equal(a, b) for a, b in zip(one.iter_frames(), other.iter_frames(), strict=True))
    except RefusedInput:
        return False


def _groups(files: Sequence[_File]) -> list[list[_File]]:
    groups: list[list[_File]] = []
    by_key: dict[tuple[str, ...], list[list[_File]]] = {}  # there may be a hundred thousand series
    for file in files:
        same_key = by_key.setdefault(file.key, [])
        for group in same_key:
            if _is_alike(group[0].case, file.case):
                group.append(file)
                break
        else:
            same_key.append([file])
            groups.append(same_key[-1])
    return groups


def _is_alike(one: Case, other: Case) -> bool:
    for first, second in ((one.info.orientation, other.info.orientation), (one.info.spacing_mm, other.info.spacing_mm)):
        if first is not None and not np.allclose(first, second or np.nan, rtol=_SAME_DIRECTION, atol=_SAME_DIRECTION):
            return False
    return True


def _noted(case: Case, notes: tuple[str, ...]) -> Case:
    return replace(case, info=replace(case.info, notes=(*case.info.notes, *notes)))


def _cases_of(group: list[_File], limits: Limits, note: tuple[str, ...]) -> list[Case]:
    info = group[0].case.info
    is_flat = info.modality not in _VOLUMETRIC or any(file.case.info.frames > 1 for file in group)
    if group[0].is_localizer and note:
        raise _no_volume("a localizer lies among the slices of its series; it is not part of the volume")
    if is_flat or len(group) == 1:
        return [_noted(file.case, note if not is_flat else ()) for file in group]
    limits.check_size(info.rows, info.columns, len(group))
    return [_volume(group, note)]


def _volume(group: list[_File], note: tuple[str, ...]) -> Case:
    info = group[0].case.info
    if info.orientation is None or any(file.case.info.positions_mm is None for file in group):
        raise _no_volume(
            "slices do not say where they lie in the patient (ImagePositionPatient, ImageOrientationPatient)"
        )
    row, column = (np.array(direction) for direction in info.orientation)
    normal = np.cross(row, column)
    places = np.array([(file.case.info.positions_mm or ((),))[0] for file in group])
    order = np.argsort(places @ normal, kind="stable")
    slices = [group[index].case for index in order]
    spacing = _slice_spacing(places[order], normal, min(info.spacing_mm or (1.0,)))
    first = slices[0].info
    is_one_type = len({case.info.dtype for case in slices}) == 1
    notes = tuple(dict.fromkeys(part for case in slices for part in case.info.notes))
    return Case(
        hashlib.sha256("".join(case.digest for case in slices).encode()).hexdigest(),
        tuple(case.sources[0] for case in slices),
        replace(
            first,
            kind="dicom-volume",
            frames=len(slices),
            dtype=first.dtype if is_one_type else "float32",
            white=first.white if is_one_type else None,
            slice_spacing_mm=spacing,
            positions_mm=tuple(case.info.positions_mm[0] for case in slices if case.info.positions_mm),
            sop=tuple(case.info.sop[0] for case in slices),
            is_lossy=any(case.info.is_lossy for case in slices),
            notes=(*notes, *note),
        ),
        VolumeSlices(slices, first.dtype if is_one_type else "float32"),
    )


def _slice_spacing(places: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], pixel: float) -> float:
    """Return the one distance between neighbouring slices, or refuse them; ``places`` are sorted along the normal."""
    heights = places @ normal
    steps = np.diff(heights)
    if np.any(steps < 1e-3):
        raise _no_volume("two slices lie at the same place")
    distance = float(np.median(steps))
    if np.any(np.abs(steps - distance) > _SAME_DISTANCE * distance):
        gaps = np.abs(steps / distance - np.round(steps / distance)) < _SAME_DISTANCE
        what = "a slice is missing: " if gaps.all() else ""
        raise _no_volume(f"{what}distances between slices run from {steps.min():.3f} to {steps.max():.3f} mm")
    across = places - np.outer(heights, normal)
    shift = float(np.linalg.norm(across - across[0], axis=1).max())
    if shift > _SAME_PLACE * pixel:
        raise _no_volume(f"slices are shifted by up to {shift:.2f} mm against each other (a tilted gantry)")
    return distance


def _no_volume(reason: str) -> RefusedInput:
    return RefusedInput(
        RefusalCode.NOT_A_VOLUME, f"the series is no regular volume: {reason}; mend it, or run it slice by slice"
    )


class VolumeSlices:
    """The slices of a volume, each read from its own file when it is asked for.

    Args:
        cases: one image for each slice, in order.
        dtype: what all of them are given as.
    """

    def __init__(self, cases: Sequence[Case], dtype: str) -> None:
        self.cases = cases
        self._dtype = dtype

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Decode one slice; see ``Case.frame``."""
        return self.cases[index].frame().astype(self._dtype, copy=False)
