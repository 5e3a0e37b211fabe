"""What a run will do, input by input: files found, told apart by their content, grouped, chosen and named.

DICOM files are opened here, since only all of them together tell which are slices of one volume; pictures and other
files are opened one by one when their turn comes. Nothing is decoded, and neither torch nor MONAI is imported.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.naming import Naming, folder_names, is_picture_name, safe_name, short_hash
from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput, kind_of, open_series
from msrf_monai.clinical.reading.dicom_header import parse_dicom
from msrf_monai.clinical.reading.metaimage import voxel_file
from msrf_monai.clinical.reading.opening import FileKind
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.reading.regular import check_inside, digest_of, read_head, read_regular
from msrf_monai.clinical.series_rules import SeriesRules
from msrf_monai.clinical.slide_inputs import PART_OF_ANOTHER, dicom_slides, files_of_slide, head_limits, is_dicom_slide
from msrf_monai.clinical.slides.makers import claimed_files
from msrf_monai.errors import InputError

__all__ = ["InputOptions", "PlannedInput", "check_given", "content_digest", "expand_patterns", "plan_inputs"]

_SHOWN = ("raster", "nifti", "metaimage")
_PART = (PART_OF_ANOTHER, "another file of the input names it as a part of its own; see what became of that one")
_SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class InputOptions:
    """How inputs are found and chosen."""

    limits: Limits = field(default_factory=Limits)
    rules: SeriesRules | None = None
    """Which DICOM images and volumes are taken; None for all. Pictures are always taken."""
    slice_by_slice: bool = False
    """Take the slices of a series that is no clean volume as single images."""
    part: tuple[int, int] | None = None
    """``(i, n)``: only the i-th of n parts, counted from 1; an input's part depends on nothing but its own name."""
    hide_names: bool = False
    """Name pictures by a hash too, where their file names may identify patients."""
    exclude: Path | None = None
    """A folder that is never searched: that of the results."""


@dataclass(frozen=True)
class PlannedInput:
    """One input: a picture, a DICOM image, a volume, or files that cannot or will not be predicted."""

    paths: tuple[str, ...]
    label: str = ""
    """What people see; see ``Entry.input``."""
    folder: str = ""
    """Name of its result folder, unlike every other one's."""
    case: Case | None = field(default=None, repr=False)
    """Of DICOM inputs; None for what is opened when its turn comes."""
    refusal: RefusedInput | None = None
    """Why it cannot be predicted, as far as that is known by now."""
    skipped: tuple[str, str] | None = None
    """A code and a sentence: why it will not be predicted although nothing is wrong with it."""
    flags: tuple[str, ...] = ()
    """What the rules say; what reading and the result say comes later."""
    choice: str = ""
    """Name of the selection that chose it; empty without rules."""
    key: str = ""
    """What names it wherever its files lie, such as its UIDs; empty where only the path does."""
    instances: tuple[str, ...] = ()
    """SOP Instance UID of each file of a DICOM slide."""
    is_slide: bool = False
    """It is a whole slide, which is read by tiles; ``paths`` are the files of its series."""
    shows_name: bool = False
    """The file's name may be shown: a picture's may, that of a DICOM file is often the patient's."""

    @property
    def frames(self) -> int:
        """Images to predict, as far as that is known by now."""
        return self.case.info.frames if self.case else 1


@dataclass(frozen=True)
class _Found:
    path: str
    root: str
    is_named: bool
    """The user has named this very file, so that it may be a link to anywhere."""

    @property
    def identity(self) -> str:
        """The path from the input folder on, with the folder's own name: the same wherever that lies."""
        return os.path.relpath(self.path, str(Path(self.root).parent))


def plan_inputs(inputs: Iterable[str | os.PathLike[str]], options: InputOptions) -> list[PlannedInput]:
    """Find everything that is to be done.

    Args:
        inputs: files, folders (searched to the bottom) and patterns such as ``"scans/*.png"``.
        options: how.

    Returns:
        Pictures first, then DICOM, each sorted by path; every file found is in one of the inputs.

    Raises:
        InputError: when there is no file at all.
    """
    found, refused = _find(inputs, options.exclude)
    if not found and not refused:
        raise InputError("no input was found; give a file, a folder that holds files, or a pattern that fits some")
    singles, dicom = _sort_out(found, options.limits)
    opened = open_series(dicom, options.limits, slice_by_slice=options.slice_by_slice)
    planned = [*refused, *singles, *_chosen([_of_case(case) for case in opened.cases], options)]
    planned += [_of_refusal(tuple(map(str, each.paths)), each.refusal) for each in opened.refused]
    copies = ("duplicate", "it is a copy of a slice that is predicted already")
    planned += [PlannedInput((str(path),), skipped=copies) for path in opened.duplicates]
    if options.hide_names:
        planned = [replace(each, shows_name=False) for each in planned]
    named = _named(planned, found)
    if options.part is None:
        return named
    number, parts = options.part
    return [each for each in named if int(short_hash(each.folder), 16) % parts == number - 1]


def check_given(inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse inputs of which none exists, before anything is loaded or made for them.

    Args:
        inputs: files, folders and patterns.

    Raises:
        InputError: when there is nothing at any of the paths and no pattern fits.
    """
    if not any(os.path.lexists(each) for each in expand_patterns(inputs)):
        raise InputError("no input was found; give a file, a folder that holds files, or a pattern that fits some")


def content_digest(paths: Sequence[str], limits: Limits) -> str:
    """Return the SHA-256 of a file, or of several files' digests; empty when one cannot be read."""
    try:
        digests = [digest_of(read_regular(Path(path), limits)) for path in paths]
    except (RefusedInput, MemoryError):
        return ""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _find(
    inputs: Iterable[str | os.PathLike[str]], exclude: Path | None
) -> tuple[dict[str, _Found], list[PlannedInput]]:
    """Return every file by its path, sorted, and the folders that cannot be listed."""
    found: dict[str, _Found] = {}
    refused: list[PlannedInput] = []
    outside = None if exclude is None else os.path.realpath(exclude)
    for given in expand_patterns(inputs):
        root = os.path.abspath(given)  # noqa: PTH100 (keeps links, and names that are no Unicode)
        if Path(root).is_dir():
            for path in _files_below(root, outside, refused):
                found.setdefault(path, _Found(path, root, False))
        else:
            found.setdefault(root, _Found(root, str(Path(root).parent), True))
    return {path: found[path] for path in sorted(found, key=os.fsencode)}, refused


def expand_patterns(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return what was given, with what fits a pattern in the pattern's place.

    Args:
        inputs: files, folders and patterns; a pattern that is a file's own name is no pattern.
    """
    given: list[str] = []
    for path in inputs:
        each = os.fspath(path)
        is_pattern = not os.path.lexists(each) and glob.has_magic(each)
        given += sorted(glob.glob(each, recursive=True)) if is_pattern else [each]  # noqa: PTH207
    return given


def _files_below(root: str, outside: str | None, refused: list[PlannedInput]) -> Iterable[str]:
    """Yield every file and every link below a folder but what lies in the folder of the results."""

    def note(error: OSError) -> None:
        reason = RefusedInput(
            RefusalCode.PERMISSION_DENIED, "the folder cannot be listed; give this user the right to read it"
        )
        refused.append(PlannedInput((str(error.filename),), refusal=reason))

    for name, folders, files in os.walk(root, onerror=note):
        here = Path(name)
        links = [folder for folder in folders if (here / folder).is_symlink()]
        folders[:] = [folder for folder in folders if os.path.realpath(here / folder) != outside]
        yield from (str(here / entry) for entry in (*files, *links))


def _sort_out(found: dict[str, _Found], limits: Limits) -> tuple[list[PlannedInput], list[Path]]:
    """Tell DICOM files from everything else; what another file names as a part of its own is no input of its own."""
    singles: dict[str, PlannedInput] = {}
    kinds: dict[str, FileKind] = {}
    parts, voxels, slides = set[str](), set[str](), list[Path]()
    for path, each in found.items():
        if Path(path).name.lower() in _SYSTEM_FILES:
            singles[path] = PlannedInput((path,), skipped=("system_file", "it belongs to the operating system"))
            continue
        try:
            if Path(path).is_symlink() and not each.is_named:
                check_inside(Path(path), Path(each.root))
            head = read_head(Path(path), head_limits(limits))
            kinds[path] = kind_of(head)
            singles[path], beside = _of_file(path, head, kinds[path], limits)
            parts |= beside
            if kinds[path] == "dicom" and is_dicom_slide(head):
                slides.append(Path(path))
            if kinds[path] == "metaimage":
                voxels.add(str(voxel_file(Path(path), limits)))
        except RefusedInput as refusal:
            singles[path] = PlannedInput((path,), refusal=refusal, shows_name=is_picture_name(path))
    owned = {path for path in parts | voxels if kinds.get(path) in ("unknown", "raster", "gzip", "archive")}
    named = {path for path in owned if path in parts or kinds[path] != "unknown"}
    singles |= {path: replace(singles[path], skipped=_PART, refusal=None, is_slide=False) for path in named}
    dicom = [Path(path) for path, kind in kinds.items() if kind == "dicom"]
    left = (owned - named) | set(map(str, dicom))
    planned = [each for path, each in singles.items() if path not in left]
    planned += [
        PlannedInput(each.files, key=each.key, instances=each.instances, is_slide=True) for each in dicom_slides(slides)
    ]
    of_slides = set(slides)
    return planned, [path for path in dicom if path not in of_slides]


def _of_file(path: str, head: bytes, kind: FileKind, limits: Limits) -> tuple[PlannedInput, set[str]]:
    """Return what a file is, and the files of the same slide beside it, whether that can be read or not."""
    try:
        slide = () if kind == "dicom" else files_of_slide(Path(path), head, limits)
    except RefusedInput as refusal:
        refused = PlannedInput((path,), refusal=refusal, shows_name=is_picture_name(path))
        return refused, {str(each) for each in claimed_files(Path(path), head)} - {path}
    shows_name = kind in _SHOWN or is_picture_name(path)
    return PlannedInput(slide or (path,), shows_name=shows_name, is_slide=bool(slide)), set(slide) - {path}


def _of_case(case: Case) -> PlannedInput:
    uids = [sop.sop_instance_uid for sop in case.info.sop]
    key = f"uid:{' '.join(uids)}" if all(uids) else f"digest:{case.digest}"
    planned = PlannedInput(tuple(map(str, case.sources)), case=case, key=key)
    other = case.info.not_a_picture
    # a PACS keeps results beside their sources, and a resumed query brings both
    reason = f"this DICOM object is {other} and no picture of a patient; it is not predicted"
    return replace(planned, case=None, skipped=(RefusalCode.NOT_AN_IMAGE.value, reason)) if other else planned


def _of_refusal(paths: tuple[str, ...], refusal: RefusedInput) -> PlannedInput:
    if refusal.code == RefusalCode.NOT_AN_IMAGE:
        return PlannedInput(paths, skipped=(refusal.code.value, refusal.sentence))
    return PlannedInput(paths, refusal=refusal)


def _chosen(planned: list[PlannedInput], options: InputOptions) -> list[PlannedInput]:
    """Apply the rules to DICOM inputs."""
    rules = options.rules
    if rules is None:
        return planned
    marked = [_judged(each, rules, options.limits) for each in planned]
    groups: dict[tuple[str, str], list[int]] = {}
    for place, each in enumerate(marked):
        if each.case is not None and each.choice in rules.keep_largest:
            groups.setdefault((each.choice, each.case.info.sop[0].study_instance_uid), []).append(place)
    for (name, _), places in groups.items():
        kept = max(places, key=lambda place: (marked[place].frames, -place))
        reason = f"selection {name!r} keeps only the largest of the {len(places)} that hold in this study"
        for place in set(places) - {kept}:
            marked[place] = replace(planned[place], skipped=("not_selected", reason))
    return marked


def _judged(planned: PlannedInput, rules: SeriesRules, limits: Limits) -> PlannedInput:
    try:
        with quiet_pydicom():
            choice = rules.choose(parse_dicom(read_regular(Path(planned.paths[0]), limits), limits))
    except RefusedInput as refusal:
        return replace(planned, refusal=refusal)
    if not choice.selection:
        return replace(planned, skipped=("not_selected", choice.explanation))
    flags = (*planned.flags, f"rule:{choice.explanation}")
    return replace(planned, flags=flags, choice=choice.selection)


def _named(planned: Sequence[PlannedInput], found: dict[str, _Found]) -> list[PlannedInput]:
    namings = [_naming(each, found) for each in planned]
    names = folder_names(namings)
    return [
        replace(each, folder=name, label=safe_name(Path(each.paths[0]).name) if each.shows_name else name)
        for each, name in zip(planned, names, strict=True)
    ]


def _naming(planned: PlannedInput, found: dict[str, _Found]) -> Naming:
    path = planned.paths[0]
    identity = found[path].identity if path in found else path
    if planned.key:
        return Naming("dicom", (planned.key, identity, path))
    return Naming(safe_name(Path(path).stem) if planned.shows_name else "file", (identity, path))
