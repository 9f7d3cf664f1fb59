"""The figures of one run: how sure it is, how right that is, and how it trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bbh_dist.report import style
from bbh_dist.report.attacks import draw_attacks
from bbh_dist.report.regression import draw_curve
from bbh_dist.report.shifts import draw_shifts

Array = NDArray[np.float64]

_LINES: tuple[tuple[str, style.Looks], ...] = (
    ("train/loss", {"color": style.GREY, "linestyle": ":", "marker": "^"}),
    ("train/nll", {"color": style.BLUE, "linestyle": "--", "marker": "s"}),
    ("val/nll", {"color": style.VERMILLION, "linestyle": "-", "marker": "o"}),
)


def draw_run(curves: Mapping[str, object], directory: Path) -> list[Path]:
    """Paths of `entropy_cdf.png`, `reliability.png`, `curve.png`, `attacks.png`, `shifts.png`, those that have curves.

    Args:
        curves: JSON-like. `entropy_grid` (nats, 0 to log K), `entropy_cdf` and optionally `outlier_entropy_cdf` at its
            points; `confidence` and `accuracy` per bin (0 to 1, None if empty) and `bin_count`; `classes` K; `method`,
            `attacks` and `shifts` as `draw_attacks` and `draw_shifts` take them; of a regression `curve` (see
            `regression.draw_curve`).
        directory: made if it is missing.
    """
    method, attacks, shifts = str(curves.get("method", "this run")), curves.get("attacks"), curves.get("shifts")
    figures = {"entropy_cdf": _draw_entropy(curves), "reliability": _draw_reliability(curves)}
    figures["curve"] = draw_curve(curves.get("curve"))
    if isinstance(attacks, Mapping):
        figures["attacks"] = draw_attacks({method: attacks}, _classes(curves))
    if isinstance(shifts, list):
        figures |= draw_shifts({method: shifts})
    return [style.save_png(figure, directory / f"{name}.png") for name, figure in figures.items() if figure is not None]


def draw_training(history: Sequence[Mapping[str, float]], directory: Path) -> list[Path]:
    """Path of `training.png`: loss and negative log-likelihood, and the KL below, against the epoch.

    Args:
        history: one mapping per epoch with `epoch` and any of `train/loss`, `train/nll`, `val/nll` (nats per example)
            and `train/kl` (nats). No figure is drawn for fewer than two epochs with a finite value.
        directory: made if it is missing.
    """
    lines = [(metric, *_series(history, metric), looks) for metric, looks in _LINES]
    found = [line for line in lines if len(line[1]) > 1]
    if not found:
        return []
    kl_epochs, kl = _series(history, "train/kl")
    panels = 2 if len(kl) > 1 else 1
    figure = style.new_figure(height=style.SIZE[1] + 1.3 * (panels - 1))
    rows = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[1.8, 1][:panels])[:, 0]
    _draw_lines(rows[0], found)
    if panels == 2:
        style.tidy(rows[1], "", style.metric_label("train/kl"))
        style.scale(rows[1], "y", kl.tolist())
        _plot(rows[1], kl_epochs, kl, {"color": style.GREEN, "linestyle": "-", "marker": "D"})
    rows[-1].set_xlabel("epoch", fontsize=style.FONT)
    rows[-1].xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    style.legend_above(figure, rows[:1])
    return [style.save_png(figure, directory / "training.png")]


def _draw_lines(axes: Axes, found: Sequence[tuple[str, Array, Array, style.Looks]]) -> None:
    style.tidy(axes, "", "nats per example")
    style.scale(axes, "y", np.concatenate([values for _, _, values, _ in found]).tolist())
    for metric, epochs, values, looks in found:
        label = metric
        if metric.startswith("val/"):
            best = int(np.argmin(values))
            label = f"{metric}, lowest {values[best]:.3g} at epoch {style.number(epochs[best])}"
            axes.scatter(epochs[best], values[best], s=130, facecolors="none", edgecolors=style.INK, zorder=4)
        _plot(axes, epochs, values, looks, label)


def _plot(axes: Axes, x: Array, y: Array, looks: style.Looks, label: str | None = None) -> None:
    axes.plot(x, y, linewidth=1.8, markersize=4.5, markevery=max(1, len(x) // 20), label=label, **looks)


def _series(history: Sequence[Mapping[str, float]], metric: str) -> tuple[Array, Array]:
    """Epochs and values of a metric where it is finite."""
    pairs = [(row["epoch"], row[metric]) for row in history if metric in row and "epoch" in row]
    kept = np.array([pair for pair in pairs if np.isfinite(pair).all()], dtype=np.float64).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def entropy_auc(grid: Array, cdf: Array, classes: int) -> float:
    """The area under an entropy CDF divided by log K: 1 for certain predictions, 0 for uniform ones.

    Shapes: grid (G,) in nats from 0 to log K, cdf (G,). The area is that of the trapezoids between grid points.
    """
    return float(np.trapezoid(cdf, grid) / np.log(classes))


def calibration_error(confidence: Array, accuracy: Array, count: Array) -> float:
    """The expected calibration error, 0 to 1: |accuracy - confidence| of the bins, weighted by their examples.

    Shapes: all (bins,); bins without examples are NaN in the first two.
    """
    gap = np.abs(accuracy - confidence)
    return float(np.nansum(gap * count) / count.sum())


def _array(values: object) -> Array:
    """JSON numbers as an array, null as NaN; empty where there is no list."""
    return np.array(values if isinstance(values, list | tuple | np.ndarray) else [], dtype=np.float64)


def _classes(curves: Mapping[str, object]) -> int:
    classes = curves.get("classes")
    return int(classes) if isinstance(classes, int | float) else 0


def _draw_entropy(curves: Mapping[str, object]) -> Figure | None:
    grid, classes = _array(curves.get("entropy_grid")), _classes(curves)
    kinds: tuple[tuple[str, str, style.Looks], ...] = (
        ("entropy_cdf", "in distribution: entropy AUC {:.3f} (1 = certain)", {"color": style.BLUE, "linestyle": "-"}),
        (
            "outlier_entropy_cdf",
            "outliers: entropy AUC {:.3f} (0 = uniform)",
            {"color": style.VERMILLION, "linestyle": "--"},
        ),
    )
    found = [(name, _array(curves.get(key)), looks) for key, name, looks in kinds]
    lines = [line for line in found if line[1].shape == grid.shape and np.isfinite(line[1]).all()]
    if len(grid) < 2 or classes < 2 or not lines:
        return None
    figure = style.new_figure()
    axes = figure.subplots()
    limit = np.log(classes)
    style.tidy(
        axes,
        f"predictive entropy [nats]; uniform is log {classes} = {limit:.2f}",
        "share of examples with less entropy",
    )
    for name, cdf, looks in lines:
        axes.plot(
            grid,
            cdf,
            linewidth=2.2,
            label=name.format(entropy_auc(grid, cdf, classes)),
            clip_on=False,
            solid_capstyle="butt",
            **looks,
        )
    axes.set_xlim(0, limit)
    axes.set_ylim(0, 1)
    style.legend_above(figure, [axes], columns=1)
    return figure


def _draw_reliability(curves: Mapping[str, object]) -> Figure | None:
    confidence, accuracy, count = (_array(curves.get(key)) for key in ("confidence", "accuracy", "bin_count"))
    if not len(count) or not confidence.shape == accuracy.shape == count.shape or not np.nansum(count) > 0:
        return None
    figure = style.new_figure(6.0, 6.0)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    style.tidy(axes, "", "accuracy in the bin")
    style.tidy(below, "confidence (probability of the predicted class)", "examples")
    _draw_bins(axes, confidence, accuracy)
    _draw_counts(below, count)
    error = calibration_error(confidence, accuracy, count)
    title = f"expected calibration error {error:.3f} ({len(count)} bins, {int(count.sum()):,} examples)"
    axes.set_title(title, fontsize=style.FONT, color=style.INK)
    style.legend_above(figure, [axes], columns=2)
    return figure


def _draw_bins(axes: Axes, confidence: Array, accuracy: Array) -> None:
    edges = np.linspace(0, 1, len(accuracy) + 1)
    heights = np.nan_to_num(accuracy)
    looks: style.Looks = {"align": "edge", "color": "#BFDDEE", "edgecolor": "white", "label": "accuracy of a bin"}
    axes.bar(edges[:-1], heights, np.diff(edges), **looks)
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", label="perfectly calibrated")
    axes.vlines(confidence, confidence, accuracy, color=style.VERMILLION, linewidth=2, label="gap to the confidence")
    axes.plot(confidence, accuracy, "o", color=style.BLUE, markersize=6, label="accuracy at the mean confidence")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, 1)


def _draw_counts(axes: Axes, count: Array) -> None:
    edges = np.linspace(0, 1, len(count) + 1)
    filled = count[count > 0]
    style.scale(axes, "y", filled.tolist())
    axes.bar(edges[:-1], count, np.diff(edges), align="edge", color=style.GREY, edgecolor="white")
    if axes.get_yscale() == "log":
        axes.set_ylabel("examples (log)", fontsize=style.FONT)
        axes.set_ylim(0.7 * filled.min(), 2 * filled.max())
