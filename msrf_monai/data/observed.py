"""A layout for pictures that come with masks of two observers and of the field of view, told apart by file names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from msrf_monai.data.layouts import (
    SIDE_FILE_SUFFIXES,
    Listing,
    MaskKind,
    SourceItem,
    and_more,
    existing_folders,
    find_folder,
)
from msrf_monai.data.pictures import PACKED_SUFFIX, PICTURE_SUFFIXES

__all__ = ["NamedFiles", "ObservedFolders", "ObservedPart", "picture_stem"]

_SIDE_SUFFIXES = SIDE_FILE_SUFFIXES | {".7z", ".rar", ".tar", ".tgz", ".zip"}  # the download itself may lie beside


@dataclass(frozen=True)
class NamedFiles:
    """Files of one kind.

    Attributes:
        folder: folder that holds them, relative to the root of the data set; "." is the root itself.
        pattern: regular expression of the whole stem of a name, case ignored; its group ``key`` is what the files of
            one picture have in common.
        example: a name that fits, for messages.
    """

    folder: str
    pattern: str
    example: str


@dataclass(frozen=True)
class ObservedPart:
    """The files of one part of a data set.

    Attributes:
        images: the pictures.
        masks: the first observer's masks, one for each picture.
        observer2: the second observer's masks; single ones may be missing.
        fov: masks of the field of view; single ones may be missing.
        part: "training", "validation" or "test" where the folders say so.
        withheld: a sentence for the case that no picture of this part has a mask, which makes the part be left out;
            an empty string when that is an error.
        complete: a sentence for the case that all masks are here; empty for none.
    """

    images: NamedFiles
    masks: NamedFiles
    observer2: NamedFiles | None = None
    fov: NamedFiles | None = None
    part: str | None = None
    withheld: str = ""
    complete: str = ""

    def kinds(self) -> Iterator[NamedFiles]:
        """Yield the rules that there are."""
        yield from (rule for rule in (self.images, self.masks, self.observer2, self.fov) if rule is not None)


@dataclass(frozen=True)
class ObservedFolders:
    """Parts of pictures with masks, matched by a key in the file names; files may be packed with gzip.

    Attributes:
        parts: the parts; each may be absent, but not all.
        roots: possible folders that hold everything; "." is the source itself.
        known: names of other files that belong to the data set, in small letters; they are not noted.
        mask_kind: what the masks hold.
    """

    parts: tuple[ObservedPart, ...]
    roots: tuple[str, ...] = (".",)
    known: tuple[str, ...] = ()
    mask_kind: MaskKind = "binary"

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        first = self.parts[0]
        return f"{_words(first.images)} + {_words(first.masks)}{and_more(len(self.parts) - 1, 'parts')}"

    def read(self, source: Path) -> Listing | None:
        """Return the pictures of all parts, or None when no folder holds a picture of the right name."""
        for _, root in existing_folders(source, self.roots):
            folders = _Folders(root, tuple(rule for part in self.parts for rule in part.kinds()))
            if any(folders.files(part.images) for part in self.parts):
                listing = Listing()
                for part in self.parts:
                    _read_part(part, folders, listing)
                folders.report_others(listing, self.known)
                listing.items = [replace(item, mask_kind=self.mask_kind) for item in listing.items]
                return listing
        return None


@dataclass
class _Folders:
    """The files of the folders of a layout, each folder looked at once."""

    root: Path
    rules: tuple[NamedFiles, ...]
    _matched: set[Path] = field(default_factory=set)

    def files(self, rule: NamedFiles) -> dict[str, list[Path]]:
        """Return the files that fit a rule by their key in small letters, ordered."""
        folder = find_folder(self.root, rule.folder)
        found: dict[str, list[Path]] = defaultdict(list)
        for file in _visible(folder) if folder is not None else ():
            stem = picture_stem(file)
            match = re.fullmatch(rule.pattern, stem, re.IGNORECASE) if stem is not None else None
            if match:
                found[match["key"].lower()].append(file)
                self._matched.add(file)
        return dict(sorted(found.items()))

    def report_others(self, listing: Listing, known: tuple[str, ...] = ()) -> None:
        """Note side files in the folders, unless they are known; other files that fit no rule are problems."""
        folders = {find_folder(self.root, rule.folder) for rule in self.rules} - {None}
        for folder in sorted(folder for folder in folders if folder is not None):
            files = _visible(folder)
            others = [file for file in files if file not in self._matched and file.name.lower() not in known]
            side = [file.name for file in others if file.suffix.lower() in _SIDE_SUFFIXES]
            listing.note_left_out(folder, side)
            examples = ", ".join(
                dict.fromkeys(rule.example for rule in self.rules if find_folder(self.root, rule.folder) == folder)
            )
            listing.problems.extend(
                f"{file}: is not a file of this data set; expected names such as {examples}; take it out of this folder"
                for file in others
                if file.name not in side
            )


def picture_stem(file: Path) -> str | None:
    """Return the name of a picture without its suffix and without .gz, or None when it is no picture.

    Example:
        >>> picture_stem(Path("labels-ah/im0001.ah.ppm.gz"))
        'im0001.ah'
    """
    name = Path(file.stem) if file.suffix.lower() == PACKED_SUFFIX else Path(file.name)
    return name.stem if name.suffix.lower() in PICTURE_SUFFIXES else None


def _read_part(part: ObservedPart, folders: _Folders, listing: Listing) -> None:
    images = folders.files(part.images)
    masks = folders.files(part.masks)
    observer2 = folders.files(part.observer2) if part.observer2 is not None else {}
    fields = folders.files(part.fov) if part.fov is not None else {}
    if not images and not masks:
        return
    for kind in (images, masks, observer2, fields):
        listing.problems.extend(
            f"{same[0]}: {len(same)} files have this name ({', '.join(file.name for file in same)}); expected one"
            for same in kind.values()
            if len(same) > 1
        )
    for kind in (masks, observer2, fields):
        listing.problems.extend(
            f"{same[0]}: this mask has no picture; expected {_words(part.images)}"
            for key, same in kind.items()
            if key not in images
        )
    if not masks and part.withheld:
        listing.notes.append(f"{part.withheld}; {len(images)} pictures were left out")
        return
    if part.complete:
        listing.notes.append(part.complete)
    for key, same in images.items():
        if key not in masks:
            listing.problems.append(f"{same[0]}: has no mask; expected {_words(part.masks)}")
            continue
        identity = picture_stem(same[0]) or same[0].stem
        label2, fov = (kind[key][0] if key in kind else None for kind in (observer2, fields))
        listing.items.append(
            SourceItem(identity, same[0], (masks[key][0],), part.part, label2=label2, field_of_view=fov)
        )


def _visible(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if not file.name.startswith((".", "__")) and not file.is_dir()]


def _words(rule: NamedFiles) -> str:
    return rule.example if rule.folder == "." else f"{rule.folder}/{rule.example}"
