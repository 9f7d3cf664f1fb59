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
) -> None:
    """A bar for every row that has `key`, with a line from `low` to `high` where it has them, and a text at its end.

    `groups` says what the values of `group` are called in the legend.
    """
    from bbh_dist.report import style

    rows = [row for row in rows if row.get(key)]
    names = list(dict.fromkeys(row["name"] for row in rows))
    found = [value for value in groups if any(row.get(group) == value for row in rows)]
    thick = 0.8 / max(1, len(found))
    for index, value in enumerate(found):
        own = [row for row in rows if row.get(group) == value]
        places = [names.index(row["name"]) + (index - (len(found) - 1) / 2) * thick for row in own]
        lengths = [row[key] for row in own]
        looks: style.Looks = {"color": style.PALETTE[index], "hatch": style.HATCHES[index], "edgecolor": "white"}
        axes.barh(places, lengths, 0.92 * thick, label=groups[value], **looks)
        for place, row in zip(places, own, strict=True):
            end = row.get(high, row[key])
            if low in row:
                axes.plot([row[low], end], [place, place], color=style.INK, linewidth=1.2)
            looks = {"fontsize": style.SMALL_FONT, "color": style.INK, "va": "center"}
            axes.annotate(text(row), (max(end, row[key]), place), (4, 0), textcoords="offset points", **looks)
    style.tidy(axes, xlabel)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    ends = [max(row[key], row.get(high, 0)) for row in rows]
    if log and ends:
        axes.set_xscale("log")
        least = min(row[key] for row in rows) / 2
        axes.set_xlim(least, max(ends) * (max(ends) / least) ** 0.75)  # room for the texts
        ticks = style.nice_ticks(least, max(ends) * 1.5, log=True)
        axes.set_xticks(ticks, [style.number(tick) for tick in ticks])
        axes.minorticks_off()
    elif ends:
        axes.set_xlim(0, 1.35 * max(ends))


def marks(axes: "Axes", rows: Sequence[Row], key: str, label: str, *, group: str, groups: Mapping[Any, str]) -> None:
    """A diamond on the bar of every row that has `key`."""
    from bbh_dist.report import style

    names = list(dict.fromkeys(row["name"] for row in rows))
    found = [value for value in groups if any(row.get(group) == value for row in rows)]
    marked = [row for row in rows if row.get(key)]
    places = [
        names.index(row["name"]) + (found.index(row[group]) - (len(found) - 1) / 2) * 0.8 / len(found)
        for row in marked
    ]
    looks: style.Looks = {"marker": "D", "s": 26, "color": "white", "edgecolors": style.INK, "zorder": 4}
    if marked:
        axes.scatter([row[key] for row in marked], places, label=label, **looks)
