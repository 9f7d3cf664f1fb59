"""What each method of a suite has learnt of a function of one number, panel by panel on the same axes."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbh_dist.report import style
from bbh_dist.report.methods import method_name
from bbh_dist.report.regression import draw_curve_panel, is_drawable
from bbh_dist.suite_results import SuiteResults

_COLUMNS = 3


def draw_curves(results: SuiteResults) -> Figure | None:
    """A panel per row, of its first seed; None where no task has a curve."""
    found = {row.name: row.detail("curves") for row in results.rows}
    curves = {
        name: runs[0]["curve"] for name, runs in found.items() if runs and is_drawable(runs[0].get("curve") or {})
    }
    if not curves:
        return None
    columns = min(_COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    figure = style.new_figure(3.3 * columns + 0.4, 2.7 * lines + 0.7)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.set_axis_off()
    shown = list(zip(panels.flat, curves.items(), strict=False))
    for axes, (name, curve) in shown:
        _draw(axes, name, curve)
    # All on one scale, the widest that a panel chose, and names only where axes have numbers.
    limits = [axes.get_ylim() for axes, _ in shown]
    panels.flat[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes in panels.flat:
        axes.label_outer()
    style.legend_above(figure, [panels.flat[0]], columns=4)
    return figure


def _draw(axes: Axes, name: str, curve: Mapping[str, Any]) -> None:
    axes.set_autoscaley_on(True)
    draw_curve_panel(axes, curve)
    inside = f", {curve['train_coverage']:.0f} % of data in 2 stddev" if "train_coverage" in curve else ""
    axes.set_title(f"{method_name(name)}{inside}", fontsize=style.FONT, color=style.INK)
