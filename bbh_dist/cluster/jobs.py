"""What runs on the cluster: jobs, how they end, and who watches them."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bbh_dist.config import Experiment
from bbh_dist.storage import CHECKPOINTS

State = Literal["COMPLETE", "PRUNED", "FAIL"]


@dataclass(frozen=True)
class Job:
    """One training run to be done: a trial, or a final run that is also measured on test data."""

    name: str
    experiment: Experiment
    number: int
    """The trial's number in its study, or the row's in its suite."""
    params: dict[str, Any]
    """The keys that make it what it is, and their values."""
    final: bool = False
    keeps_checkpoints: bool = False
    """Whether a run of one worker that is cut off goes on where it was; for runs that take longer than a trial."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    state: State
    metrics: dict[str, float]
    """The last epoch's, and test measures of a final run."""
    seconds: float
    reason: str | None = None
    """Why it failed."""
    details: dict[str, Any] = field(default_factory=dict)
    """Curves of a final run."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """What was reported of each epoch."""


class JobSource(Protocol):
    """Proposes jobs one by one and is told how each ended before it proposes the next."""

    def next_job(self) -> Job:
        """The next job."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Take note of a job's end."""


class Observer(Protocol):
    """Watches jobs: the live table, the tracking store."""

    def started(self, job: Job) -> None:
        """A job was handed to the cluster."""

    def reported(self, job: Job, metrics: dict[str, float]) -> None:
        """A job finished an epoch."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job ended."""


def remove_checkpoints(folder: Path) -> None:
    """Remove those of a run's folder, as far as that can be done; for a run that is not to go on."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
