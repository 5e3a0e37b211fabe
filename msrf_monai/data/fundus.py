"""The retinal vessel data sets DRIVE, STARE, CHASE_DB1 and HRF: what they are, how they lie on disk, their splits."""

from __future__ import annotations

import re

from msrf_monai.data.info import DatasetInfo, StandardSplit
from msrf_monai.data.observed import NamedFiles, ObservedFolders, ObservedPart
from msrf_monai.data.published import HIGMISNET_FOLDERS

__all__ = ["FUNDUS_DATASETS", "chase_child", "hrf_class"]

_HRF_CLASSES = {"h": "healthy", "dr": "diabetic_retinopathy", "g": "glaucoma"}
_LABELS = ("background", "vessel")


def chase_child(identity: str) -> str | None:
    """Return the child whose eye a CHASE_DB1 picture shows.

    Args:
        identity: name of the picture, such as "Image_01L".

    Returns:
        "child_01" to "child_14", or None when the name is not of this form.

    Example:
        >>> chase_child("Image_01L"), chase_child("Image_01R")
        ('child_01', 'child_01')
    """
    found = re.fullmatch(r"image_(\d\d)[lr]", identity, re.IGNORECASE)
    return f"child_{found[1]}" if found else None


def hrf_class(identity: str) -> str | None:
    """Return the class of an HRF picture.

    Args:
        identity: name of the picture, such as "01_dr".

    Returns:
        "healthy", "diabetic_retinopathy" or "glaucoma", or None when the name is not of this form.

    Example:
        >>> hrf_class("15_h")
        'healthy'
    """
    found = re.fullmatch(r"\d+_(h|dr|g)", identity, re.IGNORECASE)
    return _HRF_CLASSES[found[1].lower()] if found else None


def _chase_20_8(identity: str) -> str | None:
    child = chase_child(identity)
    return child and ("training" if child <= "child_10" else "test")


def _chase_8_20(identity: str) -> str | None:
    child = chase_child(identity)
    return child and ("training" if child <= "child_04" else "test")


def _drive_20_20(identity: str) -> str | None:
    found = re.fullmatch(r"\d+_(training|test)", identity, re.IGNORECASE)
    return found and found[1].lower()


def _hrf_15_30(identity: str) -> str | None:
    number = re.match(r"\d+", identity)
    return number and ("training" if int(number[0]) <= 5 else "test")


def _drive_part(folder: str, part: str, withheld: str = "", complete: str = "") -> ObservedPart:
    return ObservedPart(
        images=NamedFiles(f"{folder}/images", rf"(?P<key>\d+)_{folder}", f"21_{folder}.tif"),
        masks=NamedFiles(f"{folder}/1st_manual", r"(?P<key>\d+)_manual1", "21_manual1.gif"),
        observer2=NamedFiles(f"{folder}/2nd_manual", r"(?P<key>\d+)_manual2", "21_manual2.gif"),
        fov=NamedFiles(f"{folder}/mask", rf"(?P<key>\d+)_{folder}_mask", f"21_{folder}_mask.gif"),
        part=part,
        withheld=withheld,
        complete=complete,
    )


_DRIVE = ObservedFolders(
    (
        _drive_part("training", "training"),
        _drive_part(
            "test",
            "test",
            withheld="test/1st_manual holds no mask: this copy is one without test labels, as the challenge site gives "
            "it out",
            complete="test/1st_manual is here: this copy is one with test labels, which the challenge site withholds "
            "today; say so where you report scores (sha256 in dataset.json tells which masks these are)",
        ),
    ),
    roots=(".", "DRIVE"),
)


def _renamed(key: str, examples: tuple[str, str], endings: tuple[str, str]) -> ObservedFolders:
    """The folders images, masks, masks_observer2 and fov; masks may keep the endings that their authors gave them."""
    image, mask = examples
    return ObservedFolders(
        (
            ObservedPart(
                images=NamedFiles("images", rf"(?P<key>{key})", image),
                masks=NamedFiles("masks", rf"(?P<key>{key})({endings[0]})?", mask),
                observer2=NamedFiles("masks_observer2", rf"(?P<key>{key})({endings[1]})?", mask),
                fov=NamedFiles("fov", rf"(?P<key>{key})(_mask)?", mask),
            ),
        )
    )


_STARE_NAMES = (
    r"(?P<key>im\d{4})",
    r"(?P<key>im\d{4})\.ah",
    r"(?P<key>im\d{4})\.vk",
)
_STARE_EXAMPLES = ("im0001.ppm", "im0001.ah.ppm", "im0001.vk.ppm")


def _stare(folders: tuple[str, str, str]) -> ObservedFolders:
    images, masks, observer2 = (NamedFiles(*rule) for rule in zip(folders, _STARE_NAMES, _STARE_EXAMPLES, strict=True))
    return ObservedFolders((ObservedPart(images, masks, observer2),), roots=(".", "STARE"))


def _chase(fov: str) -> ObservedFolders:
    key = r"(?P<key>image_\d\d[lr])"
    return ObservedFolders(
        (
            ObservedPart(
                NamedFiles(".", key, "Image_01L.jpg"),
                NamedFiles(".", rf"{key}_1stHO", "Image_01L_1stHO.png"),
                NamedFiles(".", rf"{key}_2ndHO", "Image_01L_2ndHO.png"),
                NamedFiles(fov, rf"{key}(_mask)?", "Image_01L.png"),
            ),
        ),
        roots=(".", "CHASEDB1", "CHASE_DB1"),
    )


def _hrf(images: str, masks: str, fov: str) -> ObservedPart:
    key = r"(?P<key>\d+_(?:dr|g|h))"
    return ObservedPart(
        NamedFiles(images, key, "01_h.jpg"),
        NamedFiles(masks, key, "01_h.tif"),
        fov=NamedFiles(fov, rf"{key}_mask", "01_h_mask.tif"),
    )


_HRF_ROOTS = (".", "all", "HRF")
_HRF = (
    ObservedFolders((_hrf("images", "manual1", "mask"),), roots=_HRF_ROOTS),
    ObservedFolders(
        tuple(_hrf(name, f"{name}_manualsegm", f"{name}_fovmask") for name in _HRF_CLASSES.values()), roots=_HRF_ROOTS
    ),
)

FUNDUS_DATASETS = (
    DatasetInfo(
        name="drive",
        title="DRIVE (Digital Retinal Images for Vessel Extraction)",
        modality="RGB",
        subject="retinal vessels in fundus pictures of a diabetic retinopathy screening",
        labels=_LABELS,
        counts={"training": 20, "test": 20},
        sizes="565 x 584 pixels",
        licence="research and education, commercial use only with permission, not to be passed on",
        citation="J. Staal et al., Ridge-based vessel segmentation in color images of the retina, IEEE Transactions on "
        "Medical Imaging 23(4), 2004, doi:10.1109/TMI.2004.825627",
        url="https://drive.grand-challenge.org/",
        splits=("official", "random"),
        standard_splits=(
            StandardSplit("higmisnet", "16/4/20, the official parts, images 37 to 40 validate", _drive_20_20),
        ),
        default_split="official",
        validates_on_last=True,
        has_field_of_view=True,
        layouts=(_DRIVE, HIGMISNET_FOLDERS),
    ),
    DatasetInfo(
        name="stare",
        title="STARE (Structured Analysis of the Retina), vessels",
        modality="RGB",
        subject="retinal vessels in digitised fundus slides, half of them with pathology; observers AH and VK",
        labels=_LABELS,
        counts={"all": 20},
        sizes="700 x 605 pixels",
        licence="free download, no licence text: treat as research use",
        citation="A. Hoover, V. Kouznetsova and M. Goldbaum, Locating blood vessels in retinal images by piecewise "
        "threshold probing of a matched filter response, IEEE Transactions on Medical Imaging 19(3), 2000, "
        "doi:10.1109/42.845178",
        url="https://cecas.clemson.edu/~ahoover/stare/",
        standard_splits=(
            StandardSplit("5fold", "cross-validation over all 20 pictures, folds of 4", folds=5),
            StandardSplit("leave_one_out", "cross-validation that tests one picture at a time", leave_one_out=True),
        ),
        default_split="5fold",
        validates_on_last=True,
        has_field_of_view=True,
        layouts=(
            _stare(("stare-images", "labels-ah", "labels-vk")),
            _renamed(r"im\d{4}", ("im0001.ppm", "im0001.png"), (r"\.ah", r"\.vk")),
            _stare((".", ".", ".")),
        ),
    ),
    DatasetInfo(
        name="chase_db1",
        title="CHASE_DB1 (Child Heart and Health Study in England)",
        modality="RGB",
        subject="retinal vessels of both eyes of 14 children; two observers",
        labels=_LABELS,
        counts={"all": 28},
        sizes="999 x 960 pixels",
        licence="CC BY 4.0",
        citation="M. M. Fraz et al., An Ensemble Classification-Based Approach Applied to Retinal Blood Vessel "
        "Segmentation, IEEE Transactions on Biomedical Engineering 59(9), 2012, doi:10.1109/TBME.2012.2205687",
        url="https://researchdata.kingston.ac.uk/96/",
        standard_splits=(
            StandardSplit("20_8", "children 01 to 10 for training, 11 to 14 for the test", _chase_20_8),
            StandardSplit("8_20", "children 01 to 04 for training, 05 to 14 for the test", _chase_8_20),
        ),
        default_split="20_8",
        validates_on_last=True,
        grouping="child",
        group_of=chase_child,
        has_field_of_view=True,
        layouts=(
            _renamed(r"image_\d\d[lr]", ("Image_01L.jpg", "Image_01L.png"), ("_1stHO", "_2ndHO")),
            _chase("fov"),
        ),
    ),
    DatasetInfo(
        name="hrf",
        title="HRF (High-Resolution Fundus)",
        modality="RGB",
        subject="retinal vessels in fundus pictures of healthy, diabetic and glaucomatous eyes",
        labels=_LABELS,
        counts=dict.fromkeys(_HRF_CLASSES.values(), 15),
        sizes="3504 x 2336 pixels",
        licence="CC BY 4.0",
        citation="A. Budai et al., Robust Vessel Segmentation in Fundus Images, International Journal of Biomedical "
        "Imaging, 2013, doi:10.1155/2013/154860",
        url="https://www5.cs.fau.de/research/data/fundus-images/",
        standard_splits=(
            StandardSplit(
                "15_30",
                "the first five pictures of each class for training (J. I. Orlando et al., IEEE Transactions on "
                "Biomedical Engineering 64(1), 2017, doi:10.1109/TBME.2016.2535311)",
                _hrf_15_30,
            ),
        ),
        default_split="15_30",
        validates_on_last=True,
        stratum_of=hrf_class,
        has_field_of_view=True,
        layouts=_HRF,
    ),
)
"""Their entries for the catalogue."""
