"""A layout for volumes with masks: pairs of files in one folder or in two, each slice a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from msrf_monai.data.layouts import SIDE_FILE_SUFFIXES, Listing, SourceItem, existing_folders, find_folder
from msrf_monai.data.volumes.reading import is_volume, volume_name
from msrf_monai.data.volumes.slices import VolumePair, slices_with_object
from msrf_monai.errors import DataError

__all__ = ["VolumeFolders", "VolumePart"]

_DATA_SUFFIXES = (".raw", ".zraw")
_SIDE_SUFFIXES = SIDE_FILE_SUFFIXES | {".7z", ".gz", ".py", ".rar", ".tar", ".zip"}


@dataclass(frozen=True)
class VolumePart:
    """A folder of volumes.

    Attributes:
        scans: folder of the volumes, relative to the root.
        masks: folder of the masks; the same one where ``ending`` tells them apart.
        ending: what the name of a mask has after that of its volume, such as "_segmentation".
        part: "training", "validation" or "test" where the folder says so.
        withheld: a sentence for the case that no volume has a mask, which makes the part be left out; an empty string
            when that is an error.
    """

    scans: str
    masks: str
    ending: str = ""
    part: str | None = None
    withheld: str = ""


@dataclass(frozen=True)
class VolumeFolders:
    """Volumes (.mhd, .mha, .nii, .nii.gz, or a folder of DICOM files each) with masks of the same names.

    Every slice becomes an item ``NAME_slice000``, numbered from 0 in the order of the file; the group is the volume.

    Attributes:
        parts: the folders; each may be absent, but not all. Several may belong to one part.
        present: class of a slice in which something is marked.
        absent: class of a slice in which nothing is.
        roots: possible folders that hold everything; "." is the source itself.
    """

    parts: tuple[VolumePart, ...]
    present: str
    absent: str
    roots: tuple[str, ...] = (".",)

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        first = self.parts[0]
        if first.scans == first.masks:
            return f"{first.scans}/NAME.mhd + {first.scans}/NAME{first.ending}.mhd"
        return f"{first.scans}/ + {first.masks}/ with volumes (.nii, .nii.gz, .mhd, or a folder of DICOM files)"

    def read(self, source: Path) -> Listing | None:
        """Return the slices of all volumes, or None when no folder holds a volume."""
        for _, root in existing_folders(source, self.roots):
            folders = [(part, folder) for part in self.parts if (folder := find_folder(root, part.scans)) is not None]
            if any(is_volume(path) for _, folder in folders for path in _visible(folder)):
                listing = Listing()
                for part, folder in folders:
                    self._read_part(part, folder, find_folder(root, part.masks), listing)
                listing.items = _distinct_volumes(listing.items)
                return listing
        return None

    def _read_part(self, part: VolumePart, folder: Path, masks_folder: Path | None, listing: Listing) -> None:
        scans = _volumes(folder, listing)
        masks = scans if masks_folder == folder else _volumes(masks_folder, listing) if masks_folder else {}
        ending = part.ending.casefold()
        masks = {name[: len(name) - len(ending)]: path for name, path in masks.items() if name.endswith(ending)}
        if masks_folder == folder:
            scans = {name: path for name, path in scans.items() if not name.endswith(ending)}
        listing.problems.extend(
            f"{path}: this mask has no volume in {folder}" for name, path in masks.items() if name not in scans
        )
        if part.withheld and not masks:
            listing.notes.append(f"{part.withheld}; {len(scans)} volumes were left out")
            return
        for name, path in scans.items():
            if name not in masks:
                listing.problems.append(
                    f"{path}: has no mask; expected {(masks_folder or folder.parent / part.masks) / volume_name(path)}"
                    f"{part.ending} with the suffix of a volume"
                )
            else:
                self._add_slices(VolumePair(path, masks[name], volume_name(path)), part, listing)

    def _add_slices(self, pair: VolumePair, part: VolumePart, listing: Listing) -> None:
        try:
            marked = slices_with_object(pair)
        except DataError as error:
            listing.problems.append(str(error))
            return
        listing.items.extend(
            SourceItem(
                f"{pair.name}_slice{index:03d}",
                pair.scan,
                (pair.mask,),
                part.part,
                group=pair.name,
                stratum=self.present if is_marked else self.absent,
                volume=pair,
                slice_index=index,
            )
            for index, is_marked in enumerate(marked)
        )


def _volumes(folder: Path, listing: Listing) -> dict[str, Path]:
    """Return the volumes of a folder by their name in small letters; side files are noted, other files are problems."""
    found: dict[str, Path] = {}
    ignored = []
    for path in _visible(folder):
        suffix = path.suffix.lower()
        if is_volume(path):
            name = volume_name(path).casefold()
            if name in found:
                listing.problems.append(f"{path}: {found[name].name} has the same name; expected one volume of a name")
            found.setdefault(name, path)
        elif path.is_dir() or (suffix in _DATA_SUFFIXES and path.with_suffix(".mhd").is_file()):
            continue
        elif suffix in _SIDE_SUFFIXES:
            ignored.append(path.name)
        else:
            listing.problems.append(f"{path}: is no volume ({suffix or 'no suffix'}), nor the data of one; take it out")
    listing.note_left_out(folder, ignored)
    return found


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]


def _distinct_volumes(items: list[SourceItem]) -> list[SourceItem]:
    """Put the part before the names of all volumes when one occurs in more than one part: these are other patients."""
    parts_of = Counter(group for group, _ in {(item.group, item.part) for item in items})
    if max(parts_of.values(), default=1) == 1 or any(item.part is None for item in items):
        return items
    return [replace(item, identity=f"{item.part}_{item.identity}", group=f"{item.part}_{item.group}") for item in items]
