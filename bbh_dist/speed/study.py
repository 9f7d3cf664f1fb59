"""A study as a command of its own in a temporary folder, and its trainings again in a plain loop."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbh_dist.command_line import RunFailed
from bbh_dist.config import Experiment, SearchSpace, load_space
from bbh_dist.speed.processes import Processes
from bbh_dist.speed.progress import Progress

_SPACE: dict[str, Any] = {
    "base": {
        "task": "digits5",
        "network": "mlp",
        "method": {"name": "bbh", "generator": {"hidden": [32, 64]}},
        "optimizer": {"schedule": "one_cycle"},
        "batch_size": 50,
    },
    "search": {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}},
    "objectives": [{"metric": "val/nll", "direction": "minimize"}],
    "scheduler": {"name": "none"},
    "final": {"top": 1, "seeds": [0]},
}
_SECONDS_TO_END = 60


@dataclass(frozen=True)
class Trainings:
    """Training runs, how long all of them took together, and each of them."""

    experiments: list[Experiment]
    wall_ms: float
    each_ms: list[float]


def run_study(trials: int, workers: int, epochs: int, told: Progress) -> Trainings:
    """A study without pruning: from the start of its first trial to the end of its last.

    Raises:
        RunFailed: it did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="bbh-") as name:
        folder = Path(name)
        space = folder / "space.yaml"
        base = _SPACE["base"] | {"epochs": epochs, "parallel": {"workers": workers}}
        space.write_text(json.dumps(_SPACE | {"base": base, "trials": trials}), encoding="utf-8")
        _tune(space, folder, lambda seconds: told(f"study of {trials} trials, {workers} workers each: {seconds:.0f} s"))
        return _times(load_space(str(space), [], []), folder / "runs" / "study")


def run_loop(experiments: Sequence[Experiment], concurrent: int) -> Trainings:
    """The same trainings, `concurrent` at once, in processes that stand ready."""
    workers = experiments[0].parallel.max_workers
    with ExitStack() as stack:
        groups = [stack.enter_context(Processes("loop", experiments[0], workers)) for _ in range(concurrent)]
        for group in groups:
            group.ready()
        waiting = list(experiments)[::-1]
        started = time.perf_counter()
        with ThreadPoolExecutor(concurrent) as pool:
            each = list(pool.map(lambda group: _trained(group, waiting), groups))
        wall_ms = 1000 * (time.perf_counter() - started)
    return Trainings(list(experiments), wall_ms, [ms for of_group in each for ms in of_group])


def _trained(group: Processes, waiting: list[Experiment]) -> list[float]:
    """Milliseconds of what a group has trained until none was left."""
    done: list[float] = []
    while True:
        try:
            experiment = waiting.pop()
        except IndexError:
            return done
        done.append(group.train(experiment))


def _tune(space: Path, folder: Path, told: Any) -> None:
    arguments = ["--space", str(space), "--name", "study", "--storage", str(folder / "runs")]
    arguments += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bbh_dist.tune", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on once: twice would end it at once
        )
        started = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.5)
                told(time.monotonic() - started)
        finally:
            _end(process)
    if process.returncode:
        lines = (folder / "output.txt").read_text(encoding="utf-8").strip().splitlines()
        raise RunFailed(f"the study ended with exit code {process.returncode}: {' '.join(lines[-1:])}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _times(space: SearchSpace, folder: Path) -> Trainings:
    from bbh_dist.cluster.optuna_study import OptunaJobs  # imported here: it takes a second

    jobs = OptunaJobs(space, folder)
    found = [trial for trial in jobs.study.trials if trial.state.name == "COMPLETE"]
    if len(found) != space.trials:
        raise RunFailed(f"{space.trials - len(found)} of {space.trials} trials did not come to their end")
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in found]
    starts, ends = [start for start, _ in spans if start], [end for _, end in spans if end]
    wall = max(ends) - min(starts)
    each = [1000 * (end - start).total_seconds() for start, end in zip(starts, ends, strict=True)]
    return Trainings([jobs.experiment(trial.number) for trial in found], 1000 * wall.total_seconds(), each)
