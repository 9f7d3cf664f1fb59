"""Horizontal bars, one for every row, those of a name together: how all measurements are drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]


def draw(path: Path, panels: Sequence[Callable[["Axes"], None]], height: float) -> None:
    """Write a figure with a panel beside the other."""
    from bbh_dist.report import style  # imported here: it makes matplotlib's cache folder

    figure = style.new_figure(style.SIZE[0] + 1.5 * (len(panels) - 1), height)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        panel(axes)
    style.legend_above(figure, all_axes)
    style.save_png(figure, path)


def bars(
    axes: "Axes",
    rows: Sequence[Row],
    key: str,
    xlabel: str,
    text: Callable[[Row], str],
    *,
    group: str,
    groups: Mapping[Any, str],
    log: bool = False,
    low: str = "min",
    high: str = "max",
    text_from: float = 0.0,
    also: Sequence[float] = (),
) -> None:
    """A bar for every row that has `key`, with a line from `low` to `high` where it has them.

    A text stands at its end, or right of `text_from`. The axis reaches down to `also`.
    `groups` says what the values of `group` are called in the legend.
    """
    from bbh_dist.report import style

    rows = [row for row in rows if row.get(key)]
    for index, value in enumerate(_present(rows, group, groups)):
        own = [row for row in rows if row.get(group) == value]
        places = [_place(row, rows, group, groups) for row in own]
        looks: style.Looks = {"color": style.PALETTE[index], "hatch": style.HATCHES[index], "edgecolor": "white"}
        thick = 0.92 * _thickness(rows, group, groups)
        axes.barh(places, [row[key] for row in own], thick, label=groups[value], **looks)
        for place, row in zip(places, own, strict=True):
            end = max(row.get(high, 0), row[key])
            if low in row:
                axes.plot([row[low], end], [place, place], color=style.INK, linewidth=1.2)
            looks = {"fontsize": style.SMALL_FONT, "color": style.INK, "va": "center"}
            axes.annotate(text(row), (max(end, text_from), place), (4, 0), textcoords="offset points", **looks)
    style.tidy(axes, xlabel)
    names = [_label(name) for name in _names(rows)]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    _limit(axes, [*also, *(row[key] for row in rows)], [max(row.get(high, 0), row[key]) for row in rows], log=log)


def marks(axes: "Axes", rows: Sequence[Row], key: str, label: str, *, group: str, groups: Mapping[Any, str]) -> None:
    """A diamond on the bar of every row that has `key`."""
    from bbh_dist.report import style

    marked = [row for row in rows if row.get(key)]
    places = [_place(row, rows, group, groups) for row in marked]
    looks: style.Looks = {"marker": "D", "s": 26, "color": "white", "edgecolors": style.INK, "zorder": 4}
    if marked:
        axes.scatter([row[key] for row in marked], places, label=label, **looks)


def _limit(axes: "Axes", values: Sequence[float], ends: Sequence[float], *, log: bool) -> None:
    """Leave room for the texts; ticks of a logarithmic axis are plain numbers."""
    from bbh_dist.report import style

    if not log:
        axes.set_xlim(0, 1.35 * max(ends, default=1))
        axes.locator_params(axis="x", nbins=6)
        return
    axes.set_xscale("log")
    least, most = min(values, default=1) / 2, max(ends, default=1)
    axes.set_xlim(least, most * (most / least) ** 0.75)
    ticks = style.nice_ticks(least, 1.5 * most, log=True)
    axes.set_xticks(ticks, [style.number(tick) for tick in ticks])
    axes.minorticks_off()


def _label(name: str) -> str:
    """`BbH layer-wise, Adam` for `bbh-layerwise-adam`; what is no method's name stands as it is."""
    from bbh_dist.report.methods import method_name

    method, adam, _ = name.partition("-adam")
    return method_name(method) + (", Adam" if adam else "")


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["name"] for row in rows))


def _present(rows: Sequence[Row], group: str, groups: Mapping[Any, str]) -> list[Any]:
    """The groups that have a row."""
    return [value for value in groups if any(row.get(group) == value for row in rows)]


def _thickness(rows: Sequence[Row], group: str, groups: Mapping[Any, str]) -> float:
    return 0.8 / max(1, len(_present(rows, group, groups)))


def _place(row: Row, rows: Sequence[Row], group: str, groups: Mapping[Any, str]) -> float:
    """Where a row's bar stands on the axis of names."""
    found = _present(rows, group, groups)
    offset = (found.index(row[group]) - (len(found) - 1) / 2) * _thickness(rows, group, groups)
    return _names(rows).index(row["name"]) + offset
