"""Class probabilities while an image is turned, or mixed with another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from bbh_dist.report import style
from bbh_dist.report.methods import method_looks, method_name

Series = Mapping[str, Any]
"""`kind` (rotation or mix), `labels` of its images, `steps`, `mean` and `stddev` (steps x C), `entropy` [nats]."""

_VISIBLE, _MOST_OTHERS = 0.2, 4
"""Beside those of the images, a class is drawn if its probability reaches this anywhere, but no more than so many."""
_NOTE = "bands: one standard deviation over weight samples; grey: the likeliest other classes, up to four"
_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (1, 1)))
_MARKERS = "sD^v<>pXhd"


def draw_shifts(methods: Mapping[str, Sequence[Series]]) -> dict[str, Figure]:
    """Figures by name: `shifts` for one method, for several `rotation_3`, `rotation_3_compared`, `mix_8_3` and so on.

    Args:
        methods: method to the series of its run, of the same images for all; methods without any are left out.
    """
    methods = {method: series for method, series in methods.items() if series}
    if len(methods) == 1:
        [(method, all_series)] = methods.items()
        panels = {series_title(series): series for series in all_series}
        return {"shifts": draw_series(panels, dict.fromkeys(panels, method))}
    figures = {}
    for alike in zip(*methods.values(), strict=True):
        of_method = dict(zip(methods, alike, strict=True))
        name = "_".join(map(str, [alike[0]["kind"], *alike[0]["labels"]]))
        panels = {method_name(method): series for method, series in of_method.items()}
        figures[name] = draw_series(panels, {method_name(method): method for method in of_method})
        figures[f"{name}_compared"] = draw_comparison(of_method)
    return figures


def draw_series(panels: Mapping[str, Series], methods: Mapping[str, str]) -> Figure:
    """A panel for each series, titled by its key: the probability of each class that matters, with its spread.

    Bands are one standard deviation over weight samples to both sides. The classes of the images have the method's
    colour, others are grey; each line has its class written at its peak.

    Args:
        panels: title to series, at least one.
        methods: title to method.
    """
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(0.6 + (2.8 if columns == 3 else 4.0) * columns, 0.6 + 2.9 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    looks = method_looks(dict.fromkeys(methods.values()))
    for index, (axes, (title, series)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        style.tidy(axes, _x_label(series), "class probability" if index % columns == 0 else "")
        axes.set_title(style.plain(title), fontsize=style.FONT, color=style.INK)
        _draw_classes(axes, series, looks[methods[title]]["color"])
        _x_ticks(axes, series)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(_NOTE, fontsize=style.SMALL_FONT, color=style.INK)
    return figure


def draw_comparison(methods: Mapping[str, Series]) -> Figure:
    """For one series: the probability of the first image's class and the entropy, a line for each method."""
    figure = style.new_figure(8.6, 4.4)
    left, right = figure.subplots(1, 2)
    series = next(iter(methods.values()))
    style.tidy(left, _x_label(series), f"probability of class {series['labels'][0]}")
    style.tidy(right, _x_label(series), "predictive entropy [nats]")
    for method, looks in method_looks(methods).items():
        given = methods[method]
        size: style.Looks = {"linewidth": 1.6, "markersize": 4.5, "markevery": max(1, len(given["steps"]) // 12)}
        for axes, values in ((left, _array(given["mean"])[:, given["labels"][0]]), (right, _array(given["entropy"]))):
            axes.plot(given["steps"], values, label=method_name(method), clip_on=False, **size, **looks)
    left.set_ylim(0, 1)
    right.set_ylim(bottom=0)
    for axes in (left, right):
        _x_ticks(axes, series)
    style.legend_above(figure, [left], columns=4)
    return figure


def series_title(series: Series) -> str:
    """What a series shows: `a 3, rotated` or `from an 8 to a 3`."""
    first, *others = (f"an {label}" if label == 8 else f"a {label}" for label in series["labels"])
    return f"from {first} to {others[0]}" if others else f"{first}, rotated"


def _draw_classes(axes: Axes, series: Series, color: str) -> None:
    mean, stddev = _array(series["mean"]), _array(series["stddev"])
    for label in [*series["labels"], *_others(mean, series["labels"])]:
        own = label in series["labels"]
        looks: style.Looks = {"linestyle": "-" if label == series["labels"][0] else "--", "marker": "o", "color": color}
        if not own:
            looks = {"linestyle": _DASHES[label % 4], "marker": _MARKERS[label % 10], "color": style.GREY}
        low, high = np.clip(mean[:, label] - stddev[:, label], 0, 1), np.clip(mean[:, label] + stddev[:, label], 0, 1)
        axes.fill_between(series["steps"], low, high, color=looks["color"], alpha=0.18, linewidth=0)
        axes.plot(series["steps"], mean[:, label], linewidth=1.6, markersize=3.5, clip_on=False, **looks)
        _name_line(axes, series["steps"], mean[:, label], label, looks["color"] if own else style.INK)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


def _others(mean: NDArray[np.float64], own: Sequence[int]) -> list[int]:
    """The classes that are likely somewhere, apart from those of the images, the likeliest first."""
    peaks = mean.max(axis=0)
    likely = [label for label in np.argsort(-peaks, kind="stable").tolist() if peaks[label] >= _VISIBLE]
    return [label for label in likely if label not in own][:_MOST_OTHERS]


def _name_line(axes: Axes, steps: Sequence[float], values: NDArray[np.float64], label: int, color: str) -> None:
    peak = int(np.argmax(values))
    looks: style.Looks = {"fontsize": style.FONT, "fontweight": "bold", "color": color, "ha": "center"}
    axes.annotate(str(label), (steps[peak], values[peak]), (0, 4), textcoords="offset points", zorder=5, **looks)


def _x_label(series: Series) -> str:
    if series["kind"] == "rotation":
        return "angle [degrees], + counter-clockwise"
    return f"share of the {series['labels'][1]}"


def _x_ticks(axes: Axes, series: Series) -> None:
    low, high = series["steps"][0], series["steps"][-1]
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MultipleLocator((high - low) / 4))


def _array(values: object) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)
