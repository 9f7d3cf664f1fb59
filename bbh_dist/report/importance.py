"""Which searched keys mattered."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bbh_dist.config import Objective
from bbh_dist.report import style


def draw_importance(objectives: Sequence[Objective], importances: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Horizontal bars per key, one for each objective, the most important key on top.

    None for fewer than two keys (one key explains everything) or without a positive share.
    """
    metrics = [each.metric for each in objectives if _has_shares(importances.get(each.metric, {}))]
    keys = list(dict.fromkeys(key for metric in metrics for key in importances[metric]))
    if len(keys) < 2:
        return None
    shares = np.array([[_share(importances[metric], key) for key in keys] for metric in metrics])
    order = np.argsort(-shares.mean(axis=0), kind="stable")
    thickness = 0.8 / len(metrics)
    figure = style.new_figure(height=max(2.6, 1.2 + len(keys) * max(0.34, 0.2 * len(metrics) + 0.12)))
    axes = figure.subplots()
    style.tidy(axes, "importance [share of the objective's variance]")
    for row, metric in enumerate(metrics):
        y = np.arange(len(keys)) + (row - (len(metrics) - 1) / 2) * thickness
        looks: style.Looks = {"color": style.PALETTE[row % 5], "hatch": style.HATCHES[row % 5], "edgecolor": "white"}
        bars = axes.barh(y, shares[row, order], 0.9 * thickness, label=style.plain(metric), **looks)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=style.SMALL_FONT, color=style.INK)
    axes.set_yticks(range(len(keys)), [style.plain(keys[column]) for column in order])
    axes.set_ylim(len(keys) - 0.45, -0.55)
    axes.set_xlim(0, 1.12 * shares.max())
    axes.grid(visible=False, axis="y")
    style.legend_above(figure, [axes])
    return figure


def _has_shares(shares: Mapping[str, float]) -> bool:
    return any(_share(shares, key) > 0 for key in shares)


def _share(shares: Mapping[str, float], key: str) -> float:
    share = float(shares.get(key, 0.0))
    return share if np.isfinite(share) else 0.0
