"""Search a space, then train the best again with several seeds: `python -m bbh_dist.tune --space FILE`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bbh_dist.command_line import RunOptions, keep_to, parser, path, run, seeds_flag, workers_flag
from bbh_dist.config import SearchSpace, load_space
from bbh_dist.output import check_json, write_json


def main(arguments: Sequence[str]) -> None:
    """Parse, check everything that can be checked before anything starts, run the study, say what came out."""
    flags_parser = parser(
        "tune",
        "Search hyperparameters on a Ray cluster, then train the best trials again with several seeds on test data.",
        "python -m bbh_dist.tune --space tune_spaces/bbh.yaml --trials 32 --set epochs=10",
    )
    flags_parser.add_argument(
        "--space", type=path, required=True, metavar="FILE", help="the search space (see tune_spaces/)"
    )
    flags_parser.add_argument("--trials", type=int, metavar="N", help="number of trials (trials)")
    flags_parser.add_argument("--seeds", type=int, metavar="N", help="final runs with seeds 0..N-1 (final.seeds)")
    given = flags_parser.parse_args(arguments)
    flags: list[tuple[str, str, Any]] = [
        (place, f"base.{key}", value) for place, key, value in workers_flag(given.workers)
    ]
    if given.trials is not None:
        flags.append((f"--trials {given.trials}", "trials", given.trials))
    flags += seeds_flag(given.seeds, "final.seeds")
    space = load_space(given.space, given.assignments, flags)

    keep_to(given.storage)
    from bbh_dist.cluster.study import Study  # imported here: --help and mistakes need no torch

    check_json(given.json)
    options = RunOptions.of(given, given.space)
    console = options.console
    study = Study(space, options)
    console.print(
        f"study [bold]{study.folder.name}[/bold]: {space.trials} trials, folder {escape(str(study.folder.path))}",
        soft_wrap=True,
    )
    result = study.run()
    write_json(given.json, result)
    show(console, space, result)


def show(console: Console, space: SearchSpace, result: dict[str, Any]) -> None:
    """Print the best trials, the final runs' means and deviations, the time, and how to look at it all."""
    from bbh_dist.cluster.live_table import short_params

    states = [trial["state"] for trial in result["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    several = len(space.objectives) > 1
    title = "Pareto front, the nearest to the ideal point first" if several else "best trials"
    table = Table(title=f"{title} ({counts})", title_justify="left")
    for name in ("trial", *(objective.metric for objective in space.objectives)):
        table.add_column(name, justify="right")
    table.add_column("searched values", overflow="fold")
    for trial in result["best"][:8]:
        values = [f"{trial['values'][objective.metric]:.4g}" for objective in space.objectives]
        table.add_row(str(trial["number"]), *values, short_params(trial["params"]))
    console.print(table)
    for final in result["finals"]:
        seeds = ", ".join(map(str, final["seeds"]))
        table = Table(title=f"trial {final['trial']} on test data, seeds {seeds}", title_justify="left")
        for name in ("measure", "mean", "standard deviation"):
            table.add_column(name, justify="left" if name == "measure" else "right")
        for name, stats in final["metrics"].items():
            table.add_row(name, f"{stats['mean']:.4g}", f"{stats['std']:.2g}")
        console.print(table)
    for name, reason in result["failed_finals"].items():
        console.print(f"[bold red]{name} failed[/bold red], --resume tries again: {escape(reason)}", soft_wrap=True)
    print(f"figures: {result['figures']}")
    print(f"done in {result['seconds']:.0f} s; compare the trials: {result['ui']}")


if __name__ == "__main__":
    run(main)
