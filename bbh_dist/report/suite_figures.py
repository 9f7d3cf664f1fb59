"""The figures of a suite: one colour, marker and dash pattern per method in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bbh_dist.config import TRAIN_SECONDS
from bbh_dist.report import style
from bbh_dist.report.methods import method_looks, method_name
from bbh_dist.report.run import calibration_error
from bbh_dist.report.table import column_label
from bbh_dist.suite_results import SuiteResults, SuiteRow, direction

Array = NDArray[np.float64]

_QUALITIES = ("test/error", "test/rmse", "test/nll")
_COLUMNS = 4
_MARKER_STEP, _MARKER_SHIFT = 0.2, 0.024
"""Between markers, and between those of one line and the next, in lengths of the axes."""


def draw_quality(results: SuiteResults) -> Figure | None:
    """Error and NLL against seconds of training, a mark per row with its standard deviations over seeds."""
    shown = [metric for metric in _QUALITIES if metric in results.metrics]
    rows = [row for row in results.rows if row.summary(TRAIN_SECONDS) is not None]
    if not shown or len(rows) < 2:
        return None
    chosen = method_looks(row.name for row in results.rows)
    figure = style.new_figure(4.6 * len(shown) if len(shown) > 1 else style.SIZE[0], 4.4)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, metric in zip(panels, shown, strict=True):
        better = "lower" if direction(metric) != "maximize" else "higher"
        style.tidy(axes, "training [s]", f"{column_label(metric).rstrip(' ↓↑')}, test data ({better} is better)")
        for row in rows:
            _draw_mark(axes, row, metric, chosen[row.name])
        _scale(axes, "x", rows, TRAIN_SECONDS)
        _scale(axes, "y", rows, metric)
        axes.margins(0.1)
    style.legend_above(figure, panels, columns=4)
    return figure


def _draw_mark(axes: Axes, row: SuiteRow, metric: str, looks: style.Looks) -> None:
    seconds, quality = row.summary(TRAIN_SECONDS), row.summary(metric)
    if seconds is None or quality is None:
        return
    bars: style.Looks = {"ecolor": looks["color"], "elinewidth": 1.2, "capsize": 3}
    axes.errorbar(
        seconds.mean,
        quality.mean,
        xerr=seconds.std,
        yerr=quality.std,
        markersize=12 if looks["marker"] == "*" else 9,
        label=method_name(row.name),
        **bars,
        **(looks | {"linestyle": "none"}),
    )


def _scale(axes: Axes, which: Any, rows: Sequence[SuiteRow], metric: str) -> None:
    means = [summary.mean for row in rows if (summary := row.summary(metric)) is not None]
    if means:
        style.scale(axes, which, means)


def draw_entropies(results: SuiteResults) -> Figure | None:
    """CDFs of the predictive entropy, of all seeds together: in distribution, and beside it on outliers."""
    panels = [
        (name, title)
        for name, title in (("entropy_cdf", "in distribution: high is good"), ("outlier_entropy_cdf", "outliers: low"))
        if any(_mean_curve(row, name) is not None for row in results.rows)
    ]
    if not panels:
        return None
    chosen = method_looks(row.name for row in results.rows)
    figure = style.new_figure(4.6 * len(panels) if len(panels) > 1 else style.SIZE[0], 4.4)
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, title) in zip(axes_of, panels, strict=True):
        style.tidy(axes, "", "share of examples with less entropy" if axes is axes_of[0] else "")
        axes.set_title(title, fontsize=style.FONT, color=style.INK)
        for row in results.rows:
            if (curve := _mean_curve(row, name)) is not None:
                _draw_curve(axes, curve, row.name, chosen[row.name])
        limit = max(line.get_xdata()[-1] for line in axes.lines)
        axes.set_xlabel(f"predictive entropy [nats]; uniform is {limit:.2f}", fontsize=style.FONT, color=style.INK)
        axes.set_xlim(0, limit)
        axes.set_ylim(0, 1)
    style.legend_above(figure, axes_of, columns=4)
    return figure


def _draw_curve(axes: Axes, curve: tuple[Array, Array], name: str, looks: style.Looks) -> None:
    """A line with a few markers, at other places for each line."""
    first, every = len(axes.lines) * _MARKER_SHIFT, _MARKER_STEP
    size: style.Looks = {"linewidth": 1.8, "markersize": 6, "markevery": (first, every)}
    axes.plot(*curve, label=method_name(name), clip_on=False, **size, **looks)


def _mean_curve(row: SuiteRow, name: str) -> tuple[Array, Array] | None:
    """Grid and mean over seeds of a CDF, which is the CDF of all seeds' examples."""
    found = [curves for curves in row.detail("curves") if curves.get(name) and curves.get("entropy_grid")]
    if not found:
        return None
    return np.array(found[0]["entropy_grid"]), np.mean([curves[name] for curves in found], axis=0)


def draw_reliability(results: SuiteResults) -> Figure | None:
    """A small reliability diagram per row, of the examples of all seeds together."""
    pooled = {row.name: bins for row in results.rows if (bins := pooled_bins(row.detail("curves"))) is not None}
    if not pooled:
        return None
    chosen, columns = method_looks(row.name for row in results.rows), min(_COLUMNS, len(pooled))
    lines = -(-len(pooled) // columns)
    figure = style.new_figure(2.5 * columns + 0.4, 2.6 * lines + 0.3)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(pooled) :]:
        axes.set_axis_off()
    for axes, (name, (confidence, accuracy, count)) in zip(panels.flat, pooled.items(), strict=False):
        style.tidy(axes)
        _draw_diagram(axes, confidence, accuracy, count, name, chosen[name])
    figure.supxlabel("confidence (probability of the predicted class)", fontsize=style.FONT, color=style.INK)
    figure.supylabel("accuracy in the bin", fontsize=style.FONT, color=style.INK)
    return figure


def _draw_diagram(axes: Axes, confidence: Array, accuracy: Array, count: Array, name: str, looks: style.Looks) -> None:
    error = calibration_error(confidence, accuracy, count)
    axes.set_title(f"{method_name(name)}: ECE {error:.3f}", fontsize=style.FONT, color=style.INK)
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1)
    sizes = 12 + 110 * count / count.sum()
    axes.plot(confidence, accuracy, color=looks["color"], linewidth=1, alpha=0.6)
    axes.scatter(confidence, accuracy, s=sizes, color=looks["color"], marker=looks["marker"], zorder=3)
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)


def pooled_bins(runs: Sequence[Mapping[str, Any]]) -> tuple[Array, Array, Array] | None:
    """Confidence, accuracy and examples (bins,) of several runs' bins together; NaN where a bin is empty.

    None where no run has bins with examples.
    """
    found = [run for run in runs if run.get("bin_count") and sum(run["bin_count"]) > 0]
    if not found:
        return None
    count = np.array([run["bin_count"] for run in found], dtype=np.float64)
    sums = [
        np.nansum(np.array([run[name] for run in found], dtype=np.float64) * count, axis=0)
        for name in ("confidence", "accuracy")
    ]
    total = count.sum(axis=0)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.where(total > 0, each / total, np.nan) for each in sums)
    return confidence, accuracy, total
