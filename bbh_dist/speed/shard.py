"""Several workers on one network: sharded weight sampling beside DistributedDataParallel.

Strong scaling: the same global batch and samples for all. Weak scaling: W workers take W times both.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bbh_dist.config import ConfigError, Experiment, Mistake
from bbh_dist.networks import build_network
from bbh_dist.provenance import cores
from bbh_dist.speed import experiments, figure, options
from bbh_dist.speed.bounds import bound
from bbh_dist.speed.device import Device
from bbh_dist.speed.machine import free_memory, machine
from bbh_dist.speed.processes import Processes
from bbh_dist.speed.progress import Progress
from bbh_dist.speed.report import TIMES, column, number, size
from bbh_dist.speed.timing import STEPS_A_TURN, alternate, ratio, summary

COLUMNS = [
    ("contestant", lambda row: row["name"]),
    ("scaling", lambda row: row["scaling"]),
    *TIMES,
    column("x\none", "ratio", number),
    column("x\nbound", "bound_ratio", number),
    column("sent", "wire_bytes", size),
    column("carried", "loopback_bytes", size),
    column("memory", "peak_memory", size),
]
GROUP = "scaling"
_PROCESS_BYTES = 400_000_000


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The measurement as JSON has it, with a title and notes."""
    _check_memory(given)
    facts = machine(1)
    rows: list[dict[str, Any]] = []
    with Progress() as told:
        for scaling in ("strong", "weak"):
            rows += _rows(given, scaling, told)
    title = f"one training step of {given.network}, {given.generator} generator, one thread a worker"
    notes = [
        f"strong scaling: batch {given.batch_size}, {given.kl_samples} KL samples; weak: W times both; in turns of "
        f"{STEPS_A_TURN} steps; x one worker is the median of the ratios within rounds",
        "time: from a barrier to the end of the slowest worker's step; memory: the largest worker's peak",
        "sent: counted bytes per step and worker, sums by the rule of a ring; carried: what the loopback interface "
        "took per step and worker, with whatever else used it and a barrier's few kB",
        "x bound: the larger of bytes moved and operations, counted, at the best rates of one worker that is alone",
        "ddp: every worker draws all samples and computes the whole divergence, so that the objective is the same; "
        f"{rows[0]['runs']} timed steps each",
    ]
    if given.bfloat16:
        notes.append("sharded workers store heads and second moments in bfloat16, ddp float32")
    if max(given.workers) > cores():
        notes.append(f"{max(given.workers)} workers share {cores()} cores here: their times say nothing about scaling")
    return {
        "command": "shard",
        "machine": facts,
        "settings": options.settings(given),
        "rows": rows,
        "title": title,
        "notes": notes,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figure: a step's time and what a worker sends."""
    groups = {"strong": "strong scaling: same batch and samples", "weak": "weak scaling: W times batch and samples"}

    def times(axes: Any) -> None:
        def text(row: Any) -> str:
            return f"{number(row['median'])} ms"

        figure.bars(axes, rows, "median", "time of a step [ms]", text, group=GROUP, groups=groups)

    def wire(axes: Any) -> None:
        def text(row: Any) -> str:
            return size(row["wire_bytes"])

        label, megabytes = "sent per step and worker [MB]", [row | {"sent": row["wire_bytes"] / 1e6} for row in rows]
        figure.bars(axes, megabytes, "sent", label, text, group=GROUP, groups=groups, low="", high="", log=True)

    figure.draw(path, [times, wire], height=1.2 + 0.3 * len(rows))


def contestants(given: argparse.Namespace, scaling: str) -> dict[str, tuple[str, int, Experiment]]:
    """Kind, number of workers and experiment of every row's name."""
    found = {}
    for workers in given.workers:
        times = workers if scaling == "weak" else 1
        experiment, plain = (
            experiments.experiment(
                f"bbh-{given.generator}",
                network=given.network,
                hidden=given.hidden,
                batch_size=times * given.batch_size,
                kl_samples=times * given.kl_samples,
                bfloat16=bfloat16,
            )
            for bfloat16 in (given.bfloat16, False)
        )
        found[f"sharded-{workers}"] = ("sharded", workers, _changed(experiment, {"parallel": {"workers": workers}}))
        if workers > 1 and not given.no_ddp:
            stored = {"optimizer": plain.optimizer.model_dump() | {"factored": False}}
            found[f"ddp-{workers}"] = ("ddp", workers, _changed(plain, stored))
    return found


def _rows(given: argparse.Namespace, scaling: str, told: Progress) -> list[dict[str, Any]]:
    found = contestants(given, scaling)
    with ExitStack() as stack:
        told(f"{scaling} scaling: building {', '.join(found)}")
        groups = {
            name: stack.enter_context(Processes(kind, experiment, workers))
            for name, (kind, workers, experiment) in found.items()
        }
        for group in groups.values():
            group.ready()
        runs = {name: group.step for name, group in groups.items()}
        rounds = -(-given.repeats // STEPS_A_TURN)
        times = alternate(runs, rounds, STEPS_A_TURN, 2, lambda text: told(f"{scaling} scaling, {text}"))
        return [
            {
                "name": name,
                "scaling": scaling,
                "workers": group.size,
                **summary(times[name]),
                "ratio": ratio(times[name], times["sharded-1"]),
                **_bound(found[name], summary(times[name])["median"]),
                "wire": group.traffic,
                "wire_bytes": sum(group.traffic.values()),
                "loopback_bytes": median(group.loopback[2:]) if group.size > 1 and group.loopback else None,
                "peak_memory": group.peak_memory(),
            }
            for name, group in groups.items()
        ]


def _bound(chosen: tuple[str, int, Experiment], median_ms: float) -> dict[str, float]:
    kind, workers, experiment = chosen
    return bound(experiment, median_ms, Device(1), workers) if kind == "sharded" else {}


def _changed(experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    return Experiment.model_validate(experiment.model_dump() | changes)


def _check_memory(given: argparse.Namespace) -> None:
    """See that all contestants, which stand at the same time, fit.

    Raises:
        ConfigError: they don't.
    """
    weights = build_network(given.network, experiments.SHAPE, experiments.CLASSES).size
    rows = weights if given.generator == "layerwise" else 0
    numbers = rows * (options.numbers(given.hidden)[-1] + 1)
    plain, sharded = 4 * numbers, (2 if given.bfloat16 else 4) * numbers
    need = 0.0
    for kind, workers, _ in contestants(given, "strong").values():
        # Weights and squared gradients; the plain way each worker has them all, gradients and a temporary.
        need += workers * _PROCESS_BYTES + (4 * workers * plain if kind == "ddp" else 2 * sharded)
    free = free_memory()
    if free is not None and need > free:
        rule = f"need about {size(need)} of memory, of which {size(free)} are free; try --no-ddp or --generator single"
        raise ConfigError(Mistake("--workers", rule, got=",".join(map(str, given.workers))))
