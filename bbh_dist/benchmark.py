"""Run a suite, methods x seeds, for its table: `python -m bbh_dist.benchmark --suite FILE`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from bbh_dist.command_line import RunOptions, keep_to, parser, path, run, seeds_flag, workers_flag
from bbh_dist.config import load_suite
from bbh_dist.output import check_json, write_json


def main(arguments: Sequence[str]) -> None:
    """Parse, check everything that can be checked before anything starts, run what is left, show the table."""
    flags_parser = parser(
        "benchmark",
        "Train every row of a suite with every seed, measure on test data, and make the table, figures and page.",
        "python -m bbh_dist.benchmark --suite jobs/digits5.yaml --seeds 3 --methods map,bbh-single",
    )
    flags_parser.add_argument("--suite", type=path, required=True, metavar="FILE", help="the suite (see jobs/)")
    flags_parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0..N-1 (seeds)")
    flags_parser.add_argument("--methods", metavar="A,B", help="only these rows; the table keeps those run before")
    flags_parser.add_argument("--quick", action="store_true", help="the suite's shorter setting; the tables say so")
    given = flags_parser.parse_args(arguments)
    flags = workers_flag(given.workers)
    flags += seeds_flag(given.seeds, "seeds")
    plan = load_suite(given.suite, given.assignments, flags, methods=given.methods, quick=given.quick)

    keep_to(given.storage)
    from bbh_dist.cluster.suite import SuiteRun  # imported here: --help and mistakes need no torch

    check_json(given.json)
    options = RunOptions.of(given, given.suite)
    console = options.console
    suite = SuiteRun(plan, options)
    runs = f"{len(plan.methods)} rows x {len(plan.seeds)} seeds"
    console.print(
        f"suite [bold]{suite.folder.name}[/bold]: {runs}, folder {escape(str(suite.folder.path))}", soft_wrap=True
    )
    result = suite.run()
    write_json(given.json, result)
    show(console, result)


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the table, what failed, the time, and where the page and the runs are."""
    from bbh_dist.report.table import Table, fitting

    found = fitting(Table(**result["table"]), console.width)
    screen = RichTable(title=f"{result['suite']} ({result['setting']})", title_justify="left")
    for number, name in enumerate(found.header):
        screen.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
    for row in found.rows:
        screen.add_row(*map(Text, row))
    console.print(screen)
    for note in found.notes:
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
    for name, reason in result["failed"].items():
        console.print(f"[bold red]{name} failed[/bold red], --resume tries again: {escape(reason)}", soft_wrap=True)
    print(f"page: {result['page']}")
    print(f"done in {result['seconds']:.0f} s; look at the runs: {result['ui']}")


if __name__ == "__main__":
    run(main)
