"""Numbers beside points, placed so that they cover neither each other nor a point."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbh_dist.report import style

_RADII = (13.0, 20.0, 28.0, 38.0, 50.0)
"""Points from the marked point to the middle of its label, tried in turn."""
_TURNS = (0, 45, -45, 90, -90, 22, -22, 67, -67, 135, -135, 180)
"""Degrees from the preferred direction, tried in turn."""
_MARKER = 6.0
"""Half the size of a marker in points."""


def place_labels(
    figure: Figure, axes: Axes, points: Mapping[int, tuple[float, float]], numbers: Sequence[int], toward: float
) -> list[int]:
    """Writes `#number` beside its point, the first of `numbers` first; returns those for which there was room.

    All of `points` and the lines of the axes are kept clear. Labels lie in the direction `toward` (degrees) if there
    is room, and get a thin line to their point if they are further away.
    """
    figure.draw_without_rendering()
    to_points = 72.0 / figure.dpi
    where = {n: axes.transData.transform(points[n]) * to_points for n in points}
    frame = np.array(axes.get_window_extent().extents) * to_points
    obstacles = [np.concatenate([at - _MARKER, at + _MARKER]) for at in where.values()]
    obstacles += [box * to_points for box in _line_boxes(axes)]
    placed = []
    for number in numbers:
        text = f"#{number}"
        half = np.array([0.32 * style.SMALL_FONT * len(text) + 1, 0.55 * style.SMALL_FONT])
        for offset, box in _candidates(where[number], half, toward):
            inside = np.all(box[:2] >= frame[:2]) and np.all(box[2:] <= frame[2:])
            if inside and not any(_overlap(box, other) for other in obstacles):
                _write(axes, text, points[number], offset)
                obstacles.append(box)
                placed.append(number)
                break
    return placed


def _candidates(
    at: NDArray[np.float64], half: NDArray[np.float64], toward: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Offsets of the label's middle and the boxes (left, bottom, right, top) they give, all in points."""
    for radius in _RADII:
        for angle in np.deg2rad(toward + np.array(_TURNS)):
            direction = np.array([np.cos(angle), np.sin(angle)])
            offset = direction * (radius + (half[0] - half[1]) * abs(direction[0]))
            yield offset, np.concatenate([at + offset - half, at + offset + half])


def _line_boxes(axes: Axes) -> Iterator[NDArray[np.float64]]:
    """Boxes in pixels around each segment of the lines, which are steps and so have thin boxes."""
    for line in axes.lines:
        corners = axes.transData.transform(line.get_path().interpolated(1).vertices)
        for one, other in pairwise(corners):
            yield np.concatenate([np.minimum(one, other) - 1, np.maximum(one, other) + 1])


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(np.all(one[:2] < other[2:]) and np.all(other[:2] < one[2:]))


def _write(axes: Axes, text: str, point: tuple[float, float], offset: NDArray[np.float64]) -> None:
    is_far = float(np.linalg.norm(offset)) > 1.6 * _RADII[0]
    axes.annotate(
        text,
        point,
        xytext=(float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=style.SMALL_FONT,
        color=style.INK,
        zorder=6,
        arrowprops={"arrowstyle": "-", "color": style.GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        if is_far
        else None,
    )
