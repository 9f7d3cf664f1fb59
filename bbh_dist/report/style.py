"""How every figure looks: size, fonts, colours that colour-blind readers tell apart, numbers, names with units.

Figures are `matplotlib.figure.Figure` objects without pyplot and without rcParams, so they can be drawn in any thread
and without a display. Numbers are plain text, because mathtext keeps one parser for all threads.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bbh_dist.config import MEASURES, Objective

SIZE = (7.0, 4.5)
"""Width and height in inches."""
DPI = 150
FONT = 10.0
"""Points: axis names and legends."""
SMALL_FONT = 9.0
"""Points: tick labels and annotations."""

INK = "#222222"
GREY = "#8C8C8C"
PALE = "#D9D9D9"
BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE)
"""Okabe and Ito 2008, in the order of use."""
HATCHES = ("", "///", "...", "xxx", "\\\\\\")
"""What tells bars apart without colour."""

Looks = dict[str, Any]
"""Keyword arguments of a drawing call."""

RING: Looks = {
    "facecolors": "none",
    "edgecolors": VERMILLION,
    "linewidths": 1.8,
    "label": "chosen for the final runs",
}
"""How chosen trials are marked in a scatter plot."""

_LOG_DECADES = 1.5
_UNITS = {"percent": "%", "nats": "nats", "nats per example": "nats per example"}
_TRAINING_UNITS = {"loss": "nats per example", "kl": "nats"}


def new_figure(width: float = SIZE[0], height: float = SIZE[1], *, constrained: bool = True) -> Figure:
    """An empty figure of `width` x `height` inches; `constrained` lets the layout make room for all text."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained" if constrained else None)


def save_png(figure: Figure, path: Path) -> Path:
    """`path`, after the figure was written there as PNG; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, facecolor="white")
    return path


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Names both axes, sets all sizes, and leaves only the left and bottom frame with a faint grid."""
    axes.set_xlabel(xlabel, fontsize=FONT, color=INK)
    axes.set_ylabel(ylabel, fontsize=FONT, color=INK)
    axes.tick_params(labelsize=SMALL_FONT, color=GREY, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_above(figure: Figure, panels: Iterable[Axes], columns: int = 3) -> None:
    """One legend for all panels, over the plot, where it hides no data."""
    found = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    looks: Looks = {"loc": "outside upper center", "fontsize": SMALL_FONT + 0.5, "frameon": False}
    if found:
        figure.legend(list(found.values()), list(found), ncols=min(columns, len(found)), **looks)


def unit_of(metric: str) -> str:
    """The unit of a metric such as `val/nll`, empty for a pure number: the end of its meaning in MEASURES."""
    name = metric.rsplit("/", 1)[-1]
    if name in MEASURES:
        return _UNITS.get(MEASURES[name].meaning.rsplit(", ", 1)[-1], "")
    return _TRAINING_UNITS.get(name, "")


def metric_label(metric: str) -> str:
    """The metric's name and, where it has one, its unit: `val/nll [nats per example]`."""
    unit = unit_of(metric)
    return plain(f"{metric} [{unit}]" if unit else metric)


def objective_label(objective: Objective) -> str:
    """The metric with its unit and an arrow that points to better values, turned along with a vertical axis."""
    label = metric_label(objective.metric)
    return f"← better    {label}" if objective.direction == "minimize" else f"{label}    better →"


def plain(text: str) -> str:
    """The text with dollar signs escaped, so that no name is taken for a formula."""
    return text.replace("$", r"\$")


def number(value: float) -> str:
    """A short text: 0.001, 1e-5, 25, 3e6."""
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].replace("+", ""), f"{value:.4g}")


def is_wide(values: Sequence[float]) -> bool:
    """Whether all values are positive and span more than 1.5 decades, so that a log axis shows them better."""
    low, high = min(values), max(values)
    # Beyond these bounds the margins of a log axis leave the range of float64.
    return low > 1e-100 and high < 1e100 and bool(np.log10(high) - np.log10(low) > _LOG_DECADES)


def nice_ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Four to seven or so round numbers from `low` to `high`; decades, or 1-3 and 1-2-5 steps, where `log`."""
    if not log:
        ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in ticks if low <= tick <= high]
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    step = max(1, len(exponents) // 6)
    inside: list[float] = []
    for mantissas in ((1,), (1, 3), (1, 2, 5)):
        every = exponents[::step] if mantissas == (1,) else exponents
        inside = [float(f"{m}e{k}") for k in every for m in mantissas if low <= float(f"{m}e{k}") <= high]
        if len(inside) >= 4:
            break
    return inside


def scale(axes: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Makes the axis logarithmic where the finite values span more than 1.5 decades; its ticks are plain numbers."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if is_wide(values):
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(FixedLocator(nice_ticks(min(values) / 1.5, max(values) * 1.5, log=True)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
