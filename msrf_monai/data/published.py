"""What the data sets of Hi-gMISnet have in common: its authors' folders and its splits."""

from __future__ import annotations

from msrf_monai.data.info import StandardSplit
from msrf_monai.data.layouts import FolderPair, PairedFolders

__all__ = ["HIGMISNET_FOLDERS", "higmisnet_split", "official_higmisnet_split"]

HIGMISNET_FOLDERS = PairedFolders(
    tuple(
        FolderPair((f"{name}_folder/img",), (f"{name}_folder/label",), part)
        for name, part in (("train", "training"), ("val", "validation"), ("test", "test"))
    ),
    by_order=True,
)
"""``train_folder/img`` + ``train_folder/label``, …: one data set of the authors' collection, with their split."""

_ARTICLE = "T. T. Showrav and M. K. Hasan 2024, doi:10.1088/1361-6560/ad3cb3"


def higmisnet_split(sizes: tuple[int, int, int], *, keeps_test: bool = False) -> StandardSplit:
    """Return the split of the article on Hi-gMISnet for a data set that it divides at random.

    Its lists of pictures are not public outside of the authors' own folders, so only the numbers are the same.

    Args:
        sizes: training, validation and test pictures.
        keeps_test: the test part is the organisers' one.

    Returns:
        The split "higmisnet".
    """
    drawn = "training and validation" if keeps_test else "pictures"
    about = f"{sizes[0]}/{sizes[1]}/{sizes[2]}, {drawn} drawn one by one ({_ARTICLE}); related pictures are torn apart"
    return StandardSplit("higmisnet", about, sizes=sizes, keeps_test=keeps_test)


def official_higmisnet_split(about: str) -> StandardSplit:
    """Return the split "higmisnet" for a data set of which the article takes the official parts."""
    return StandardSplit("higmisnet", f"{about} ({_ARTICLE})")
