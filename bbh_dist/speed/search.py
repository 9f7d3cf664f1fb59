"""What a study adds to its training runs: Ray, Optuna and MLflow beside a plain loop of trainings of the same space."""

import argparse
from pathlib import Path
from statistics import mean, median
from typing import Any

from bbh_dist.cluster.session import concurrency, local_resources
from bbh_dist.config import Parallel
from bbh_dist.speed import figure, options
from bbh_dist.speed.machine import machine
from bbh_dist.speed.progress import Progress
from bbh_dist.speed.report import column, number
from bbh_dist.speed.study import run_both
from bbh_dist.speed.timing import ratio, summary

COLUMNS = [
    ("study", lambda row: row["name"]),
    ("trials", lambda row: f"{row['trials']}, {row['concurrent']} at once"),
    column("ms a trial", "median", number),
    column("in a loop", "loop", number),
    column("x loop", "ratio", number),
    column("added ms", "overhead", number),
    column("once running", "steady_overhead", number),
    column("trials/hour", "trials_per_hour", number),
]
GROUP = ""


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The measurement as JSON has it, with a title and notes."""
    facts = machine(1)
    rows = []
    with Progress() as told:
        for workers, trials in ((1, given.trials), (2, given.pair_trials)):
            fits = local_resources().cpus // workers
            if trials and fits:
                rows.append(_row(given, workers, trials, told))
    notes = [
        "a trial: time from the start of the first trial to the end of the last, times trials at once, by trials; "
        "without the cluster's start, with that of its processes; no pruning",
        "in a loop: mean of trainings of the same space, as many at once, in processes that stand ready; both take "
        "turns of 1 s, in which timers run on; added: the difference; once running: that of the means without each "
        "process's first",
    ]
    return {
        "command": "search",
        "machine": facts,
        "settings": options.settings(given),
        "rows": rows,
        "title": f"studies on digits5, {given.epochs} epochs a trial, one thread a worker",
        "notes": notes,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figure: a trial's time in a study and in a loop."""
    kinds = {"study": "in a study", "loop": "in a plain loop"}
    pairs = [
        {"name": f"{row['workers']} worker{'s' * (row['workers'] > 1)}\na trial", "kind": kind, **values}
        for row in rows
        for kind, values in (
            ("study", {"seconds": row["median"] / 1000, "hourly": row["trials_per_hour"]}),
            ("loop", {"seconds": row["loop"] / 1000, "hourly": row["loop_trials_per_hour"]}),
        )
    ]

    def times(axes: Any) -> None:
        def text(row: Any) -> str:
            return f"{number(row['seconds'])} s, {row['hourly']:,.0f} trials per hour"

        figure.bars(axes, pairs, "seconds", "time of a trial [s]", text, group="kind", groups=kinds, low="", high="")
        axes.set_xlim(0, 1.7 * max(row["seconds"] for row in pairs))

    figure.draw(path, [times], height=1.2 + 0.45 * len(pairs))


def _row(given: argparse.Namespace, workers: int, trials: int, told: Progress) -> dict[str, Any]:
    concurrent = min(trials, concurrency(Parallel(workers=workers), local_resources()))
    runs = [run_both(trials, workers, given.epochs, concurrent, told) for _ in range(given.repeats)]
    studies, loops = [[run.study * concurrent / trials] for run in runs], [[mean(run.loop)] for run in runs]
    found, loop = summary(studies), summary(loops)["median"]
    steady = [mean(run.trials[concurrent:] or run.trials) - mean(run.loop[concurrent:] or run.loop) for run in runs]
    return {
        "name": f"study-{workers}",
        "workers": workers,
        "trials": trials,
        "concurrent": concurrent,
        **found,
        "loop": loop,
        "ratio": ratio(studies, loops),
        "bound_ratio": None,
        "overhead": median(study[0] - plain[0] for study, plain in zip(studies, loops, strict=True)),
        "steady_overhead": median(steady),
        "trials_per_hour": 3.6e6 * concurrent / found["median"],
        "loop_trials_per_hour": 3.6e6 * concurrent / loop,
    }
