"""How each method looks in every figure and is called in every table: by colour, and by marker and dashes without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bbh_dist.report import style

_SKY, _WINE, _OLIVE = "#56B4E9", "#882255", "#6B6B00"


@dataclass(frozen=True)
class MethodLooks:
    """Name for people, colour, marker, and dashes of a line."""

    label: str
    color: str
    marker: str
    dashes: Any = "-"

    @property
    def line(self) -> style.Looks:
        """Keywords of a line."""
        return {"color": self.color, "linestyle": self.dashes, "label": self.label}

    @property
    def mark(self) -> style.Looks:
        """Keywords of a marker."""
        return {"color": self.color, "marker": self.marker, "label": self.label}


_KNOWN = {
    "map": MethodLooks("MAP", style.INK, "s", (0, (1, 1))),
    "ensemble": MethodLooks("ensemble", style.ORANGE, "^", (0, (5, 1))),
    "dropout": MethodLooks("MC-dropout", _SKY, "v", (0, (3, 1, 1, 1))),
    "bbb": MethodLooks("BbB", style.GREEN, "D", (0, (6, 1.5, 1, 1.5))),
    "mnf": MethodLooks("MNF", style.PURPLE, "P", (0, (4, 1.5, 1, 1.5, 1, 1.5))),
    "bbh": MethodLooks("BbH", style.VERMILLION, "o"),
    "bbh-single": MethodLooks("BbH single", style.VERMILLION, "o"),
    "bbh-sliced": MethodLooks("BbH sliced", _WINE, "X", (0, (8, 2))),
    "bbh-layerwise": MethodLooks("BbH layer-wise", style.BLUE, "<", (0, (2.5, 2.5))),
}
_OTHERS = (
    MethodLooks("", style.GREY, "*"),
    MethodLooks("", _OLIVE, "p", (0, (5, 1))),
    MethodLooks("", "#332288", ">", (0, (1, 1))),
    MethodLooks("", "#44AA99", "h", (0, (3, 1, 1, 1))),
    MethodLooks("", "#AA4499", "d", (0, (8, 2))),
)


def label(name: str) -> str:
    """What people call a row."""
    return _KNOWN[name].label if name in _KNOWN else name


def looks(names: Sequence[str]) -> dict[str, MethodLooks]:
    """The looks of rows: a method's own, the same in every figure, and for other names one after the other."""
    others = [name for name in names if name not in _KNOWN]
    result = {name: _KNOWN[name] for name in names if name in _KNOWN}
    for number, name in enumerate(others):
        free = _OTHERS[number % len(_OTHERS)]
        result[name] = MethodLooks(style.plain(name), free.color, free.marker, free.dashes)
    return {name: result[name] for name in names}
