"""The drawings of a report: histograms as inline SVG, small pictures as data."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Histogram", "draw_histogram", "histogram_of", "png_uri"]

_MOST_BINS = 24
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 42
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Histogram:
    """How many values fall into each of several intervals of the same width, the first of which begins at 0."""

    width: float
    """Of an interval."""
    counts: tuple[int, ...]


def histogram_of(values: Sequence[float]) -> Histogram:
    """Count values in intervals with readable bounds.

    Args:
        values: not negative; at least one.

    Returns:
        At most 24 intervals, the last of which holds its upper bound too.
    """
    width = _readable((max(values) or 1.0) / (_MOST_BINS - 2))
    counts = [0] * max(1, math.ceil(max(values) / width - 1e-9))
    for value in values:
        counts[min(math.floor(value / width), len(counts) - 1)] += 1
    return Histogram(width, tuple(counts))


def draw_histogram(histogram: Histogram, *, title: str, axis: str, colour: tuple[int, int, int]) -> str:
    """Draw a histogram.

    Args:
        histogram: of ``histogram_of``.
        title: what it shows, for those who cannot see it; plain text.
        axis: what the values are, below the axis; plain text.
        colour: RGB of the bars.

    Returns:
        An ``<svg>`` element that needs nothing from elsewhere; texts are escaped.
    """
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    highest = max(histogram.counts)
    step = max(1, math.ceil(_readable(highest / 4)))
    top = step * math.ceil(highest / step)
    bar = plot_width / len(histogram.counts)
    floor = _TOP + plot_height
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_escaped(title)}" font-size="11" fill="#444">'
    ]
    for count in range(0, top + 1, step):
        y = floor - plot_height * count / top
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{count}</text>')
    for index, count in enumerate(histogram.counts):
        height = plot_height * count / top
        low, high = index * histogram.width, (index + 1) * histogram.width
        parts.append(
            f'<rect x="{_LEFT + index * bar + 0.5:.1f}" y="{floor - height:.1f}" width="{max(bar - 1, 1):.1f}" '
            f'height="{height:.1f}" fill="rgb{tuple(colour)}" stroke="#555" stroke-width=".4">'
            f"<title>{_number(low)} to {_number(high)}: {count}</title></rect>"
        )
    every = math.ceil(len(histogram.counts) / 8)
    for index in range(0, len(histogram.counts) + 1, every):
        x = _LEFT + index * bar
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}" stroke="#777"/>')
        label = _number(index * histogram.width)
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" stroke="#777"/>')
    middle = _LEFT + plot_width / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{_escaped(axis)}</text></svg>')
    return "".join(parts)


def png_uri(content: bytes) -> str:
    """Return a PNG picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _readable(width: float) -> float:
    """Return the next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in _STEPS if step * power >= width * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
