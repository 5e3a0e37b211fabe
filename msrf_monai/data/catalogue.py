"""The data sets that ``msrf-monai data prepare`` knows: what they are, whose they are, how they lie on disk."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping

from msrf_monai.data.fundus import FUNDUS_DATASETS
from msrf_monai.data.info import DatasetInfo
from msrf_monai.data.layouts import FolderPair, PairedFolders, PerImageFolders, SideBySide
from msrf_monai.data.pathology import PATHOLOGY_DATASETS
from msrf_monai.data.published import HIGMISNET_FOLDERS, higmisnet_split
from msrf_monai.data.radiology import RADIOLOGY_DATASETS
from msrf_monai.errors import InputError

__all__ = ["CATALOGUE", "DatasetInfo", "busi_class", "clinicdb_sequence", "get_dataset_info"]

CLINICDB_SEQUENCE_ENDS = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317),
    *(342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612),
)
"""Last frame of each of the 29 video sequences of CVC-ClinicDB, as its documentation lists them."""


def clinicdb_sequence(identity: str) -> str | None:
    """Return the video sequence of a CVC-ClinicDB frame.

    Args:
        identity: name of the frame, its number from 1 to 612 (leading zeros are fine).

    Returns:
        "sequence_01" to "sequence_29", or None when the name is no frame number.

    Example:
        >>> clinicdb_sequence("26")
        'sequence_02'
    """
    if not identity.isascii() or not identity.isdigit() or not 1 <= int(identity) <= CLINICDB_SEQUENCE_ENDS[-1]:
        return None
    return f"sequence_{bisect_left(CLINICDB_SEQUENCE_ENDS, int(identity)) + 1:02d}"


def busi_class(identity: str) -> str | None:
    """Return the class of a BUSI picture.

    Args:
        identity: name of the picture, such as "benign (7)" or "malignant_12".

    Returns:
        "benign", "malignant" or "normal", or None when the name begins with none of them.

    Example:
        >>> busi_class("benign (7)")
        'benign'
    """
    found = re.match(r"(benign|malignant|normal)(?![a-z])", identity.lower())
    return found[1] if found else None


def get_dataset_info(name: str) -> DatasetInfo:
    """Return the entry of a data set.

    Args:
        name: its name; case and hyphens do not matter.

    Returns:
        The entry.

    Raises:
        InputError: when there is no data set of that name; the message lists those there are.
    """
    key = name.lower().replace("-", "_")
    if key not in CATALOGUE:
        raise InputError(f"no data set is called {name!r}; the names are {', '.join(CATALOGUE)}")
    return CATALOGUE[key]


_IMAGES = ("images", "image", "imgs")
_MASKS = ("masks", "mask", "labels", "label")
_FLAT = PairedFolders((FolderPair(_IMAGES, _MASKS),))


def _part(names: tuple[str, ...], part: str) -> FolderPair:
    return FolderPair(
        tuple(f"{name}/{images}" for name in names for images in ("image", "images", "imgs")),
        tuple(f"{name}/{masks}" for name in names for masks in ("mask", "masks", "label", "labels")),
        part,
    )


def _isic(images: str, masks: str, part: str) -> FolderPair:
    return FolderPair((images,), (masks,), part, ignore=("*_superpixels.png",))


_CLINICDB = tuple(
    PairedFolders((FolderPair((f"{root}Original",), (f"{root}Ground Truth", f"{root}Ground_Truth")),))
    for root in ("", "CVC-ClinicDB/", "PNG/", "TIF/")
)

_ENTRIES = (
    DatasetInfo(
        name="kvasir_seg",
        title="Kvasir-SEG",
        modality="RGB",
        subject="polyps in colonoscopy",
        labels=("background", "polyp"),
        counts={"all": 1000},
        sizes="332 x 487 to 1920 x 1072 pixels",
        licence="Research and education, commercial use with permission only (https://datasets.simula.no/kvasir-seg/); "
        "the same pictures in HyperKvasir are CC BY 4.0",
        citation="D. Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020, arXiv:1911.07069",
        url="https://datasets.simula.no/kvasir-seg/",
        layouts=(_FLAT, PairedFolders((FolderPair(("Kvasir-SEG/images",), ("Kvasir-SEG/masks",)),))),
    ),
    DatasetInfo(
        name="cvc_clinicdb",
        title="CVC-ClinicDB",
        modality="RGB",
        subject="polyps in colonoscopy video",
        labels=("background", "polyp"),
        counts={"all": 612},
        sizes="384 x 288 pixels",
        licence="Research use with citation; copyright Hospital Clinic and Computer Vision Center, Barcelona",
        citation="J. Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, Computerized Medical "
        "Imaging and Graphics 43, 2015, doi:10.1016/j.compmedimag.2015.02.007",
        url="https://polyp.grand-challenge.org/CVCClinicDB/",
        standard_splits=(higmisnet_split((490, 61, 61)),),
        grouping="video sequence",
        group_of=clinicdb_sequence,
        layouts=(*_CLINICDB, _FLAT, HIGMISNET_FOLDERS),
    ),
    DatasetInfo(
        name="dsb2018",
        title="2018 Data Science Bowl, stage1_train (BBBC038v1)",
        modality="RGB",
        subject="cell nuclei in fluorescence and stained-tissue microscopy",
        labels=("background", "nucleus"),
        counts={"all": 670},
        count_note="664 in the collection with corrected masks",
        sizes="256 x 256 to 1388 x 1040 pixels",
        licence="CC0 1.0",
        citation="J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
        "Nature Methods 16, 2019, doi:10.1038/s41592-019-0612-7",
        url="https://bbbc.broadinstitute.org/BBBC038",
        layouts=(PerImageFolders(("stage1_train", ".")), _FLAT),
    ),
    DatasetInfo(
        name="isic2018",
        title="ISIC 2018 task 1",
        modality="RGB",
        subject="skin lesions in dermoscopy",
        labels=("background", "lesion"),
        counts={"training": 2594, "validation": 100, "test": 1000},
        count_note="the articles use the 2594 training pictures alone, split 80/10/10",
        sizes="540 x 576 to 6748 x 4499 pixels",
        licence="CC BY-NC 4.0",
        citation="N. Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368; "
        "P. Tschandl et al., The HAM10000 dataset, Scientific Data 5, 2018, doi:10.1038/sdata.2018.161",
        url="https://challenge.isic-archive.com/data/#2018",
        splits=("official", "random"),
        standard_splits=(higmisnet_split((2074, 260, 260)),),
        layouts=(
            PairedFolders(
                (
                    _isic("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "training"),
                    _isic("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", "validation"),
                    _isic("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "test"),
                )
            ),
            _FLAT,
            HIGMISNET_FOLDERS,
        ),
    ),
    DatasetInfo(
        name="isic2017",
        title="ISIC 2017 part 1",
        modality="RGB",
        subject="skin lesions in dermoscopy",
        labels=("background", "lesion"),
        counts={"training": 2000, "validation": 150, "test": 600},
        sizes="540 x 576 to 6748 x 4499 pixels",
        licence="CC0 1.0",
        citation="N. Codella et al., Skin Lesion Analysis Toward Melanoma Detection: A Challenge at ISBI 2017, "
        "arXiv:1710.05006",
        url="https://challenge.isic-archive.com/data/#2017",
        splits=("official", "random"),
        layouts=(
            PairedFolders(
                (
                    _isic("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "training"),
                    _isic("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", "validation"),
                    _isic("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "test"),
                )
            ),
            _FLAT,
        ),
    ),
    DatasetInfo(
        name="busi",
        title="BUSI (Dataset of breast ultrasound images)",
        modality="RGB",
        subject="breast lesions in ultrasound",
        labels=("background", "lesion"),
        counts={"benign": 437, "malignant": 210, "normal": 133},
        sizes="190 x 310 to 1048 x 719 pixels",
        licence="copies in circulation say CC0 1.0, the article is CC BY 4.0; ask the owners where it matters",
        citation="W. Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 2020, "
        "doi:10.1016/j.dib.2019.104863",
        url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        standard_splits=(higmisnet_split((517, 65, 65)),),
        stratum_of=busi_class,
        left_out=("normal",),
        layouts=(
            SideBySide(("benign", "malignant", "normal"), (".", "Dataset_BUSI_with_GT")),
            _FLAT,
            HIGMISNET_FOLDERS,
        ),
    ),
    *FUNDUS_DATASETS,
    *PATHOLOGY_DATASETS,
    *RADIOLOGY_DATASETS,
    DatasetInfo(
        name="folders",
        title="Folders train, valid, test",
        modality="RGB",
        subject="your pictures in {train,valid,test}/{image,mask}",
        labels=("background", "foreground"),
        licence="as the owner of the pictures says",
        citation="",
        url="",
        splits=("official", "random"),
        layouts=(
            PairedFolders(
                (
                    _part(("train", "training"), "training"),
                    _part(("valid", "val", "validation"), "validation"),
                    _part(("test", "testing"), "test"),
                )
            ),
        ),
    ),
    DatasetInfo(
        name="paired",
        title="Folders images, masks",
        modality="RGB",
        subject="your pictures in images/ with masks/ of the same stems",
        labels=("background", "foreground"),
        licence="as the owner of the pictures says",
        citation="",
        url="",
        layouts=(_FLAT,),
    ),
)

CATALOGUE: Mapping[str, DatasetInfo] = {entry.name: entry for entry in _ENTRIES}
"""The data sets by name."""
