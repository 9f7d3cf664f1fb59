"""Parallel coordinates: every trial a line through its searched values, coloured by the first objective."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bbh_dist.config import Objective
from bbh_dist.report import style
from bbh_dist.report.coordinates import ABSENT, Coordinate, coordinate, is_number
from bbh_dist.report.trials import TrialRow, has_values, rank_best, value_of

_MARKERS = ("o", "s", "^", "D", "P", "X")
_HEADER_LETTERS = 14
_PLOT_HEIGHT = 3.1
_BAR_WIDTH = 0.16


def draw_parallel(
    trials: Sequence[TrialRow], objectives: Sequence[Objective], chosen: Collection[int]
) -> Figure | None:
    """One vertical axis per searched key and one for the first objective, which is the colour bar too.

    None without searched keys, for fewer than two complete trials, or where all reached the same value. The chosen
    trials are thick lines with markers; a line drops below an axis where its trial did not search that key.
    """
    objective = objectives[0]
    ranked = rank_best(trials, [objective])
    by_number = {trial.number: trial for trial in trials if has_values(trial, [objective])}
    shown = [by_number[number] for number in ranked]
    scales = _coordinates(shown, objective)
    if len(scales) < 2 or len({value_of(trial, objective) for trial in shown}) < 2:
        return None
    x = _axis_places(scales)
    kept = [number for number in ranked if number in chosen]
    headers = [*(_header(each.name) for each in scales[:-1]), _objective_header(objective)]
    figure, axes = _frame(x, scales, headers, legend_rows=-(-len(kept) // _legend_columns(x[-1])))
    _draw_lines(axes, x, scales, objective, [trial.number in chosen for trial in shown])
    for at, each, header in zip(x, scales, headers, strict=True):
        _draw_axis(axes, at, each, header, is_objective=each is scales[-1])
    _draw_colour_bar(axes, x[-1], objective)
    _draw_legend(figure, kept, _colours(scales[-1].positions, objective)[[ranked.index(n) for n in kept]], x[-1])
    return figure


def _coordinates(shown: Sequence[TrialRow], objective: Objective) -> list[Coordinate]:
    """Axes of the keys that some trial has, in the order of first appearance, and the objective's."""
    by_number = sorted(shown, key=lambda trial: trial.number)
    keys = dict.fromkeys(key for trial in by_number for key in trial.params)
    found = []
    for key in keys:
        values = [_searched(trial.params.get(key)) if key in trial.params else None for trial in shown]
        if any(value is not None for value in values):
            found.append(coordinate(key, values))
    if not found:
        return []
    return [*found, coordinate(objective.metric, [value_of(trial, objective) for trial in shown])]


def _searched(value: object) -> object:
    """The value; a choice of `null` as text, and nothing for a number that is not finite."""
    if value is None:
        return "null"
    is_bad = isinstance(value, float | np.floating) and not is_number(value)
    return None if is_bad else value


def _width(text: str, size: float = style.SMALL_FONT) -> float:
    """Inches that the longest line of a text takes at `size` points, a little generously."""
    return 0.62 * size / 72 * max(len(line) for line in text.split("\n"))


def _header(name: str) -> str:
    """The dotted key on several short lines, broken at dots, and at underscores where a part is long."""
    lines = [""]
    for part in name.replace(".", ".\0").replace("/", "/\0").split("\0"):
        pieces = [part] if len(part) <= _HEADER_LETTERS else part.replace("_", "_\0").split("\0")
        for piece in pieces:
            if len(lines[-1] + piece) <= _HEADER_LETTERS:
                lines[-1] += piece
            else:
                lines.append(piece)
    return style.plain("\n".join(line for line in lines if line))


def _objective_header(objective: Objective) -> str:
    unit = style.unit_of(objective.metric)
    better = "lower is better" if objective.direction == "minimize" else "higher is better"
    return "\n".join([_header(objective.metric), *([f"[{unit}]"] if unit else []), better])


def _axis_places(scales: Sequence[Coordinate]) -> NDArray[np.float64]:
    """Distances from the first axis in inches: tick labels end before the next axis, headers don't meet."""
    places = [0.0]
    for left, right in pairwise(scales):
        labels = [text for _, text in left.ticks] + (["not searched"] if left.has_absent else [])
        header = (_width(_header(left.name)) + _width(_header(right.name))) / 2 + 0.15
        places.append(places[-1] + max(0.95, header, max(_width(text) for text in labels) + 0.3))
    stretch = max(1.0, (style.SIZE[0] - 1.9) / places[-1])
    return np.array(places) * stretch


def _legend_columns(last: float) -> int:
    """How many entries fit in a row under axes that end `last` inches from the first."""
    return max(1, int((last + 1.5) / 1.35))


def _frame(
    x: NDArray[np.float64], scales: Sequence[Coordinate], headers: Sequence[str], legend_rows: int
) -> tuple[Figure, Axes]:
    """Axes in which x counts inches from the first axis and y is a coordinate's position."""
    floor = ABSENT - 0.06 if any(each.has_absent for each in scales) else -0.06
    left = 0.15 + max(0.25, _width(headers[0]) / 2)
    right = 0.15 + max(0.75, _width(headers[-1]) / 2)
    top = 0.2 + 0.165 * max(header.count("\n") + 1 for header in headers)
    bottom = 0.35 + 0.22 * legend_rows
    middle = _PLOT_HEIGHT * (1.06 - floor)
    width, height = left + float(x[-1]) + right, top + middle + bottom
    figure = style.new_figure(width, height, constrained=False)
    note = "one line per complete trial, darker is better"
    figure.text(0.15 / width, 0.1 / height, note, fontsize=style.SMALL_FONT, color=style.INK)
    axes = figure.add_axes((0, bottom / height, 1, middle / height))
    axes.set_axis_off()
    axes.set_xlim(-left, width - left)
    axes.set_ylim(floor, 1.06)
    return figure, axes


def _colours(positions: Sequence[float] | NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """RGBA of shape (len(positions), 4); the darkest is best, and the palest is still visible on white."""
    share = np.asarray(positions, dtype=np.float64)
    worse = share if objective.direction == "minimize" else 1 - share
    return np.asarray(matplotlib.colormaps["viridis"](0.93 * worse))


def _draw_lines(
    axes: Axes, x: NDArray[np.float64], scales: Sequence[Coordinate], objective: Objective, chosen: Sequence[bool]
) -> None:
    y = np.array([each.positions for each in scales]).T
    colours = _colours(y[:, -1], objective)
    ease = np.linspace(0, 1, 24)
    smooth = ease**2 * (3 - 2 * ease)
    line_x = (x[:-1, None] + np.diff(x)[:, None] * ease).ravel()
    thin = 1.3 if len(y) <= 60 else 0.8
    marked = 0
    for row in range(len(y)):
        line_y = (y[row, :-1, None] + np.diff(y[row])[:, None] * smooth).ravel()
        looks: style.Looks = {"color": colours[row], "alpha": 0.85, "zorder": 2 - row / len(y), "linewidth": thin}
        if chosen[row]:
            looks |= {"alpha": 1.0, "zorder": 2.5, "linewidth": 2.8}
            marker = _MARKERS[min(marked, len(_MARKERS) - 1)]
            marked += 1
            axes.plot(x, y[row], marker, color=colours[row], markeredgecolor="white", markersize=8, zorder=5)
        axes.plot(line_x, line_y, solid_capstyle="round", **looks)


def _draw_axis(axes: Axes, at: float, each: Coordinate, header: str, *, is_objective: bool) -> None:
    font: style.Looks = {"fontsize": style.SMALL_FONT, "color": style.INK}
    weight = "bold" if is_objective else "normal"
    axes.text(at, 1.075, header, fontweight=weight, ha="center", va="bottom", **font)
    axes.plot([at, at], [0, 1], color=style.INK, linewidth=1.1, zorder=3)
    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    shift = _BAR_WIDTH + 0.06 if is_objective else 0.08
    for y, text in [*each.ticks, *([(ABSENT, "not searched")] if each.has_absent else [])]:
        slant = "italic" if y == ABSENT else "normal"
        axes.plot([at - 0.035, at + 0.035], [y, y], color=style.INK, linewidth=1.1, zorder=3)
        axes.text(at + shift, y, text, fontstyle=slant, va="center", bbox=background, zorder=4, **font)


def _draw_colour_bar(axes: Axes, at: float, objective: Objective) -> None:
    gradient = _colours(np.linspace(0, 1, 256), objective)[:, None, :]
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(gradient, extent=(at, at + _BAR_WIDTH, 0, 1), aspect="auto", origin="lower", zorder=2.8)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _draw_legend(figure: Figure, kept: Sequence[int], colours: NDArray[np.float64], last: float) -> None:
    """Entries for the chosen trials, best first; those beyond the markers share the last one."""
    handles = []
    for row, number in enumerate(kept):
        marker = _MARKERS[min(row, len(_MARKERS) - 1)]
        looks: style.Looks = {"marker": marker, "markersize": 8, "markeredgecolor": "white", "linewidth": 2.8}
        handles.append(Line2D([], [], color=tuple(colours[row]), label=f"chosen #{number}", **looks))
    if handles:
        place = (0.09 / figure.get_figwidth(), 0.25 / figure.get_figheight())
        looks = {"loc": "lower left", "bbox_to_anchor": place, "fontsize": style.SMALL_FONT, "frameon": False}
        figure.legend(handles=handles, ncols=_legend_columns(last), borderaxespad=0, columnspacing=1.5, **looks)
