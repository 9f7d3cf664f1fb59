"""Measure speed: `python -m bbh_dist.speed step|shard|predict|search`."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bbh_dist.command_line import INTERRUPTED, Parser, keep_to, run
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.output import check_json, check_writable, write_json
from bbh_dist.speed import options

_COMMANDS = {
    "step": "time and memory of a training step: every method beside MAP, and what the machine allows at best",
    "shard": "several workers: sharded weight sampling beside DistributedDataParallel, time and bytes on the wire",
    "predict": "predictions with sampled weights beside the bare network's forward pass",
    "search": "what a study adds to its training runs",
}
_EXAMPLES = {
    "step": "python -m bbh_dist.speed step --threads 2 --json step.json",
    "shard": "python -m bbh_dist.speed shard --workers 1,2 --json shard.json",
    "predict": "python -m bbh_dist.speed predict --examples 1000 --json predict.json",
    "search": "python -m bbh_dist.speed search --trials 24 --json search.json",
}


def parser() -> Parser:
    """A parser with a subcommand for each measurement."""
    listed = "\n".join(f"  {name:<9}{what}" for name, what in _COMMANDS.items())
    result = Parser(
        "python -m bbh_dist.speed",
        f"Measure this machine's speed; nothing but the package is needed.\n\n{listed}",
        _EXAMPLES["step"],
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    for name, what in _COMMANDS.items():
        one = commands.add_parser(name, help=what, description=f"Measure {what}.", example=_EXAMPLES[name])
        options.add(one, name)
    return result


def main(arguments: Sequence[str]) -> None:
    """Parse, check, measure, and show: the table on the screen, the figure, the JSON."""
    given = parser().parse_args(arguments)
    options.check(given)
    keep_to(None)
    figure = Path(given.figure or f"runs/speed/speed-{given.command}.png")
    from bbh_dist.speed import report  # imported here: --help and mistakes need no torch

    check_json(given.json)
    if given.figure:
        if figure.suffix != ".png":
            raise ConfigError(Mistake("--figure", "must end in .png", got=given.figure))
        check_writable(given.figure, "--figure")
    measurement = importlib.import_module(f"bbh_dist.speed.{given.command}")
    try:
        result = measurement.measure(given)
    except KeyboardInterrupt:
        print("interrupted: nothing is kept", file=sys.stderr)
        sys.exit(INTERRUPTED)
    write_json(given.json, result)
    report.show(result, measurement.COLUMNS, measurement.GROUP)
    measurement.draw(result["rows"], figure)
    print(f"figure: {figure}")


if __name__ == "__main__":
    run(main)
