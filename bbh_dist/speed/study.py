"""A study as a command of its own in a temporary folder, and trainings like its trials' in a plain loop, in turns."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bbh_dist.command_line import RunFailed
from bbh_dist.config import Experiment, SearchSpace, load_space, override
from bbh_dist.speed.alternation import Alternation
from bbh_dist.speed.processes import Processes
from bbh_dist.speed.progress import Progress

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

_SEARCH_IS_OVER = "final runs, test data"
"""What a study says then."""

Spans = list[tuple[float, float]]
"""Starts and ends of trainings, as `time.time` has them."""


@dataclass(frozen=True)
class Trainings:
    """Milliseconds of a study's trials, all together and each, and of each training of a loop, in their turns.

    In the order of their starts.
    """

    study: float
    trials: list[float]
    loop: list[float]


def run_both(trials: int, workers: int, epochs: int, concurrent: int, told: Progress) -> Trainings:
    """A study without pruning, and trainings in a loop, `concurrent` at once in processes that stand ready.

    They take turns from the start of the study's first trial to the end of its last.

    Raises:
        RunFailed: a trial, or a process of the loop, did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="bbh-") as name:
        folder = Path(name)
        space = _space(folder, trials, workers, epochs)
        with ExitStack() as stack:
            groups = [stack.enter_context(Processes("loop", space.base, workers)) for _ in range(concurrent)]
            for group in groups:
                group.ready()
            study = stack.enter_context(_study(folder))
            told("the study's cluster starts")
            _wait(study, lambda: bool(list((folder / "runs").glob("study/ray/*"))))  # Tune begins
            _check(study, folder)
            with Alternation([[study.pid], [pid for group in groups for pid in group.pids]]) as turns:
                loop, started = _Loop(groups, space), time.monotonic()

                def over() -> bool:
                    seconds = time.monotonic() - started
                    told(f"{trials} trials of {workers} workers and {len(loop.spans)} in the loop: {seconds:.0f} s")
                    return loop.has_failed() or _SEARCH_IS_OVER in _output(folder)

                _wait(study, over)
            told("the study ends")
            _check(study, folder)
            found = loop.end()
        spans = _spans_of_trials(space, folder)
    return _measured(turns, spans, [span for span in found if span[1] < turns.end])


class _Loop:
    """Groups of processes that train one experiment of a space after another, until they are told to end."""

    def __init__(self, groups: Sequence[Processes], space: SearchSpace) -> None:
        self.spans: Spans = []
        self._over = threading.Event()
        experiments = itertools.cycle([override(space.base, {_LR: float(lr)}) for lr in np.geomspace(1e-3, 1e-2, 12)])
        self._pool = ThreadPoolExecutor(len(groups))
        self._futures = [self._pool.submit(self._train, group, experiments) for group in groups]

    def _train(self, group: Processes, experiments: Iterator[Experiment]) -> None:
        while not self._over.is_set():
            started = time.time()
            group.train(next(experiments))
            self.spans.append((started, time.time()))

    def has_failed(self) -> bool:
        """Whether a process is lost."""
        return any(future.done() for future in self._futures)

    def end(self) -> Spans:
        """Have what trains come to its end, and return all."""
        self._over.set()
        for future in self._futures:
            future.result()
        return self.spans


def _wait(study: "subprocess.Popen[bytes]", until: Callable[[], bool]) -> None:
    """Wait for something, or for the study's end."""
    while study.poll() is None and not until():
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _check(study: "subprocess.Popen[bytes]", folder: Path) -> None:
    if study.poll():
        last = _output(folder).strip().splitlines()[-1:]
        raise RunFailed(f"the study ended with exit code {study.returncode}: {' '.join(last)}")


def _output(folder: Path) -> str:
    return (folder / "output.txt").read_text(encoding="utf-8")


def _space(folder: Path, trials: int, workers: int, epochs: int) -> SearchSpace:
    base = _SPACE["base"] | {"epochs": epochs, "parallel": {"workers": workers}}
    path = folder / "space.yaml"
    path.write_text(json.dumps(_SPACE | {"base": base, "trials": trials}), encoding="utf-8")
    return load_space(str(path), [], [])


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


def _spans_of_trials(space: SearchSpace, folder: Path) -> Spans:
    from bbh_dist.cluster.optuna_study import OptunaJobs  # imported here: it takes a second

    trials = OptunaJobs(space, folder / "runs" / "study").study.trials
    found = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len(found) != space.trials:
        raise RunFailed(f"{space.trials - len(found)} of {space.trials} trials did not come to their end")
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in found]
    return [(start.timestamp(), end.timestamp()) for start, end in spans if start and end]


def _measured(turns: Alternation, trials: Spans, loop: Spans) -> Trainings:
    def milliseconds(side: int, spans: Spans) -> list[float]:
        return [1000 * turns.seconds(side, *span) for span in sorted(spans)]

    whole = (min(start for start, _ in trials), max(end for _, end in trials))
    return Trainings(milliseconds(_STUDY, [whole])[0], milliseconds(_STUDY, trials), milliseconds(_LOOP, loop))
