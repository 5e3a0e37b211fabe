"""What is known of a data set before its files are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msrf_monai.data.layouts import Layout
from msrf_monai.data.volumes.window import Window

__all__ = ["DatasetInfo", "StandardSplit"]


@dataclass(frozen=True)
class StandardSplit:
    """A split that the articles on a data set use, by its name.

    One of four kinds: ``part_of`` gives every picture its part; the split is a cross-validation in which every picture
    is tested once (see ``cross_validation_part``); ``sizes`` says how many pictures are drawn at random for each part;
    or, with none of these, it is the official split under another name.

    Attributes:
        name: what ``--split`` takes, such as "20_8".
        about: what it is and whose convention it is.
        part_of: function from the name of a picture to "training", "validation", "test" or None (left out).
        folds: number of folds of a cross-validation, 0 for other splits.
        leave_one_out: a cross-validation with one fold for each picture or group.
        sizes: published numbers of training, validation and test pictures, which are drawn one by one, groups torn
            apart; other numbers of pictures are divided in the same proportion.
        keeps_test: with ``sizes``, the test part is the official one and only the rest is drawn. Otherwise all pictures
            are, or, where the folders tell training from other parts, the training pictures alone.
    """

    name: str
    about: str
    part_of: Callable[[str], str | None] | None = None
    folds: int = 0
    leave_one_out: bool = False
    sizes: tuple[int, int, int] | None = None
    keeps_test: bool = False

    @property
    def is_cross_validation(self) -> bool:
        """Whether every picture is tested once."""
        return self.leave_one_out or self.folds > 0


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
        counts_groups: ``counts`` are numbers of groups (patients), since pictures are slices of volumes.
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
            that the part is the same for everybody; otherwise a share chosen by the seed.
        grouping: what ties pictures together, in words, or an empty string when nothing known does.
        group_of: function from the name of a picture to its group or None.
        stratum_of: function from the name of a picture to its class or None; parts and folds are balanced by it.
        left_out: classes that ``prepare`` leaves out unless asked.
        validation_share: what a split without validation part takes of its training pictures at random.
        has_field_of_view: every picture gets a mask of its field of view, derived where none is given.
        window: which values of a volume become black and white in its slices; None for data sets of pictures.
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
    counts_groups: bool = False
    count_note: str = ""
    sizes: str = "any"
    splits: tuple[str, ...] = ("random",)
    standard_splits: tuple[StandardSplit, ...] = ()
    default_split: str | None = None
    validates_on_last: bool = False
    validation_share: float = 0.1
    grouping: str = ""
    group_of: Callable[[str], str | None] | None = None
    stratum_of: Callable[[str], str | None] | None = None
    left_out: tuple[str, ...] = ()
    has_field_of_view: bool = False
    window: Window | None = None
