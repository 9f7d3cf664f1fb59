"""Accuracy and predictive entropy under attack, against the size of the attack."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbh_dist.report import style
from bbh_dist.report.methods import method_looks, method_name

AttackCurves = Mapping[str, Mapping[str, object]]
"""Attack to its curve: `examples`, and lists `epsilons`, `accuracy` [%] and `entropy` [nats]."""

_TITLES = {"fgsm": "FGSM", "pgd": "PGD"}
_ROWS = (("accuracy", "accuracy [%]"), ("entropy", "mean predictive entropy [nats]"))


def draw_attacks(methods: Mapping[str, AttackCurves], classes: int = 0) -> Figure | None:
    """A column for each attack, a line for each method; None where there is nothing to draw.

    Args:
        methods: method to the `attacks` that the curves of its run have.
        classes: K, of which a uniform prediction has an entropy of log K, which is marked; 0 marks none.
    """
    names = [name for name in _TITLES if any(len(_epsilons(curves, name)) > 1 for curves in methods.values())]
    if not names:
        return None
    figure = style.new_figure(1.4 + 3.6 * len(names), 6.4)
    panels = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    looks = method_looks(methods)
    for column, name in zip(panels.T, names, strict=True):
        for axes, (quantity, label) in zip(column, _ROWS, strict=True):
            style.tidy(axes, "", label if name == names[0] else "")
            for method, curves in methods.items():
                _plot(axes, curves.get(name, {}), quantity, method, looks[method])
        examples = max(int(str(curves[name]["examples"])) for curves in methods.values() if name in curves)
        title = f"{_TITLES[name]}, {examples:,} test images"
        column[0].set_title(title, fontsize=style.FONT, color=style.INK)
        column[0].set_ylim(-3, 103)
        column[1].set_xlabel("eps: largest change of a pixel (from 0 to 1)", fontsize=style.FONT)
        _mark_uniform(column[1], classes, named=name == names[0])
    style.legend_above(figure, [panels[0, 0]], columns=4)
    return figure


def _plot(axes: Axes, curve: Mapping[str, object], quantity: str, method: str, looks: style.Looks) -> None:
    epsilons, values = curve.get("epsilons"), curve.get(quantity)
    if not isinstance(epsilons, Sequence) or not isinstance(values, Sequence):
        return
    size: style.Looks = {"linewidth": 1.8, "markersize": 7 if looks["marker"] in "*PX" else 5.5}
    axes.plot(epsilons, values, label=method_name(method), clip_on=False, **size, **looks)


def _mark_uniform(axes: Axes, classes: int, *, named: bool) -> None:
    axes.set_ylim(bottom=0)
    if classes < 2:
        return
    limit = float(np.log(classes))
    axes.set_ylim(0, 1.12 * limit)
    axes.axhline(limit, color=style.GREY, linewidth=1)
    if named:
        text = f"uniform: log {classes} = {limit:.2f}"
        looks: style.Looks = {"fontsize": style.SMALL_FONT, "color": style.INK, "va": "bottom", "ha": "left"}
        axes.annotate(
            text, (0.02, limit), (0, 2), xycoords=axes.get_yaxis_transform(), textcoords="offset points", **looks
        )


def _epsilons(curves: AttackCurves, name: str) -> Sequence[object]:
    epsilons = curves.get(name, {}).get("epsilons")
    return epsilons if isinstance(epsilons, Sequence) else ()
