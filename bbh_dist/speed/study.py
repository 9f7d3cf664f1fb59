"""A study as a command of its own in a temporary folder, and trainings like its trials' in a plain loop, in turns."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bbh_dist.command_line import RunFailed
from bbh_dist.config import Experiment, SearchSpace, load_space, override
from bbh_dist.speed.processes import Processes
from bbh_dist.speed.progress import Progress
from bbh_dist.speed.turns import Turns

_LR = "optimizer.lr"
_SPACE: dict[str, Any] = {
    "base": {
        "task": "digits5",
        "network": "mlp",
        "method": {"name": "bbh", "generator": {"hidden": [32, 64]}},
        "optimizer": {"schedule": "one_cycle"},
        "batch_size": 50,
    },
    "search": {_LR: {"loguniform": [1e-3, 1e-2]}},
    "objectives": [{"metric": "val/nll", "direction": "minimize"}],
    "scheduler": {"name": "none"},
    "final": {"top": 1, "seeds": [0]},
}
_STUDY, _LOOP = 0, 1
_SECONDS_TO_END = 60
_SECONDS_BETWEEN_LOOKS = 0.2

Spans = list[tuple[float, float]]
"""Starts and ends of trainings, as `time.time` has them."""


@dataclass(frozen=True)
class Trainings:
    """Training runs: how long all of them took together, and each of them, in their turns; in the order of starts."""

    wall_ms: float
    each_ms: list[float]


def run_both(trials: int, workers: int, epochs: int, concurrent: int, told: Progress) -> tuple[Trainings, Trainings]:
    """A study without pruning, and as many trainings in a loop, `concurrent` at once in processes that stand ready.

    They take turns. The study's time is that from the start of its first trial to the end of its last.

    Raises:
        RunFailed: one of them did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="bbh-") as name, ExitStack() as stack:
        folder = Path(name)
        space = _space(folder, trials, workers, epochs)
        groups = [stack.enter_context(Processes("loop", space.base, workers)) for _ in range(concurrent)]
        for group in groups:
            group.ready()
        study = stack.enter_context(_study(folder))
        while study.poll() is None and not list((folder / "runs").glob("study/ray/*")):  # until Tune begins
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        with Turns([[study.pid], [pid for group in groups for pid in group.pids]]) as turns:
            waiting = [override(space.base, {_LR: float(lr)}) for lr in np.geomspace(1e-3, 1e-2, trials)]
            looping = _start_loop(groups, waiting)
            started = time.monotonic()
            while study.poll() is None and not all(each.done() for each in looping):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                seconds = time.monotonic() - started
                told(f"{trials} trials of {workers} workers, {len(waiting)} still to do in the loop: {seconds:.0f} s")
        loop = [span for each in looping for span in each.result()]
        told(f"{trials} trials of {workers} workers, to the end of the study")
        _check_ended(study, folder)
        return _measured(turns, _STUDY, _spans_of_trials(space, folder)), _measured(turns, _LOOP, loop)


def _space(folder: Path, trials: int, workers: int, epochs: int) -> SearchSpace:
    base = _SPACE["base"] | {"epochs": epochs, "parallel": {"workers": workers}}
    path = folder / "space.yaml"
    path.write_text(json.dumps(_SPACE | {"base": base, "trials": trials}), encoding="utf-8")
    return load_space(str(path), [], [])


def _start_loop(groups: Sequence[Processes], waiting: list[Experiment]) -> "list[Future[Spans]]":
    """Have each group train until nothing waits."""
    pool = ThreadPoolExecutor(len(groups))
    futures = [pool.submit(_trained, group, waiting) for group in groups]
    pool.shutdown(wait=False)
    return futures


def _trained(group: Processes, waiting: list[Experiment]) -> Spans:
    done: Spans = []
    while True:
        try:
            experiment = waiting.pop()
        except IndexError:
            return done
        started = time.time()
        group.train(experiment)
        done.append((started, time.time()))


@contextmanager
def _study(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    arguments = ["--space", str(folder / "space.yaml"), "--name", "study", "--storage", str(folder / "runs")]
    arguments += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bbh_dist.tune", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on once: twice would end it at once
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _check_ended(study: "subprocess.Popen[bytes]", folder: Path) -> None:
    if study.wait():
        lines = (folder / "output.txt").read_text(encoding="utf-8").strip().splitlines()
        raise RunFailed(f"the study ended with exit code {study.returncode}: {' '.join(lines[-1:])}")


def _spans_of_trials(space: SearchSpace, folder: Path) -> Spans:
    from bbh_dist.cluster.optuna_study import OptunaJobs  # imported here: it takes a second

    trials = OptunaJobs(space, folder / "runs" / "study").study.trials
    found = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len(found) != space.trials:
        raise RunFailed(f"{space.trials - len(found)} of {space.trials} trials did not come to their end")
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in found]
    return [(start.timestamp(), end.timestamp()) for start, end in spans if start and end]


def _measured(turns: Turns, side: int, spans: Spans) -> Trainings:
    starts, ends = zip(*spans, strict=True)
    each = [1000 * turns.seconds(side, *span) for span in sorted(spans)]
    return Trainings(1000 * turns.seconds(side, min(starts), max(ends)), each)
