"""A study over time: what each trial reached, and the best so far."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bbh_dist.config import Objective
from bbh_dist.report import style
from bbh_dist.report.trials import TrialRow, has_values, value_of

_WITHOUT_VALUE: tuple[tuple[str, style.Looks], ...] = (
    ("PRUNED", {"marker": "v", "color": style.ORANGE, "label": "pruned (no final value)"}),
    ("FAIL", {"marker": "x", "color": style.INK, "label": "failed"}),
    ("COMPLETE", {"marker": "*", "color": style.PURPLE, "label": "complete, value not finite"}),
)


def draw_history(trials: Sequence[TrialRow], objectives: Sequence[Objective], chosen: Collection[int]) -> Figure | None:
    """One panel per objective against the trial number; None for fewer than two trials or no value at all."""
    shown = [objective for objective in objectives if any(has_values(trial, [objective]) for trial in trials)]
    if len(trials) < 2 or not shown:
        return None
    figure = style.new_figure(height=style.SIZE[1] if len(shown) == 1 else 1.2 + 2.3 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, objective in zip(panels, shown, strict=True):
        style.tidy(axes, "trial number" if axes is panels[-1] else "")
        better = "lower" if objective.direction == "minimize" else "higher"
        title = f"{style.metric_label(objective.metric)}, {better} is better"
        # Horizontal, because panels are too low for the long names at their side.
        axes.set_title(title, loc="left", fontsize=style.FONT, color=style.INK)
        _draw_values(axes, trials, objective, chosen)
        _draw_valueless(axes, trials, objective)
    numbers = [trial.number for trial in trials]
    margin = 0.5 + 0.02 * (max(numbers) - min(numbers))
    panels[-1].set_xlim(min(numbers) - margin, max(numbers) + margin)
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    style.legend_above(figure, panels)
    return figure


def _draw_values(axes: Axes, trials: Sequence[TrialRow], objective: Objective, chosen: Collection[int]) -> None:
    usable = sorted((t for t in trials if has_values(t, [objective])), key=lambda t: t.number)
    x = np.array([trial.number for trial in usable])
    y = np.array([value_of(trial, objective) for trial in usable])
    best = np.minimum.accumulate(y) if objective.direction == "minimize" else np.maximum.accumulate(y)
    style.scale(axes, "y", y.tolist())
    x_end, y_end = np.append(x, max(trial.number for trial in trials)), np.append(best, best[-1])
    axes.step(x_end, y_end, where="post", color=style.BLUE, linewidth=1.6, label="best so far")
    axes.scatter(x, y, s=30, color=style.GREY, edgecolors="white", linewidths=0.5, zorder=3, label="complete trial")
    ringed = np.array([trial.number in chosen for trial in usable])
    if ringed.any():
        axes.scatter(x[ringed], y[ringed], s=120, zorder=4, **style.RING)
    _leave_strip(axes, y)


def _leave_strip(axes: Axes, y: NDArray[np.float64]) -> None:
    """Limits with an eighth of the height free below the values, for the trials without one."""
    if axes.get_yscale() == "log":
        low, span = np.log10(y.min()), np.log10(y.max()) - np.log10(y.min())
        axes.set_ylim(10 ** (low - 0.2 * span), 10 ** (low + 1.08 * span))
        return
    slack = 0.0 if y.max() > y.min() else max(0.1 * abs(y.min()), 1e-3)
    low, high = y.min() - slack, y.max() + slack
    axes.set_ylim(low - 0.2 * (high - low), high + 0.08 * (high - low))


def _draw_valueless(axes: Axes, trials: Sequence[TrialRow], objective: Objective) -> None:
    for state, looks in _WITHOUT_VALUE:
        at = [trial.number for trial in trials if trial.state == state and not has_values(trial, [objective])]
        if at:
            height = np.full(len(at), 0.055)
            transform = axes.get_xaxis_transform()
            axes.scatter(at, height, s=34, transform=transform, clip_on=False, zorder=3, linewidths=1.4, **looks)
