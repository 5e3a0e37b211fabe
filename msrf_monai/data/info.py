"""What is known of a data set before its files are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msrf_monai.data.layouts import Layout

__all__ = ["DatasetInfo", "StandardSplit"]


@dataclass(frozen=True)
class StandardSplit:
    """A split that the articles on a data set use, by its name.

    Either ``part_of`` gives every picture its part, or the split is a cross-validation in which every picture is tested
    once (see ``cross_validation_part``).

    Attributes:
        name: what ``--split`` takes, such as "20_8".
        about: what it is and whose convention it is.
        part_of: function from the name of a picture to "training", "validation", "test" or None (left out).
        folds: number of folds of a cross-validation, 0 for a split with ``part_of``.
        leave_one_out: a cross-validation with one fold for each picture or group.
    """

    name: str
    about: str
    part_of: Callable[[str], str | None] | None = None
    folds: int = 0
    leave_one_out: bool = False


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before its files are read.

    Attributes:
        name: name used on the command line.
        title: name used by its authors.
        modality: MONAI's name of the channels, "RGB" for colour pictures.
        subject: what the pictures show and how they were taken.
        labels: names of the classes, background first.
        counts: official number of pictures of each part ("training", …), of each class, or of "all"; empty when any
            number is right.
        count_note: which smaller collections are in use.
        sizes: picture sizes in words.
        licence: terms of use in words; what they allow is the user's to check.
        citation: the article to cite.
        url: official page.
        splits: splits that ``prepare`` can make without a splits.json, besides ``standard_splits``: "official",
            "random".
        standard_splits: the splits of the articles, by name.
        default_split: the split that is made when none is asked for; None: the official one where the folders tell
            training from test, else a random one.
        validates_on_last: a split without validation part takes the last fifth of its training pictures by name, so
            that the part is the same for everybody; otherwise a tenth chosen by the seed.
        grouping: what ties pictures together, in words, or an empty string when nothing known does.
        group_of: function from the name of a picture to its group or None.
        stratum_of: function from the name of a picture to its class or None; parts and folds are balanced by it.
        left_out: classes that ``prepare`` leaves out unless asked.
        has_field_of_view: every picture gets a mask of its field of view, derived where none is given.
        layouts: the ways the data set may lie on disk; the first that fits is read.
    """

    name: str
    title: str
    modality: str
    subject: str
    labels: tuple[str, ...]
    licence: str
    citation: str
    url: str
    layouts: tuple[Layout, ...] = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)
    count_note: str = ""
    sizes: str = "any"
    splits: tuple[str, ...] = ("random",)
    standard_splits: tuple[StandardSplit, ...] = ()
    default_split: str | None = None
    validates_on_last: bool = False
    grouping: str = ""
    group_of: Callable[[str], str | None] | None = None
    stratum_of: Callable[[str], str | None] | None = None
    left_out: tuple[str, ...] = ()
    has_field_of_view: bool = False
