"""The pathology data sets MoNuSeg and GlaS: what they are, how they lie on disk, their splits."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from msrf_monai.data.info import DatasetInfo, StandardSplit
from msrf_monai.data.layouts import (
    SIDE_FILE_SUFFIXES,
    FolderPair,
    Listing,
    PairedFolders,
    SourceItem,
    and_more,
    find_folder,
    single_pictures,
)
from msrf_monai.data.observed import NamedFiles, ObservedFolders, ObservedPart
from msrf_monai.data.pictures import PICTURE_SUFFIXES
from msrf_monai.data.published import HIGMISNET_FOLDERS, higmisnet_split

__all__ = ["PATHOLOGY_DATASETS", "GradedGlands", "OutlinedPart", "OutlinedPictures", "monuseg_patient"]

_GRADES = "grade.csv"


def monuseg_patient(identity: str) -> str | None:
    """Return the patient of a MoNuSeg picture, as the barcode of The Cancer Genome Atlas names it.

    Args:
        identity: name of the picture, such as "TCGA-18-5592-01Z-00-DX1".

    Returns:
        The first three parts of the barcode, or None when the name is no barcode.

    Example:
        >>> monuseg_patient("TCGA-18-5592-01Z-00-DX1")
        'TCGA-18-5592'
    """
    found = re.match(r"tcga-\w{2}-\w{4}(?=-|$)", identity, re.IGNORECASE)
    return found[0].upper() if found else None


@dataclass(frozen=True)
class OutlinedPart:
    """Pictures with outlines in XML files of the same stems.

    Attributes:
        folders: possible folders of the pictures and of the XML files, relative to the source; both may be one.
        part: "training", "validation" or "test".
    """

    folders: tuple[tuple[str, str], ...]
    part: str


@dataclass(frozen=True)
class OutlinedPictures:
    """Pictures whose masks are outlines in XML files.

    Attributes:
        parts: the parts; each may be absent, but not all.
    """

    parts: tuple[OutlinedPart, ...]

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        images, annotations = self.parts[0].folders[0]
        return f"{images}/NAME.tif + {annotations}/NAME.xml{and_more(len(self.parts) - 1, 'parts')}"

    def read(self, source: Path) -> Listing | None:
        """Return the pictures of all parts, or None when no folder of pictures is there with one of XML files."""
        listing = Listing()
        for part in self.parts:
            pairs = ((find_folder(source, images), find_folder(source, xml)) for images, xml in part.folders)
            found = next(((images, xml) for images, xml in pairs if images and xml and _files(xml, {".xml"})), None)
            if found is not None:
                _match_outlines(*found, part.part, listing)
        return listing if listing.items or listing.problems else None


def _match_outlines(images: Path, annotations: Path, part: str, listing: Listing) -> None:
    pictures, outlines = _files(images, PICTURE_SUFFIXES), _files(annotations, {".xml"})
    for stem, picture in single_pictures(pictures, listing):
        if stem not in outlines:
            listing.problems.append(f"{picture}: has no annotations; expected {annotations / stem}.xml")
        else:
            listing.items.append(SourceItem(stem, picture, (outlines[stem][0],), part, mask_kind="outlines"))
    listing.problems.extend(
        f"{files[0]}: these annotations have no picture in {images}"
        for stem, files in outlines.items()
        if stem not in pictures
    )
    wanted = PICTURE_SUFFIXES | {".xml"}
    for folder in dict.fromkeys((images, annotations)):
        for file in (file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")):
            if file.suffix.lower() in SIDE_FILE_SUFFIXES - {".xml"}:
                listing.notes.append(f"left out of {folder}: {file.name}")
            elif file.suffix.lower() not in wanted:
                listing.problems.append(f"{file}: is neither a picture nor annotations; take it out of this folder")


def _files(folder: Path, suffixes: frozenset[str] | set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in suffixes and not file.name.startswith((".", "__")) and file.is_file():
            found[file.stem].append(file)
    return found


@dataclass(frozen=True)
class GradedGlands:
    """GlaS: pictures and masks in one folder, patients and grades in Grade.csv beside them.

    Attributes:
        files: the names of the pictures and masks.
    """

    files: ObservedFolders

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        return f"{self.files.expected}, Grade.csv"

    def read(self, source: Path) -> Listing | None:
        """Return the pictures with patient and grade, or None when there is no picture of the right name."""
        listing = self.files.read(source)
        if listing is None or not listing.items:
            return listing
        folder = listing.items[0].image.parent
        path = next((file for file in folder.iterdir() if file.name.lower() == _GRADES), None)
        if path is None:
            return listing
        grades = _read_grades(path, listing)
        known = [grades.get(item.identity.casefold(), (None, None)) for item in listing.items]
        pairs = zip(listing.items, known, strict=True)
        return replace(listing, items=[replace(item, group=group, stratum=grade) for item, (group, grade) in pairs])


def _read_grades(path: Path, listing: Listing) -> dict[str, tuple[str | None, str | None]]:
    """Return patient and grade by the name of the picture in small letters; a table without them is a problem."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.reader(handle, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        listing.problems.append(f"{path}: cannot be read as a table ({error})")
        return {}
    head = [column.strip().lower() for column in rows[0]] if rows else []
    columns = [
        next((i for i, name in enumerate(head) if name.startswith(key)), -1) for key in ("name", "patient", "grade")
    ]
    if min(columns) < 0:
        listing.problems.append(
            f"{path}: has the columns {', '.join(head) or 'none'}; expected name, patient ID and grade"
        )
        return {}
    complete = [[row[column].strip() for column in columns] for row in rows[1:] if len(row) > max(columns)]
    return {name.casefold(): (f"patient_{patient}", grade.lower()) for name, patient, grade in complete if patient}


_FLAT = PairedFolders((FolderPair(("images",), ("masks", "labels")),))

_TRAINING_ROOTS = ("MoNuSeg 2018 Training Data", "MoNuSegTrainingData", "MoNuSeg Training Data", "Training", "train")
_TEST_ROOTS = ("MoNuSegTestData", "MoNuSeg 2018 Test Data", "MoNuSeg Test Data", "Test")


def _monuseg_part(roots: tuple[str, ...], part: str) -> OutlinedPart:
    nested = tuple(place for root in roots for place in (f"{root}/", f"{root}/{root}/"))
    places = (*nested, "") if part == "training" else nested
    names = ("Tissue Images", "TissueImages", "images")
    apart = tuple((f"{place}{name}", f"{place}Annotations") for place in places for name in names)
    together = tuple((place.rstrip("/"), place.rstrip("/")) for place in nested)
    return OutlinedPart(apart + together, part)


def _glas_part(name: str, part: str) -> ObservedPart:
    return ObservedPart(
        NamedFiles(".", rf"(?P<key>{name}_\d+)", f"{name}_1.bmp"),
        NamedFiles(".", rf"(?P<key>{name}_\d+)_anno", f"{name}_1_anno.bmp"),
        part=part,
    )


_GLAS = GradedGlands(
    ObservedFolders(
        (_glas_part("train", "training"), _glas_part("testA", "test"), _glas_part("testB", "test")),
        roots=(".", "Warwick QU Dataset (Released 2016_07_08)", "Warwick_QU_Dataset", "GlaS"),
        known=(_GRADES,),
        mask_kind="instances",
    )
)


def _glas_test(name: str) -> StandardSplit:
    def part_of(identity: str) -> str | None:
        stem = identity.lower()
        return "training" if stem.startswith("train_") else "test" if stem.startswith(f"test{name}_") else None

    about = f"the organisers' training part and their test part {name.upper()} alone"
    return StandardSplit(f"test_{name}", about, part_of=part_of)


PATHOLOGY_DATASETS = (
    DatasetInfo(
        name="monuseg",
        title="MoNuSeg (Multi-Organ Nucleus Segmentation 2018)",
        modality="RGB",
        subject="cell nuclei of several organs in H&E stain at 40x",
        labels=("background", "nucleus"),
        counts={"training": 30, "test": 14},
        count_note="later copies have 37 training pictures",
        sizes="1000 x 1000 pixels",
        licence="CC BY-NC-SA 4.0 according to copies in circulation",
        citation="N. Kumar et al., A Multi-Organ Nucleus Segmentation Challenge, IEEE Transactions on Medical Imaging "
        "39(5), 2020, doi:10.1109/TMI.2019.2947628",
        url="https://monuseg.grand-challenge.org/",
        splits=("official", "random"),
        standard_splits=(higmisnet_split((23, 7, 14), keeps_test=True),),
        validation_share=7 / 30,
        grouping="patient",
        group_of=monuseg_patient,
        layouts=(
            OutlinedPictures((_monuseg_part(_TRAINING_ROOTS, "training"), _monuseg_part(_TEST_ROOTS, "test"))),
            _FLAT,
            HIGMISNET_FOLDERS,
        ),
    ),
    DatasetInfo(
        name="glas",
        title="GlaS (Gland Segmentation in Colon Histology Images)",
        modality="RGB",
        subject="glands of the colon in H&E stain, benign and malignant",
        labels=("background", "gland"),
        counts={"training": 85, "test": 80},
        sizes="mostly 775 x 522 pixels",
        licence="research only, no commercial use, with citation (https://glas.grand-challenge.org/Dataset)",
        citation="K. Sirinukunwattana et al., Gland segmentation in colon histology images: The GlaS challenge "
        "contest, Medical Image Analysis 35, 2017, doi:10.1016/j.media.2016.08.008",
        url="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
        splits=("official", "random"),
        standard_splits=(higmisnet_split((72, 13, 80), keeps_test=True), _glas_test("a"), _glas_test("b")),
        validation_share=13 / 85,
        grouping="patient",
        layouts=(_GLAS, _FLAT, HIGMISNET_FOLDERS),
    ),
)
"""Their entries for the catalogue."""
