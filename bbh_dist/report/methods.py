"""One colour, line and marker for each method, the same in every figure that has a line or a mark for each."""

from collections.abc import Iterable
from itertools import cycle

from bbh_dist.report import style

_SKY, _WINE = "#56B4E9", "#882255"
_LOOKS: dict[str, tuple[str, style.Looks]] = {
    "map": ("MAP", {"color": style.INK, "linestyle": "-", "marker": "o"}),
    "ensemble": ("ensemble", {"color": style.ORANGE, "linestyle": "--", "marker": "s"}),
    "dropout": ("dropout", {"color": _SKY, "linestyle": "-.", "marker": "^"}),
    "bbb": ("BbB", {"color": style.GREEN, "linestyle": ":", "marker": "D"}),
    "mnf": ("MNF", {"color": style.PURPLE, "linestyle": (0, (5, 1)), "marker": "v"}),
    "bbh": ("BbH", {"color": style.BLUE, "linestyle": "-", "marker": "P"}),
    "bbh-single": ("BbH single", {"color": style.BLUE, "linestyle": "-", "marker": "P"}),
    "bbh-sliced": ("BbH sliced", {"color": _WINE, "linestyle": (0, (3, 1, 1, 1)), "marker": "X"}),
    "bbh-layerwise": ("BbH layer-wise", {"color": style.VERMILLION, "linestyle": "--", "marker": "*"}),
}


def method_name(method: str) -> str:
    """What figures call a method: `bbh-single` is BbH single; other names stand as they are."""
    return _LOOKS[method][0] if method in _LOOKS else style.plain(method)


def method_looks(methods: Iterable[str]) -> dict[str, style.Looks]:
    """Colour, line style and marker of each method; a name that is not known gets the next that no other one here has.

    Where all are taken they begin again.
    """
    methods = list(methods)
    known = {looks["marker"]: looks for _, looks in _LOOKS.values()}
    taken = [_LOOKS[method][1]["marker"] for method in methods if method in _LOOKS]
    free = [looks for marker, looks in known.items() if marker not in taken]
    others = cycle(free or known.values())
    return {method: _LOOKS[method][1] if method in _LOOKS else next(others) for method in methods}
