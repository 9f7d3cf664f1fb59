"""Train one experiment: `python -m bbh_dist.train --job FILE`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bbh_dist.command_line import RunOptions, keep_to, parser, path, run, workers_flag
from bbh_dist.config import load_experiment
from bbh_dist.output import check_json, write_json


def main(arguments: Sequence[str]) -> None:
    """Parse, check everything that can be checked before anything starts, train, say what came out."""
    flags_parser = parser(
        "train",
        "Train one experiment and measure it on test data; over several workers by Ray Train.",
        "python -m bbh_dist.train --job jobs/digits5_bbh.yaml --set method.generator.kind=layerwise --seed 1",
    )
    flags_parser.add_argument("--job", type=path, required=True, metavar="FILE", help="the experiment (see jobs/)")
    flags_parser.add_argument("--seed", type=int, metavar="N", help="seed of the run (seed)")
    given = flags_parser.parse_args(arguments)
    flags = workers_flag(given.workers)
    if given.seed is not None:
        flags.append((f"--seed {given.seed}", "seed", given.seed))
    experiment = load_experiment(given.job, given.assignments, flags)

    keep_to(given.storage)
    from bbh_dist.training_run import TrainingRun  # imported here: --help and mistakes need no torch

    check_json(given.json)
    options = RunOptions.of(given, given.job)
    console = options.console
    training = TrainingRun(experiment, options)
    console.print(
        f"run [bold]{training.folder.name}[/bold], folder {escape(str(training.folder.path))}", soft_wrap=True
    )
    result = training.run()
    write_json(given.json, result)
    show(console, result)


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the measures on test data, what is wrong with the run, the time, and how to look at it."""
    table = Table(title="test data", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result["metrics"].items():
        if name.startswith("test/"):
            table.add_row(name, f"{value:.4g}")
    console.print(table)
    for line in result.get("health", []):
        console.print(f"health: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    print(f"figures: {result['figures']}")
    print(f"trained in {result['seconds']:.1f} s, {result['step_ms']:.1f} ms a step; look at the run: {result['ui']}")


if __name__ == "__main__":
    run(main)
