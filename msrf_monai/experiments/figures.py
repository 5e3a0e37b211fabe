"""The figures of a cross-validation, each as the bytes of a PNG file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msrf_monai.optional import require

__all__ = ["draw_boxes", "draw_differences", "draw_folds", "draw_learning_curves"]

_DPI = 110
_MOST_POINTS = 600  # of a box; more would hide it
_COLOURS = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
)
History = Sequence[Mapping[str, float]]


def draw_boxes(values: Mapping[str, Sequence[float]], *, score: str = "Dice") -> bytes:
    """Draw a box plot of the images' scores for each variant, with the images as points.

    Args:
        values: the images' scores by variant.
        score: name of the score.

    Returns:
        A PNG file.
    """
    figure, axes = _figure(width=2.2 + 1.25 * len(values), height=4.4)
    names = list(values)
    rng = np.random.default_rng(0)
    for position, name in enumerate(names, start=1):
        points, colour = np.asarray(values[name], dtype=np.float64), _COLOURS[(position - 1) % len(_COLOURS)]
        if len(points) <= _MOST_POINTS:
            spread = position + rng.uniform(-0.2, 0.2, len(points))
            axes.plot(spread, points, ".", color=colour, markersize=5, alpha=0.5, markeredgewidth=0, zorder=1)
        axes.boxplot(
            points,
            positions=[position],
            widths=0.55,
            showfliers=len(points) > _MOST_POINTS,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour},
            medianprops={"color": "black", "linewidth": 1.6},
            boxprops={"color": colour, "linewidth": 1.4},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        axes.plot(position, points.mean(), "D", color="white", markeredgecolor="black", markersize=6, zorder=4)
    labels = [f"{name}\nmean {np.mean(values[name]):.3f}" for name in names]
    axes.set_xticks(range(1, len(names) + 1), labels)
    axes.set_xlim(0.4, len(names) + 0.6)
    axes.set_ylim(-0.03, 1.03)
    axes.set(ylabel=f"{score} of an image", title=f"{score} of the test images")
    axes.grid(axis="y", alpha=0.3)
    return _png(figure)


def draw_folds(values: Mapping[str, Mapping[int, float]], *, score: str = "Dice") -> bytes:
    """Draw the folds' mean scores, one line for each fold across the variants, and their mean.

    Args:
        values: mean score by fold by variant; a fold that a variant lacks leaves a gap.
        score: name of the score.

    Returns:
        A PNG file.
    """
    figure, axes = _figure(width=3.2 + 1.25 * len(values), height=4.4)
    names = list(values)
    positions = range(len(names))
    folds = sorted({fold for each in values.values() for fold in each})
    for fold in folds:
        line = [values[name].get(fold, np.nan) for name in names]
        axes.plot(positions, line, marker="o", markersize=4, linewidth=1, alpha=0.75, label=f"fold {fold}")
    means = [np.mean(list(values[name].values())) if values[name] else np.nan for name in names]
    axes.plot(positions, means, color="black", marker="D", markersize=6, linewidth=2.4, label="mean")
    axes.set_xticks(positions, names)
    axes.set_xlim(-0.3, len(names) - 0.7)
    axes.set(ylabel=f"mean {score} of a fold", title="The same folds under each variant")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    return _png(figure)


def draw_differences(comparisons: Sequence[Mapping[str, Any]], *, score: str = "Dice") -> bytes:
    """Draw each variant's difference from the baseline with its intervals and the differences of the folds.

    Args:
        comparisons: as ``summarise_results`` gives them.
        score: name of the score.

    Returns:
        A PNG file.
    """
    figure, axes = _figure(width=7.4, height=1.7 + 0.62 * len(comparisons))
    for row, each in enumerate(comparisons):
        colour = _COLOURS[(row + 1) % len(_COLOURS)]
        folds = list(each["fold_differences"].values())
        axes.plot(folds, np.full(len(folds), row - 0.24), "|", color=colour, markersize=8, alpha=0.9)
        for interval, offset, width, alpha in (
            (each["bootstrap_interval_by_fold"], 0.16, 4.5, 0.35),
            ((each["nadeau_bengio_t"] or {}).get("interval"), 0.0, 2.2, 1.0),
        ):
            if interval is not None:
                axes.plot(
                    interval, [row + offset] * 2, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt"
                )
        axes.plot(each["mean_difference"], row, "D", color=colour, markeredgecolor="black", markersize=7, zorder=4)
    axes.axvline(0, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(comparisons)), [each["variant"] for each in comparisons])
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -1.0), min(high, 1.0))  # no score can differ by more, though an interval may reach further
    name = comparisons[0]["baseline"]
    axes.set(xlabel=f"{score} minus that of {name} (right of 0: higher)", title=f"Difference from {name}")
    axes.grid(axis="x", alpha=0.3)
    _legend_of_differences(axes)
    return _png(figure)


def draw_learning_curves(histories: Mapping[tuple[str, int], History], *, metric: str = "val_dice") -> bytes:
    """Draw the training loss and a validation metric over the epochs: mean of the folds, and the range they span.

    The mean is drawn solid as far as every fold went, dotted beyond.

    Args:
        histories: the epochs of each training by variant and fold.
        metric: name of the validation metric.

    Returns:
        A PNG file.
    """
    figure, (left, right) = _figure(width=10.5, height=4.3, columns=2)
    variants = list(dict.fromkeys(variant for variant, _ in histories))
    for index, variant in enumerate(variants):
        rows = [history for (name, _), history in histories.items() if name == variant]
        for axes, key in ((left, "train_loss"), (right, metric)):
            _band(axes, rows, key, variant, _COLOURS[index % len(_COLOURS)])
    left.set(title="Training loss", xlabel="epoch", ylabel="loss")
    right.set(title="Validation on the dev part", xlabel="epoch", ylabel=metric)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small", frameon=False)
    return _png(figure)


def _band(axes: Any, histories: Sequence[History], key: str, label: str, colour: str) -> None:
    found: dict[int, list[float]] = {}
    for history in histories:
        for row in history:
            if key in row:
                found.setdefault(int(row["epoch"]), []).append(row[key])
    epochs = np.array(sorted(found))
    if not len(epochs):
        return
    means = np.array([np.mean(found[epoch]) for epoch in epochs])
    is_full = np.array([len(found[epoch]) == len(histories) for epoch in epochs])
    axes.fill_between(
        epochs, [min(found[e]) for e in epochs], [max(found[e]) for e in epochs], color=colour, alpha=0.15, linewidth=0
    )
    marker = "." if len(epochs) < 60 else ""
    axes.plot(epochs[is_full], means[is_full], color=colour, marker=marker, label=label)
    if not is_full.all():
        axes.plot(epochs, means, color=colour, linestyle=":", linewidth=1)


def _legend_of_differences(axes: Any) -> None:
    lines = require("matplotlib.lines", "train")
    handles = [
        lines.Line2D([], [], color="grey", linewidth=2.2, label="95 % interval, corrected for the overlap of folds"),
        lines.Line2D([], [], color="grey", linewidth=4.5, alpha=0.4, label="95 % bootstrap interval, drawing folds"),
        lines.Line2D([], [], color="grey", linestyle="", marker="|", markersize=8, label="single folds"),
    ]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="x-small", frameon=False)


def _figure(*, width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    figure = require("matplotlib.figure", "train").Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
