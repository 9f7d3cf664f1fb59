"""Commands run in this process as their command lines are, for the tests beside this file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bbh_dist import benchmark, export, plan, predict, train, tune
from bbh_dist.command_line import run
from bbh_dist.speed import __main__ as speed
from bbh_dist.tracking import __main__ as tracking

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], list[str]]] = {
    "tune": (tune.main, ["--space", "space.yaml"]),
    "train": (train.main, ["--job", "job.yaml"]),
    "benchmark": (benchmark.main, ["--suite", "suite.yaml"]),
    "plan": (plan.main, ["--job", "job.yaml"]),
    "speed": (speed.main, ["step"]),
    "export": (export.main, ["--run", "run", "--output", "out"]),
    "tracking": (tracking.main, ["sync", "run"]),
    "predict": (predict.main, ["--run", "run", "--input", "in.npz", "--output", "out.npz"]),
}
"""Name to the command and arguments that are complete."""
FILES = {
    "job.yaml": "task: digits5\nmethod: {name: map}\nnetwork: mlp:5\nepochs: 1\n",
    "space.yaml": "base: {task: digits5, method: {name: map}, epochs: 1}\n"
    "search: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\nobjectives: [{metric: val/nll, direction: minimize}]\n",
    "suite.yaml": "base: {task: digits5, epochs: 1}\nrows: {map: {method.name: map}, bbh: {method.name: bbh}}\n",
}


def exit_code(command: str, *arguments: str, complete: bool = True) -> int:
    """How a command ends, with its own complete arguments in front or without."""
    main, own = COMMANDS[command]
    with pytest.raises(SystemExit) as caught:
        run(main, [*(own if complete else []), *arguments])
    return int(caught.value.code or 0)


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: files with their bytes, folders with None."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}
