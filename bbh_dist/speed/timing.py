"""Contestants timed in turns, so that what else the machine does meets all of them alike.

In a round each contestant has one turn of a few runs. Ratios are taken within rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

STEPS_A_TURN = 3
"""In training, too, steps follow one another: what they need is in caches by the second one."""

Turns = list[list[float]]
"""Milliseconds of every run, by round."""


def milliseconds(run: Callable[[], Any]) -> float:
    """How long a call takes by the wall clock."""
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


def alternate(
    contestants: Mapping[str, Callable[[], float]],
    rounds: int,
    turn: int = 1,
    warm_up: int = 1,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Turns]:
    """Times of `rounds` turns of `turn` runs each; a contestant is a run that returns its milliseconds.

    The first runs, `warm_up` each, are not kept. `told` hears what runs.
    """
    for name, run in contestants.items():
        told(f"warm-up: {name}")
        for _ in range(warm_up):
            run()
    times: dict[str, Turns] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            told(f"round {number + 1} of {rounds}: {name}")
            times[name].append([run() for _ in range(turn)])
    return times


def summary(turns: Turns) -> dict[str, float]:
    """Median, least and most milliseconds, and the number of runs."""
    runs = [run for turn in turns for run in turn]
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": len(runs)}


def ratio(turns: Turns, reference: Turns) -> float:
    """Median over rounds of how many times as long as the reference's a turn's median run took."""
    pairs = zip(turns, reference, strict=True)
    return statistics.median(statistics.median(turn) / statistics.median(other) for turn, other in pairs)
