"""The radiology data sets PhysioNet ICH, Montgomery and PROMISE12: what they are, how they lie, their splits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.data.info import DatasetInfo
from msrf_monai.data.layouts import (
    SIDE_FILE_SUFFIXES,
    FolderPair,
    Listing,
    PairedFolders,
    SourceItem,
    existing_folders,
    find_folder,
)
from msrf_monai.data.pictures import PICTURE_SUFFIXES
from msrf_monai.data.published import HIGMISNET_FOLDERS, higmisnet_split, official_higmisnet_split
from msrf_monai.data.volumes import VolumeFolders, VolumePart, Window

__all__ = ["RADIOLOGY_DATASETS", "PatientPictures", "UnitedMasks", "montgomery_class"]

BRAIN_WINDOW = Window(level=40, width=80, unit="HU")
"""The usual window for the brain; the data set's own script shows 120 units around 40."""


def montgomery_class(identity: str) -> str | None:
    """Return the class of a Montgomery radiograph, the last digit of its name.

    Args:
        identity: name of the picture, such as "MCUCXR_0001_0".

    Returns:
        "normal" or "tuberculosis", or None when the name is not of this form.

    Example:
        >>> montgomery_class("MCUCXR_0104_1")
        'tuberculosis'
    """
    found = re.fullmatch(r"mcucxr_\d+_([01])", identity, re.IGNORECASE)
    return ("normal", "tuberculosis")[int(found[1])] if found else None


@dataclass(frozen=True)
class UnitedMasks:
    """Pictures with several masks each, one in each of several folders, matched by stem and united.

    Attributes:
        images: folder of the pictures.
        masks: folders of the masks; every picture has one in each.
        roots: possible folders that hold them; "." is the source itself.
    """

    images: str
    masks: tuple[str, ...]
    roots: tuple[str, ...] = (".",)

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        return " + ".join(f"{name}/" for name in (self.images, *self.masks))

    def read(self, source: Path) -> Listing | None:
        """Return the pictures, or None when a folder of pictures is not there with one of masks."""
        for _, root in existing_folders(source, self.roots):
            images = find_folder(root, self.images)
            if images is None:
                continue
            folders = {mask: find_folder(root, mask) for mask in self.masks}
            if any(folders.values()):
                return self._read(root, images, folders)
        return None

    def _read(self, root: Path, images: Path, folders: dict[str, Path | None]) -> Listing:
        listing = Listing()
        missing = [
            f"{root / name}: this folder of masks is missing" for name, folder in folders.items() if folder is None
        ]
        listing.problems.extend(missing)
        pictures = _pictures(images, listing)
        masks = [(folder, _pictures(folder, listing)) for folder in folders.values() if folder is not None]
        for stem, picture in pictures.items():
            lacking = [folder for folder, found in masks if stem not in found]
            listing.problems.extend(f"{picture}: has no mask in {folder}" for folder in lacking)
            if not lacking:
                listing.items.append(SourceItem(stem, picture, tuple(found[stem] for _, found in masks)))
        listing.problems.extend(
            f"{mask}: this mask has no picture in {images}"
            for _, found in masks
            for stem, mask in found.items()
            if stem not in pictures
        )
        return listing


def _pictures(folder: Path, listing: Listing) -> dict[str, Path]:
    """Return the pictures of a folder by stem; side files are passed over, other files and equal stems are problems."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        if file.name.startswith((".", "__")) or file.is_dir() or suffix in SIDE_FILE_SUFFIXES:
            continue
        if suffix not in PICTURE_SUFFIXES:
            listing.problems.append(f"{file}: is not a picture ({suffix or 'no suffix'}); take it out of this folder")
        elif file.stem in found:
            listing.problems.append(f"{file}: {found[file.stem].name} has the same stem; stems must be unique")
        else:
            found[file.stem] = file
    return found


@dataclass(frozen=True)
class PatientPictures:
    """A folder for each patient with slices as pictures, and masks of those in which something is marked.

    ``Patients_CT/049/brain/14.jpg`` with ``14_HGE_Seg.jpg`` beside it, as PhysioNet ICH was before its version 1.3.

    Attributes:
        root: folder of the patients' folders.
        pictures: folder in each of them.
        ending: what the name of a mask has after that of its slice.
        present: class of a slice with a mask.
        absent: class of a slice without one.
        roots: possible folders that hold ``root``; "." is the source itself.
    """

    root: str
    pictures: str
    ending: str
    present: str
    absent: str
    roots: tuple[str, ...] = (".",)

    @property
    def expected(self) -> str:
        """The folders that this layout looks for, in words."""
        return f"{self.root}/<patient>/{self.pictures}/14.jpg and 14{self.ending}.jpg"

    def read(self, source: Path) -> Listing | None:
        """Return the slices of all patients, or None when there is no folder of a patient."""
        for _, root in existing_folders(source, (f"{name}/{self.root}" for name in self.roots)):
            folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
            found = [
                (folder, slices) for folder in folders if (slices := find_folder(folder, self.pictures)) is not None
            ]
            if found:
                listing = Listing()
                for folder, slices in found:
                    self._read_patient(folder.name, slices, listing)
                return listing
        return None

    def _read_patient(self, patient: str, folder: Path, listing: Listing) -> None:
        masks: dict[str, Path] = {}
        slices: dict[str, Path] = {}
        for stem, file in _pictures(folder, listing).items():
            is_mask = stem.lower().endswith(self.ending.lower())
            (masks if is_mask else slices)[stem[: len(stem) - len(self.ending)] if is_mask else stem] = file
        for stem, file in slices.items():
            found = masks.pop(stem, None)
            number = f"{int(stem):03d}" if stem.isascii() and stem.isdigit() else stem
            listing.items.append(
                SourceItem(
                    f"{patient}_slice{number}",
                    file,
                    () if found is None else (found,),
                    group=patient,
                    stratum=self.absent if found is None else self.present,
                )
            )
        listing.problems.extend(f"{mask}: this mask has no picture" for mask in masks.values())


_FLAT = PairedFolders((FolderPair(("images",), ("masks", "labels")),))

_ICH_ROOTS = (
    ".",
    "computed-tomography-images-for-intracranial-hemorrhage-detection-and-segmentation-1.3.1",
    "ct-ich",
)
_HEMORRHAGE = ("hemorrhage", "no_hemorrhage")
_PROSTATE = ("prostate", "no_prostate")

_WITHHELD = "holds no mask: the challenge did not give out those of its live and test cases at first"


def _promise_parts() -> tuple[VolumePart, ...]:
    folders = {
        "training": ("training_data", "TrainingData", *(f"TrainingData_Part{part}" for part in (1, 2, 3)), "train"),
        "validation": ("livechallenge_test_data", "LiveChallengeTestData", "live"),
        "test": ("test_data", "TestData", "test"),
    }
    return tuple(
        VolumePart(name, name, "_segmentation", part, "" if part == "training" else f"{name} {_WITHHELD}")
        for part, names in folders.items()
        for name in names
    )


RADIOLOGY_DATASETS = (
    DatasetInfo(
        name="physionet_ich",
        title="PhysioNet ICH (CT images for intracranial hemorrhage)",
        modality="CT",
        subject="intracranial hemorrhage in slices of head CT, brain window",
        labels=("background", "hemorrhage"),
        counts={_HEMORRHAGE[0]: 318},
        count_note="82 scans of which 36 show hemorrhage; 75 since version 1.3.1",
        sizes="512 x 512, in old versions 650 x 650 pixels",
        licence="CC BY 4.0 according to the article on version 1.3.0; restricted access on PhysioNet since 1.3.1: its "
        "terms hold",
        citation="M. D. Hssayeni et al., Intracranial Hemorrhage Segmentation Using a Deep Convolutional Model, Data "
        "5(1), 2020, doi:10.3390/data5010014; PhysioNet, doi:10.13026/4nae-zg36",
        url="https://physionet.org/content/ct-ich/",
        standard_splits=(higmisnet_split((254, 32, 32)),),
        default_split="random",
        grouping="patient",
        left_out=(_HEMORRHAGE[1],),
        window=BRAIN_WINDOW,
        layouts=(
            VolumeFolders((VolumePart("ct_scans", "masks"),), *_HEMORRHAGE, roots=_ICH_ROOTS),
            PatientPictures("Patients_CT", "brain", "_HGE_Seg", *_HEMORRHAGE, roots=_ICH_ROOTS),
            HIGMISNET_FOLDERS,
        ),
    ),
    DatasetInfo(
        name="montgomery",
        title="Montgomery County chest X-ray set",
        modality="X-ray",
        subject="both lungs in chest radiographs, normal and with tuberculosis",
        labels=("background", "lung"),
        counts={"normal": 80, "tuberculosis": 58},
        sizes="4020 x 4892 and 4892 x 4020 pixels",
        licence="unknown: free download from the U.S. National Library of Medicine with citation; read its ReadMe",
        citation="S. Jaeger et al., Two public chest X-ray datasets for computer-aided screening of pulmonary "
        "diseases, Quantitative Imaging in Medicine and Surgery 4(6), 2014, doi:10.3978/j.issn.2223-4292.2014.11.20",
        url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set/",
        standard_splits=(higmisnet_split((110, 14, 14)),),
        stratum_of=montgomery_class,
        layouts=(
            UnitedMasks(
                "CXR_png",
                ("ManualMask/leftMask", "ManualMask/rightMask"),
                roots=(".", "MontgomerySet", "NLM-MontgomeryCXRSet/MontgomerySet"),
            ),
            _FLAT,
            HIGMISNET_FOLDERS,
        ),
    ),
    DatasetInfo(
        name="promise12",
        title="PROMISE12 (Prostate MR Image Segmentation 2012)",
        modality="MR",
        subject="the prostate in slices of transversal T2-weighted MR",
        labels=("background", "prostate"),
        counts={"training": 50, "validation": 20, "test": 30},
        counts_groups=True,
        count_note="50 with masks in the challenge's own release",
        sizes="256 x 256 to 512 x 512 pixels",
        licence="unknown: see the page of the download",
        citation="G. Litjens et al., Evaluation of prostate segmentation algorithms for MRI: The PROMISE12 challenge, "
        "Medical Image Analysis 18(2), 2014, doi:10.1016/j.media.2013.12.002",
        url="https://zenodo.org/records/8026660",
        splits=("official", "random"),
        standard_splits=(
            official_higmisnet_split("the organisers' 50 training, 20 live and 30 test cases, where all have masks"),
        ),
        grouping="patient",
        left_out=(_PROSTATE[1],),
        window=Window(),
        layouts=(
            VolumeFolders(_promise_parts(), *_PROSTATE, roots=(".", "PROMISE12")),
            VolumeFolders((VolumePart(".", ".", "_segmentation"),), *_PROSTATE),
            HIGMISNET_FOLDERS,
        ),
    ),
)
"""Their entries for the catalogue."""
