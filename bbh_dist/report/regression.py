"""The figure of a regression of one number: what was learnt, and how sure it is where there are no data."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbh_dist.report import style

Array = NDArray[np.float64]

_ON_GRID = ("x", "truth", "mean", "stddev", "predictive_stddev")
_BANDS = ((3, "#E3EFF6"), (2, "#BFDDEE"), (1, "#8FC3DF"))
"""Standard deviations and their blue, from the outside inwards."""


def draw_curve(curve: object) -> Figure | None:
    """The figure of `draw_curve_panel`; None where lists of the grid are absent, of different lengths or not finite.

    Args:
        curve: JSON-like, as `evaluation.curve_details` gives it.
    """
    if not isinstance(curve, Mapping) or not is_drawable(curve):
        return None
    figure = style.new_figure()
    axes = figure.subplots()
    draw_curve_panel(axes, curve)
    axes.set_title(_title(curve), fontsize=style.FONT, color=style.INK)
    style.legend_above(figure, [axes])
    return figure


def draw_curve_panel(axes: Axes, curve: Mapping[str, object]) -> None:
    """The mean with 1, 2 and 3 standard deviations of the predictive, noise included; points, and the truth dashed.

    Dotted lines are one standard deviation over weight samples alone.
    """
    x, truth, mean, stddev, predictive = (_array(curve[name]) for name in _ON_GRID)
    style.tidy(axes, "x", "y")
    for count, colour in _BANDS:
        band = (mean - count * predictive, mean + count * predictive)
        axes.fill_between(x, *band, color=colour, linewidth=0, label=f"{count} stddev, with noise")
    for sign, name in ((1, "1 stddev over weights"), (-1, None)):
        axes.plot(x, mean + sign * stddev, color=style.BLUE, linestyle=":", linewidth=1.2, label=name)
    axes.plot(x, mean, color=style.BLUE, linewidth=2.2, label="mean")
    axes.plot(x, truth, color=style.INK, linestyle="--", linewidth=1.4, label="true function")
    points = (_array(curve.get("train_x")), _array(curve.get("train_y")))
    axes.scatter(*points, s=28, color=style.VERMILLION, edgecolors="white", linewidths=0.6, zorder=4, label="data")
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylim(*_limits(truth, points[1], mean, predictive))


def _limits(truth: Array, points: Array, mean: Array, predictive: Array) -> tuple[float, float]:
    """Room for all that is drawn, but no more than thrice the range of truth and points, so that these stay legible."""
    wanted = np.concatenate([truth, points])
    low, high = float(wanted.min()), float(wanted.max())
    outermost = _BANDS[0][0] * predictive
    span = (high - low) or 1.0
    return max(low - span, float(min(low, (mean - outermost).min()))), min(
        high + span, float(max(high, (mean + outermost).max()))
    )


def _title(curve: Mapping[str, object]) -> str:
    parts = [
        f"{name} {style.number(float(value))}{unit}"
        for key, name, unit in (
            ("rmse", "RMSE from the truth", ""),
            ("train_coverage", "data within 2 standard deviations", " %"),
        )
        if isinstance(value := curve.get(key), int | float)
    ]
    return "; ".join(parts)


def is_drawable(curve: Mapping[str, object]) -> bool:
    """Whether the lists of the grid are there, equally long and finite."""
    lists = [_array(curve.get(name)) for name in _ON_GRID]
    return len(lists[0]) > 1 and all(values.shape == lists[0].shape and np.isfinite(values).all() for values in lists)


def _array(values: object) -> Array:
    return np.array(values if isinstance(values, list | tuple | np.ndarray) else [], dtype=np.float64)
