"""Data, splits and outliers. Small data lives in memory as tensors, on the device."""

import os
from pathlib import Path

from bbh_dist.config import DataError
from bbh_dist.tasks.digits import load_digits5
from bbh_dist.tasks.mnist import load_mnist
from bbh_dist.tasks.npz import load_npz
from bbh_dist.tasks.shifts import Picked, Rotation, Shifts
from bbh_dist.tasks.task import Split, Task

__all__ = ["DataError", "Picked", "Rotation", "Shifts", "Split", "Task", "data_directory", "load_task"]


def data_directory(given: str | None = None) -> Path:
    """Where data sets lie: the given directory, else the environment's BBH_DATA, else ./data."""
    return Path(given or os.environ.get("BBH_DATA") or "data").resolve()


def load_task(name: str, directory: Path) -> Task:
    """The task that an experiment names: digits5, mnist or npz:FILE.

    Raises:
        DataError: the data is missing or not what it should be.
    """
    if name == "digits5":
        return load_digits5()
    if name == "mnist":
        return load_mnist(directory)
    return load_npz(Path(name.removeprefix("npz:")))
