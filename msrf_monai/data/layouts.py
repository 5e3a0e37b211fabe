"""How data sets lie on disk: each layout finds pictures, their masks and the part (training, …) that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from msrf_monai.data.pictures import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from msrf_monai.data.volumes.slices import VolumePair

__all__ = [
    "FolderPair",
    "Layout",
    "Listing",
    "MaskKind",
    "PairedFolders",
    "PerImageFolders",
    "SideBySide",
    "SourceItem",
    "find_folder",
]

_NUMBERED_MASK = re.compile(r"_mask(_\d+)?$", re.IGNORECASE)
MASK_ENDINGS = ("_segmentation", "_annotation", "_mask", "_label", "_seg", "_gt")
SIDE_FILE_SUFFIXES = frozenset(
    {".csv", ".db", ".htm", ".html", ".ini", ".json", ".md", ".pdf", ".txt", ".xlsx", ".xml"}
)

MaskKind = Literal["binary", "instances", "outlines"]
"""What a mask file holds: two values, a number for each object, or outlines of objects in XML."""


@dataclass(frozen=True)
class SourceItem:
    """One picture with its mask as found.

    Attributes:
        identity: name without folder and suffix, unique in the data set.
        image: the picture.
        masks: its mask, or the masks of its objects, whose union is the mask; none where nothing is marked.
        part: "training", "validation" or "test" where the layout says so, else None.
        group: patient, sequence, … that must not be torn apart, or None.
        stratum: class that parts and folds should hold in equal shares, such as "benign", or None.
        label2: the second observer's mask, or None.
        field_of_view: mask of what the camera sees, or None when it is not given.
        mask_kind: what its masks hold.
        volume: the volume of which it is a slice, or None; ``image`` and ``masks`` are the files of the volume then.
        slice_index: its number in the volume, from 0.
    """

    identity: str
    image: Path
    masks: tuple[Path, ...]
    part: str | None = None
    group: str | None = None
    stratum: str | None = None
    label2: Path | None = None
    field_of_view: Path | None = None
    mask_kind: MaskKind = "binary"
    volume: VolumePair | None = None
    slice_index: int = 0


@dataclass
class Listing:
    """What a layout found: items, problems (each a sentence that names a file) and notes for the reader."""

    items: list[SourceItem] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note_left_out(self, folder: Path, names: list[str]) -> None:
        """Note the files of a folder that were passed over, if there are any: the first three by name."""
        if names:
            self.notes.append(f"left out of {folder}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")


class Layout(Protocol):
    """A way in which a data set may lie in its folder."""

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        ...

    def read(self, source: Path) -> Listing | None:
        """Return what lies in ``source``, or None when its folders are not those of this layout."""
        ...


@dataclass(frozen=True)
class FolderPair:
    """A folder of pictures beside a folder of masks.

    Attributes:
        images: possible names of the folder of pictures, relative to the source.
        masks: possible names of the folder of masks.
        part: "training", "validation" or "test" when the folder says so.
        ignore: patterns of file names in the folder of pictures that are something else.
    """

    images: tuple[str, ...]
    masks: tuple[str, ...]
    part: str | None = None
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairedFolders:
    """Pictures and masks in separate folders, matched by stem; masks may end in _mask, _segmentation, _seg, ….

    Attributes:
        pairs: the folders; those after the first may be absent.
        by_order: where no mask of a folder has the name of a picture and there are as many, match them by the natural
            order of their names, which is noted.
    """

    pairs: tuple[FolderPair, ...]
    by_order: bool = False

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        first = self.pairs[0]
        return f"{first.images[0]}/ + {first.masks[0]}/{and_more(len(self.pairs) - 1, 'pairs')}"

    def read(self, source: Path) -> Listing | None:
        """Return the matched pictures of all pairs that exist, or None when the first pair's pictures do not."""
        if _first_folder(source, self.pairs[0].images) is None:
            return None
        listing = Listing()
        for pair in self.pairs:
            images = _first_folder(source, pair.images)
            masks = _first_folder(source, pair.masks)
            if images is not None and masks is not None:
                _match(images, masks, pair, listing, by_order=self.by_order)
            elif images is not None:
                listing.problems.append(f"{source / pair.masks[0]}: this folder of masks is missing, {images} exists")
            elif masks is not None:
                listing.problems.append(
                    f"{source / pair.images[0]}: this folder of pictures is missing, {masks} exists"
                )
        listing.items = _distinct_names(listing.items)
        return listing


@dataclass(frozen=True)
class PerImageFolders:
    """One folder for each picture: ``<id>/images/<id>.png`` with the masks of its objects in ``<id>/masks/``.

    Attributes:
        parents: possible folders that hold the folders of the pictures; "." is the source itself.
    """

    parents: tuple[str, ...] = (".",)

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        return f"{self.parents[0]}/<id>/images/ + {self.parents[0]}/<id>/masks/"

    def read(self, source: Path) -> Listing | None:
        """Return one item for each folder of a picture, or None when no folder has ``images``.

        All folders in a parent are such, those in the source itself only when they have ``images`` or ``masks``.
        """
        for parent, root in existing_folders(source, self.parents):
            folders = sorted(
                folder
                for folder in root.iterdir()
                if folder.is_dir() and not folder.name.startswith((".", "__"))
                if parent != "." or _has_folder(folder, "images", "masks")
            )
            if any(_has_folder(folder, "images") for folder in folders):
                listing = Listing()
                for folder in folders:
                    _read_image_folder(folder, listing)
                return listing
        return None


@dataclass(frozen=True)
class SideBySide:
    """One folder for each class, pictures and masks in it together: ``benign/1.png``, ``benign/1_mask.png``.

    A picture may have several masks, ``1_mask.png``, ``1_mask_1.png``, …, which are united.

    Attributes:
        folders: names of the classes' folders, each the stratum of its pictures; any of them may be absent.
        parents: possible folders that hold them; "." is the source itself.
    """

    folders: tuple[str, ...]
    parents: tuple[str, ...] = (".",)

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        return f"{', '.join(f'{name}/' for name in self.folders)} with NAME.png and NAME_mask.png"

    def read(self, source: Path) -> Listing | None:
        """Return the pictures of all classes, or None when none of the folders is there."""
        for _, root in existing_folders(source, self.parents):
            found = [(name, folder) for name in self.folders if (folder := find_folder(root, name))]
            if found:
                listing = Listing()
                for name, folder in found:
                    _read_class_folder(folder, name, listing)
                return listing
        return None


def find_folder(root: Path, relative: str) -> Path | None:
    """Return the folder ``root / relative``, whatever the case of its letters, or None when there is none."""
    folder = root
    for name in Path(relative).parts:
        if (folder / name).is_dir():
            folder = folder / name
            continue
        same = [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name.lower() == name.lower()]
        if not same:
            return None
        folder = same[0]
    return folder


def existing_folders(root: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield those of the names under which ``root`` has a folder, whatever the case of their letters, with it."""
    for name in names:
        folder = find_folder(root, name)
        if folder is not None:
            yield name, folder


def and_more(count: int, kind: str) -> str:
    """Return the words for further folders of a layout, " (and 2 more such parts)", or an empty string for none."""
    return f" (and {count} more such {kind})" if count else ""


def _first_folder(root: Path, names: Iterable[str]) -> Path | None:
    return next((folder for _, folder in existing_folders(root, names)), None)


def _has_folder(folder: Path, *names: str) -> bool:
    return any((folder / name).is_dir() for name in names)


def _read_image_folder(folder: Path, listing: Listing) -> None:
    if not _has_folder(folder, "images"):
        listing.problems.append(f"{folder / 'images'}: is missing")
        return
    images = list(_pictures(folder / "images", (), listing).values())
    masks = list(_pictures(folder / "masks", (), listing).values()) if (folder / "masks").is_dir() else []
    if len(images) == 1 and len(images[0]) == 1 and masks:
        listing.items.append(SourceItem(folder.name, images[0][0], tuple(mask for same in masks for mask in same)))
    elif len(images) != 1:
        listing.problems.append(f"{folder / 'images'}: holds {len(images)} pictures; expected one")
    else:
        listing.problems.append(f"{images[0][0]}: has no mask in {folder / 'masks'}")


def _read_class_folder(folder: Path, stratum: str, listing: Listing) -> None:
    files = _pictures(folder, (), listing)
    pictures = {stem: same for stem, same in files.items() if not _NUMBERED_MASK.search(stem)}
    masks: dict[str, list[Path]] = defaultdict(list)
    for stem, same in files.items():
        if stem not in pictures:
            masks[_NUMBERED_MASK.sub("", stem)].extend(same)
    if not pictures:
        listing.problems.append(f"{folder}: no picture in this folder")
    for stem, picture in single_pictures(pictures, listing):
        if stem in masks:
            listing.items.append(SourceItem(stem, picture, tuple(masks[stem]), stratum=stratum))
        else:
            listing.problems.append(f"{picture}: has no mask; expected {folder / stem}_mask.png")
    listing.problems.extend(f"{file}: this mask has no picture" for file in _without_picture(masks, pictures))


def single_pictures(pictures: dict[str, list[Path]], listing: Listing) -> Iterator[tuple[str, Path]]:
    """Yield the pictures whose stem no other one has, with their stem; stems of several pictures are problems."""
    for stem, files in pictures.items():
        if len(files) == 1:
            yield stem, files[0]
        else:
            names = ", ".join(file.name for file in files)
            listing.problems.append(f"{files[0]}: {len(files)} pictures have this stem ({names}); stems must be unique")


def _without_picture(masks: dict[str, list[Path]], pictures: dict[str, list[Path]]) -> list[Path]:
    return [file for stem, files in masks.items() if stem not in pictures for file in files]


def _match(images: Path, masks: Path, pair: FolderPair, listing: Listing, *, by_order: bool = False) -> None:
    pictures = _pictures(images, pair.ignore, listing)
    labels: dict[str, list[Path]] = defaultdict(list)
    for stem, files in _pictures(masks, (), listing).items():
        labels[stem if stem in pictures else _without_ending(stem)].extend(files)
    if by_order and pictures and len(labels) == len(pictures) and not labels.keys() & pictures.keys():
        labels = {stem: labels[name] for stem, name in zip(_in_order(pictures), _in_order(labels), strict=True)}
        listing.notes.append(
            f"no mask in {masks} has the name of a picture: they were matched by the order of their names; look at some"
        )
    if not pictures:
        listing.problems.append(f"{images}: no picture in this folder")
    for stem, picture in single_pictures(pictures, listing):
        found = labels.get(stem, [])
        if not found:
            listing.problems.append(f"{picture}: has no mask; expected {masks / stem}.png or with one of its endings")
        elif len(found) > 1:
            names = ", ".join(file.name for file in found)
            listing.problems.append(f"{picture}: has {len(found)} masks in {masks} ({names}); expected one")
        else:
            listing.items.append(SourceItem(stem, picture, (found[0],), pair.part))
    listing.problems.extend(
        f"{file}: this mask has no picture in {images}" for file in _without_picture(labels, pictures)
    )


def _pictures(folder: Path, ignore: tuple[str, ...], listing: Listing) -> dict[str, list[Path]]:
    """Return the pictures of a folder by stem; side files are noted, other files are problems."""
    found: dict[str, list[Path]] = defaultdict(list)
    ignored = []
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        if file.name.startswith((".", "__")) or file.is_dir() or any(fnmatch(file.name, mask) for mask in ignore):
            continue
        if suffix in PICTURE_SUFFIXES:
            found[file.stem].append(file)
        elif suffix in SIDE_FILE_SUFFIXES:
            ignored.append(file.name)
        else:
            listing.problems.append(f"{file}: is not a picture ({suffix or 'no suffix'}); take it out of this folder")
    listing.note_left_out(folder, ignored)
    return found


def _in_order(names: Iterable[str]) -> list[str]:
    """Return names in natural order: case2 before case10."""
    return sorted(names, key=lambda name: [part.zfill(20) for part in re.split(r"(\d+)", name.casefold())])


def _without_ending(stem: str) -> str:
    ending = next((ending for ending in MASK_ENDINGS if stem.lower().endswith(ending)), "")
    return stem[: len(stem) - len(ending)]


def _distinct_names(items: list[SourceItem]) -> list[SourceItem]:
    """Put the part before every name when a stem occurs in more than one part."""
    if len({item.identity.casefold() for item in items}) == len(items) or any(item.part is None for item in items):
        return items
    return [replace(item, identity=f"{item.part}_{item.identity}") for item in items]
