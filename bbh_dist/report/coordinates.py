"""Scales of parallel coordinates: where a searched value lies on its vertical axis, from 0 to 1."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

import numpy as np

from bbh_dist.report import style

ABSENT = -0.16
"""Position of trials for which the key was not searched."""
_MOST_LABELS = 18
_LONGEST_LABEL = 28
_CLOSEST_LABELS = 0.07


@dataclass(frozen=True)
class Coordinate:
    """One axis: its name, a position in [0, 1] (or ABSENT) for each trial, and labelled ticks."""

    name: str
    positions: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]

    @property
    def has_absent(self) -> bool:
        """Whether the key was not searched in some trial."""
        return ABSENT in self.positions


def coordinate(name: str, values: Sequence[object]) -> Coordinate:
    """The axis of a key whose value in each trial is given, None where it was not searched.

    Numbers lie on a linear or, where they are positive and span more than 1.5 decades, logarithmic scale. Everything
    else is a category with its own tick; trials in a category fan out a little, in their given order.
    """
    present = [value for value in values if value is not None]
    if all(is_number(value) for value in present):
        return _numeric(name, [float(value) if is_number(value) else None for value in values])
    return _categorical(name, values)


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is a finite number; a truth value is not."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def label_of(value: object) -> str:
    """A choice as text: strings as they are, everything else as JSON, long ones cut in the middle."""
    text = value if isinstance(value, str) else _json(value)
    half = (_LONGEST_LABEL - 1) // 2
    return style.plain(text if len(text) <= _LONGEST_LABEL else f"{text[:half]}…{text[-half:]}")


def _json(value: object) -> str:
    return json.dumps(value, default=lambda each: each.item() if isinstance(each, np.generic) else str(each))


def _numeric(name: str, values: Sequence[float | None]) -> Coordinate:
    present = sorted({value for value in values if value is not None})
    low, high = present[0], present[-1]
    log = style.is_wide(present)

    def place(value: float) -> float:
        if high == low:
            return 0.5
        if log:
            return float(np.log(value / low) / np.log(high / low))
        return (value - low) / (high - low)

    is_short = all(len(style.number(value)) <= 5 for value in present)
    own_ticks = is_short and _stand_apart([place(value) for value in present])
    marks = present if own_ticks else style.nice_ticks(low, high, log=log)
    ticks = tuple((place(mark), style.number(mark)) for mark in marks)
    return Coordinate(name, tuple(ABSENT if value is None else place(value) for value in values), ticks)


def _stand_apart(places: Sequence[float]) -> bool:
    return len(places) <= 6 and all(b - a >= _CLOSEST_LABELS for a, b in pairwise(places))


def _categorical(name: str, values: Sequence[object]) -> Coordinate:
    texts = [None if value is None else _json(value) for value in values]
    labels = {text: label_of(value) for text, value in zip(texts, values, strict=True) if text is not None}
    order = sorted(labels, key=_natural)
    step = 1.0 / max(1, len(order) - 1)
    middles = {text: row * step if len(order) > 1 else 0.5 for row, text in enumerate(order)}
    positions = [ABSENT] * len(values)
    for text, middle in middles.items():
        members = [row for row, each in enumerate(texts) if each == text]
        reach = min(0.035, 0.3 * step) * min(1.0, (len(members) - 1) / 4)
        for row, offset in zip(members, np.linspace(-reach, reach, len(members)), strict=True):
            positions[row] = float(np.clip(middle + offset, -0.035, 1.035))
    every = -(-len(order) // _MOST_LABELS)
    return Coordinate(name, tuple(positions), tuple((middles[text], labels[text]) for text in order[::every]))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in a text by size, and a list before its own continuation: [8], [64], [64, 256]."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text.replace("]", ""))]
