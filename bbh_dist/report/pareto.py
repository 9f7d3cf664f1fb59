"""The Pareto front of a study's first two objectives."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbh_dist.config import Objective
from bbh_dist.report import style
from bbh_dist.report.labels import place_labels
from bbh_dist.report.trials import TrialRow, has_values, pareto_front, value_of


def draw_pareto(trials: Sequence[TrialRow], objectives: Sequence[Objective], chosen: Collection[int]) -> Figure | None:
    """Every complete trial in the plane of the first two objectives; None where there is no trade-off to see.

    Dominated trials are grey, the front is a step line with numbered trials, the chosen ones are ringed. Trials
    that only a third objective keeps from being dominated are numbered triangles.
    """
    usable = [trial for trial in trials if has_values(trial, objectives)]
    if len(objectives) < 2:
        return None
    x_objective, y_objective = objectives[:2]
    points = {trial.number: (value_of(trial, x_objective), value_of(trial, y_objective)) for trial in usable}
    if len(set(points.values())) < 2:
        return None
    figure = style.new_figure()
    axes = figure.subplots()
    style.tidy(axes, style.objective_label(x_objective), style.objective_label(y_objective))
    style.scale(axes, "x", [x for x, _ in points.values()])
    style.scale(axes, "y", [y for _, y in points.values()])
    axes.margins(0.08)
    plane_front = pareto_front(usable, objectives[:2])
    _draw_front(axes, [points[number] for number in plane_front], x_objective)
    others = [number for number in pareto_front(usable, objectives) if number not in plane_front]
    _draw_points(axes, points, plane_front, others, chosen)
    style.legend_above(figure, [axes])
    named = plane_front + others + [number for number in chosen if number in points]
    first = sorted(dict.fromkeys(named), key=lambda number: number not in chosen)
    place_labels(figure, axes, points, first, toward=_ideal_angle(objectives))
    return figure


def _draw_points(
    axes: Axes,
    points: dict[int, tuple[float, float]],
    front: Sequence[int],
    others: Sequence[int],
    chosen: Collection[int],
) -> None:
    dominated = [number for number in points if number not in {*front, *others}]
    ringed = [number for number in points if number in chosen]
    x_marks: style.Looks = {"marker": "x", "s": 30, "color": style.GREY, "zorder": 2.5, "label": "dominated trial"}
    triangles: style.Looks = {
        "marker": "^",
        "s": 42,
        "color": style.GREEN,
        "zorder": 4,
        "label": "front, counting all objectives",
    }
    rings: style.Looks = style.RING | {"s": 150, "zorder": 5}
    for numbers, looks in ((dominated, x_marks), (others, triangles), (ringed, rings)):
        if numbers:
            x, y = np.array([points[number] for number in numbers]).T
            axes.scatter(x, y, **looks)


def _draw_front(axes: Axes, front: Sequence[tuple[float, float]], x_objective: Objective) -> None:
    """Outlines what the front dominates: between two trials, the one that is better in x gives the best y."""
    x, y = np.array(sorted(front)).T
    looks: style.Looks = {"color": style.BLUE, "linewidth": 1.4, "marker": "o", "markersize": 7, "zorder": 3}
    where = "post" if x_objective.direction == "minimize" else "pre"
    axes.step(x, y, where=where, label="Pareto front", **looks)  # type: ignore[arg-type]


def _ideal_angle(objectives: Sequence[Objective]) -> float:
    """Degrees of the direction, from any point of the plane, in which both objectives get better."""
    x, y = (-1 if each.direction == "minimize" else 1 for each in objectives[:2])
    return float(np.rad2deg(np.arctan2(y, x)))
