"""Plan a run without running it: `python -m bbh_dist.plan --job FILE`."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bbh_dist.command_line import Parser, path, run, workers_flag
from bbh_dist.config import ConfigError, Experiment, Mistake, load_experiment
from bbh_dist.config.errors import shown
from bbh_dist.output import check_json, write_json

if TYPE_CHECKING:
    from bbh_dist.costs import Machine, StepCosts
    from bbh_dist.tasks.shapes import TaskShape


_MOST_CLASSES, _MOST_NUMBERS = 1_000_000, 100_000_000


def main(arguments: Sequence[str]) -> None:
    """Parse, count what a step costs from shapes alone, predict, say what came out."""
    given = _parser().parse_args(arguments)
    flags = workers_flag(given.workers)
    if given.shards is not None:
        flags.append((f"--shards {given.shards}", "parallel.shards", given.shards))
    experiment = load_experiment(given.job, given.assignments, flags)
    from bbh_dist.costs.devices import check_device  # imported here: --help and mistakes need no torch

    for name in given.device:
        check_device(name)
    check_json(given.json)
    shape = _shape(given, experiment)
    with Console(stderr=True).status("counting"):
        result = plan(experiment, shape, given.device)
    write_json(given.json, result)
    show(Console(), experiment, result)


def plan(experiment: Experiment, shape: "TaskShape", devices: Sequence[str]) -> dict[str, Any]:
    """What the command says, as `--json` has it; the first device's figures also stand at the top."""
    from bbh_dist.costs import step_costs
    from bbh_dist.costs.devices import CPU, sheet_machine
    from bbh_dist.costs.machine import measure_machine

    # First, because the memory of this process counts.
    machines = [measure_machine(_threads(experiment)) if name == CPU else sheet_machine(name) for name in devices]
    costs_of = cache(lambda workers: step_costs(experiment, shape.input_shape, shape.outputs, workers))
    try:
        costs = costs_of(experiment.parallel.max_workers)
    except ValueError as error:
        raise ConfigError(Mistake(experiment.task, str(error), key="network")) from error
    steps = None if shape.examples is None else -(-shape.examples // experiment.batch_size)
    rows = [_on_device(experiment, costs_of, machine, steps) for machine in machines]
    return {
        "parameters": costs.parameters,
        "per_worker": {
            "parameters": costs.parameter_bytes,
            "optimizer": costs.optimizer_bytes,
            "gradients": costs.gradient_bytes,
            "activations": costs.activation_bytes,
            "best": costs.best_bytes,
            "peak": rows[0]["peak"],
        },
        "wire": costs.wire,
        "flops": costs.flops,
        "bytes_moved": costs.bytes_moved,
        **{name: rows[0][name] for name in ("step_seconds", "epoch_seconds", "device")},
        "workers": experiment.parallel.max_workers,
        "devices": rows,
    }


def show(console: Console, experiment: Experiment, result: dict[str, Any]) -> None:
    """Print the plan in units for people."""
    asked = f" (of {experiment.parallel.worker_text})" if experiment.parallel.is_elastic else ""
    workers, per_worker, wire = result["workers"], result["per_worker"], result["wire"]
    console.print(f"{result['parameters']:,} parameters, {workers} worker{'s' if workers > 1 else ''}{asked}")
    table = Table(title="each worker, each step", title_justify="left")
    table.add_column("cost")
    table.add_column("", justify="right")
    for name in ("parameters", "optimizer", "gradients", "activations"):
        table.add_row(name, _size(per_worker[name]))
    if per_worker["best"]:
        table.add_row("the best epoch's weights", _size(per_worker["best"]))
    for kind, size in sorted(wire.items(), key=lambda item: -item[1]):
        table.add_row(f"sent: {kind.replace('_', ' ')}", _size(size))
    table.add_row("sent", _size(sum(wire.values())))
    table.add_row("operations", f"{result['flops'] / 1e9:,.1f} GFLOP")
    console.print(table)
    table = Table(title="predicted", title_justify="left")
    for name in ("device", "peak", "memory", "step", "epoch"):
        table.add_column(name, justify="left" if name == "device" else "right")
    for row in result["devices"]:
        times = [_time(row[name]) for name in ("step_seconds", "epoch_seconds")]
        table.add_row(row["device"], _size(row["peak"]), _size(row["memory"]), *times)
    console.print(table)
    for row in result["devices"]:
        console.print(_fit_line(row, experiment.batch_size), soft_wrap=True)


def _on_device(
    experiment: Experiment, costs_of: Callable[[int], "StepCosts"], machine: "Machine", steps: int | None
) -> dict[str, Any]:
    from bbh_dist.costs.fitting import peak_bytes, smallest_fit
    from bbh_dist.costs.prediction import predicted_seconds

    costs = costs_of(experiment.parallel.max_workers)
    step_seconds, fit = predicted_seconds(costs, machine), smallest_fit(experiment, costs_of, machine)
    return {
        "device": machine.name,
        "peak": peak_bytes(costs, machine),
        "memory": machine.memory_bytes,
        "step_seconds": step_seconds,
        "epoch_seconds": None if steps is None else steps * step_seconds,
        "fits_from": None if fit is None else {"workers": fit.workers, "peak": fit.peak_bytes},
    }


def _fit_line(row: dict[str, Any], batch_size: int) -> str:
    device = f"{row['device']} ({_size(row['memory'])})"
    if row["fits_from"] is None:
        return f"does not fit on up to {batch_size} x {device}, an example of a batch each"
    return f"fits from {row['fits_from']['workers']} x {device}: {_size(row['fits_from']['peak'])} each"


def _parser() -> Parser:
    result = Parser(
        "python -m bbh_dist.plan",
        "Memory, traffic and time of a training step, predicted from shapes; no data is read, the job is not run.",
        "python -m bbh_dist.plan --job jobs/wrn_plan.yaml --input 3x32x32 --classes 10 "
        "--device h100-sxm a100-80gb --workers 4",
    )
    add = result.add_argument
    add("--job", type=path, required=True, metavar="FILE", help="the experiment (see jobs/)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments", help="set a key of the file")
    add("--workers", type=int, metavar="N", help="workers (parallel.workers)")
    add("--shards", type=int, metavar="N", help="workers over which weight samples are split (parallel.shards)")
    add("--device", nargs="+", default=["cpu"], metavar="NAME", help="cpu, measured here (default), or GPUs: h100-sxm")
    add("--input", metavar="CxHxW", help="shape of an input in place of the task's, so that its data may be absent")
    add("--classes", type=int, metavar="N", help="number of classes, together with --input")
    add("--data", type=path, metavar="DIR", help="taken as by the other commands; no data is read from there")
    add("--json", type=path, metavar="FILE", help="also write the results to FILE")
    return result


def _shape(given: argparse.Namespace, experiment: Experiment) -> "TaskShape":
    from bbh_dist.tasks.shapes import TaskShape, task_shape

    if given.input is None and given.classes is None:
        return task_shape(experiment.task)
    if given.input is None or given.classes is None:
        raise ConfigError(Mistake("--input, --classes", "must stand together"))
    if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5})*", given.input):
        raise ConfigError(Mistake("--input", "must be sizes such as 3x32x32", got=shown(given.input)))
    if not 2 <= given.classes <= _MOST_CLASSES:
        raise ConfigError(Mistake("--classes", f"must be from 2 to {_MOST_CLASSES}", got=str(given.classes)))
    shape = tuple(int(size) for size in given.input.split("x"))
    if len(shape) > 3 or math.prod(shape) > _MOST_NUMBERS:
        rule = f"must be at most 3 sizes, together at most {_MOST_NUMBERS} numbers"
        raise ConfigError(Mistake("--input", rule, got=shown(given.input)))
    return TaskShape(shape, given.classes)


def _threads(experiment: Experiment) -> int:
    """Threads of a worker on this machine's CPU, as a run has them."""
    from bbh_dist.provenance import cores

    return experiment.parallel.cpus_per_worker or (cores() if experiment.parallel.max_workers == 1 else 1)


def _size(size_bytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


if __name__ == "__main__":
    run(main)
