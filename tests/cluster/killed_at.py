"""A command that is killed (SIGKILL) at a named point: `python killed_at.py MODULE POINT ARGUMENTS...`.

What runs is the real command in a real process; only the moment of its death is chosen.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbh_dist.command_line import run


def die(*arguments: Any, **settings: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_a_line(backend: Any, logs: list[dict[str, Any]]) -> None:
    """What is left of a record when a process, or its machine, dies while it writes: the lock and half a line."""
    backend._lock.acquire()
    with open(backend._file_path, "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x')
        file.flush()
        die()


# Point: where it is, the call of it at which the process dies, and what it does in its place or (None) just before.
POINTS: dict[str, tuple[str, str, str, int, Callable[..., None]]] = {
    "the folder is being made": ("bbh_dist.storage", "RunFolder", "write_record", 1, die),
    "the work has begun": ("bbh_dist.resumable", "Tracker", "start_run", 1, die),
    "the store is told of the study": ("bbh_dist.tracking.sender", "Sender", "_log", 1, die),
    "a trial is being suggested": ("optuna.trial", "Trial", "_suggest", 4, die),
    "a trial's run is being opened": ("bbh_dist.tracking.tracker", "Tracker", "start_run", 2, die),
    "the store is told of a trial": ("bbh_dist.tracking.sender", "Sender", "_log", 4, die),
    "a trial reports": ("bbh_dist.cluster.tracked", "TrackedJobs", "reported", 5, die),
    "a trial has ended for MLflow, not for Optuna": ("bbh_dist.cluster.optuna_study", "OptunaJobs", "ended", 2, die),
    "the journal is being written": (
        *("optuna.storages.journal", "JournalFileBackend", "append_logs", 20),
        half_a_line,
    ),
    "run.json is being written": ("pathlib", "Path", "replace", 2, die),
    "a final run has ended for MLflow, not in run.json": (
        *("bbh_dist.cluster.recorded", "RecordedJobs", "ended", 1),
        die,
    ),
    "results are logged and not stored": ("bbh_dist.cluster.study", "Study", "_result", 1, die),
    "a suite's results are logged and not stored": ("bbh_dist.cluster.suite", "SuiteRun", "_result", 1, die),
}


def kill_at(point: str) -> None:
    """Have this process die at a point."""
    module, owner, name, at, death = POINTS[point]
    place = getattr(importlib.import_module(module), owner)
    original, calls = getattr(place, name), 0

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        if name == "replace" and Path(arguments[1]).name != "run.json":
            return original(*arguments, **settings)
        calls += 1
        if calls == at:
            death(*arguments, **settings)
        return original(*arguments, **settings)

    setattr(place, name, counted)


if __name__ == "__main__":
    kill_at(sys.argv[2])
    run(importlib.import_module(f"bbh_dist.{sys.argv[1]}").main, sys.argv[3:])
