"""Data, splits, likelihoods and outliers. Small data lives in memory as tensors, on the device."""

import os
from pathlib import Path

from bbh_dist.config import DataError
from bbh_dist.config.paths import path_rule
from bbh_dist.tasks.augmentation import Augmentation
from bbh_dist.tasks.cifar5 import load_cifar5
from bbh_dist.tasks.digits import load_digits5
from bbh_dist.tasks.likelihood import Categorical, Gaussian, Likelihood
from bbh_dist.tasks.mnist import load_mnist
from bbh_dist.tasks.npz import load_npz
from bbh_dist.tasks.shifts import Picked, Rotation, Shifts
from bbh_dist.tasks.task import Curve, Split, Task
from bbh_dist.tasks.toy import load_toy

__all__ = [
    "Augmentation",
    "Categorical",
    "Curve",
    "DataError",
    "Gaussian",
    "Likelihood",
    "Picked",
    "Rotation",
    "Shifts",
    "Split",
    "Task",
    "data_directory",
    "load_task",
]


def data_directory(given: str | None = None) -> Path:
    """Where data sets lie: the given directory, else the environment's BBH_DATA, else ./data.

    Raises:
        DataError: BBH_DATA is no path.
    """
    if given is not None:
        return Path(given).resolve()
    named = os.environ.get("BBH_DATA") or "data"
    rule = path_rule(named)
    if rule is not None:
        raise DataError(f"BBH_DATA: {rule}")
    return Path(named).resolve()


def load_task(name: str, directory: Path) -> Task:
    """The task that an experiment names: toy, digits5, mnist, cifar5 or npz:FILE.

    Raises:
        DataError: the data is missing or not what it should be.
    """
    if name == "toy":
        return load_toy()
    if name == "digits5":
        return load_digits5()
    if name == "mnist":
        return load_mnist(directory)
    if name == "cifar5":
        return load_cifar5(directory)
    return load_npz(Path(name.removeprefix("npz:")))
