"""A suite's methods under attack, and on rotated and mixed images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bbh_dist.report.attacks import draw_attacks
from bbh_dist.report.shifts import draw_shifts
from bbh_dist.suite_results import SuiteResults


def draw_suite_attacks(results: SuiteResults) -> Figure | None:
    """Accuracy and entropy against eps, means over seeds; None where nothing was attacked."""
    runs = {row.name: [curves for curves in row.detail("curves") if "attacks" in curves] for row in results.rows}
    found = {name: mean_attacks([curves["attacks"] for curves in some]) for name, some in runs.items() if some}
    classes = [curves["classes"] for some in runs.values() for curves in some]
    return draw_attacks(found, classes[0]) if classes else None


def mean_attacks(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, object]]:
    """The attack curves of a row: each quantity's mean over its runs."""
    return {name: _mean_curve([run[name] for run in runs if name in run]) for name in runs[0]}


def _mean_curve(curves: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    fixed = ("examples", "epsilons")
    means = {name: np.mean([curve[name] for curve in curves], axis=0).tolist() for name in curves[0]}
    return means | {name: curves[0][name] for name in fixed}


def draw_suite_shifts(results: SuiteResults) -> dict[str, Figure]:
    """Figures by name of each series of images, of every row's first seed; none where there are no series."""
    found = {
        row.name: [curves["shifts"] for curves in row.detail("curves") if "shifts" in curves] for row in results.rows
    }
    return draw_shifts({name: series[0] for name, series in found.items() if series})
