"""What runs inside a Tune trial: the training loop in the trial's own actor, or standing workers that it drives.

What goes wrong in training is reported as the trial's result with a reason, so that the actor, which has imported torch
and loaded the data, lives on for the next trial, and so do the workers; unless it is lost, or its GPU is to it.

A trial is built in its first `step`: Ray 2.60 starts those again that run, and a trial whose actor dies before, in
`reset_config`, has failed at once.
"""

import math
import time
import traceback
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import torch
from ray import tune

from bbh_dist.cluster.data_parallel import cached_task
from bbh_dist.cluster.reports import DETAILS, FAILURE, FINISHED
from bbh_dist.cluster.standing import StandingWorkers
from bbh_dist.config import Experiment
from bbh_dist.storage import CHECKPOINTS
from bbh_dist.training import Diverged, Trainer
from bbh_dist.training.checkpoints import CheckpointError

_SECONDS_OF_STEP = "time_this_iter_s"
"""Of a result: Tune takes this for the time of the step, and the sum for the trial's."""
_SECONDS_BETWEEN_REPORTS = 0.5
"""Or an epoch, where that takes longer. A report costs the driver milliseconds of the cores on which trials run."""
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
_MOST_TIME_FOR_CHECKPOINTS = 0.1
"""Share of the time."""


def failure(error: BaseException) -> str:
    """Why a run failed, in one line."""
    if isinstance(error, Diverged):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def gpu_is_lost() -> bool:
    """Whether CUDA refuses every further call of this process, as after an illegal access, not for want of memory."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class Checkpoints:
    """Checkpoints of a run of one worker: often enough that little is lost, seldom enough that they cost little."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        self.unreported: deque[dict[str, float]] = deque()
        """Epochs of the checkpoint from which the run goes on: a new driver knows none of them."""
        self._saved, self._cost = time.monotonic(), 0.0

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if self.trainer.resume(self.folder):
            self.unreported.extend(self.trainer.history)

    def save_if_due(self) -> None:
        """Write one where the last is half a minute old, and ten times as old as it took to write.

        Where it cannot be written the run goes on without.
        """
        started = time.monotonic()
        if started - self._saved >= max(_SECONDS_BETWEEN_CHECKPOINTS, self._cost / _MOST_TIME_FOR_CHECKPOINTS):
            try:
                self.trainer.save(self.folder)
            except (OSError, CheckpointError):  # a full disk, or a node that does not see the folder
                traceback.print_exc()
            self._saved = time.monotonic()
            self._cost = self._saved - started


class OneWorkerTrial(tune.Trainable):
    """The training loop in this actor, an epoch per step; reused for trial after trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial, which its first step builds."""
        self._job = config
        self._trainer: Trainer | None = None
        self._checkpoints: Checkpoints | None = None
        self._epoch_seconds = math.inf
        self._lost: Exception | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial and let go of the former one's memory."""
        self.setup(new_config)
        return True

    def train_buffered(self, *_: Any) -> list[dict[str, Any]]:
        """The results of steps that are reported together, at least one; Ray 2.60 gives its limits in a wrong order.

        Raises:
            RuntimeError: as `step`, after what had been done before was reported.
        """
        if self._lost is not None:
            raise self._lost
        until = time.monotonic() + _SECONDS_BETWEEN_REPORTS
        results = [self.train()]
        try:
            while self._can_wait(results[-1], until):
                results.append(self.train())
        except Exception as error:
            self._lost = error
        return results

    def _can_wait(self, result: dict[str, Any], until: float) -> bool:
        """Whether a result is reported with the next: no scheduler decides on it, and the next will be there soon."""
        trainer = self._trainer
        if trainer is None or result["done"] or result["epoch"] in self._job["rungs"]:
            return False
        if self._job["final"] and (trainer.done or result["epoch"] == trainer.experiment.epochs - 1):
            return False  # the measures on test data come with the last
        unreported = self._checkpoints is not None and len(self._checkpoints.unreported) > 0
        return unreported or time.monotonic() + self._epoch_seconds < until

    def step(self) -> dict[str, Any]:
        """One epoch; the last one of a final run is followed by the measures on test data.

        Raises:
            RuntimeError: the GPU is lost, for which Tune starts the trial again, in another process.
        """
        try:
            self._trainer = trainer = self._trainer or self._build()
            started = time.monotonic()  # a trial's time is what it trains
            result = self._epoch(trainer)
            if trainer.done and not (self._checkpoints and self._checkpoints.unreported):
                if self._job["final"]:
                    measures, curves = trainer.test()
                    result |= measures | {DETAILS: {"curves": curves, "history": trainer.history}}
                result |= {FINISHED: True, "done": True}
            return result | {_SECONDS_OF_STEP: time.monotonic() - started}
        except Exception as error:
            if gpu_is_lost():
                raise RuntimeError(f"the GPU is lost to this process: {failure(error)}") from error
            if not isinstance(error, Diverged):
                traceback.print_exc()
            return {FAILURE: failure(error), "done": True}

    def _build(self) -> Trainer:
        job = self._job
        experiment = Experiment.model_validate_json(job["experiment"])
        torch.set_num_threads(experiment.parallel.cpus_per_worker or 1)
        device = torch.device("cuda" if experiment.parallel.use_gpu else "cpu")
        trainer = Trainer(experiment, cached_task(experiment.task, job["data"]), device=device)
        if job["keeps_checkpoints"]:
            self._checkpoints = Checkpoints(trainer, Path(job["folder"]) / CHECKPOINTS)
            self._checkpoints.resume()
        return trainer

    def _epoch(self, trainer: Trainer) -> dict[str, Any]:
        """An epoch's metrics: of one that is in the checkpoint from which the run goes on, or of one that is run."""
        if self._checkpoints and self._checkpoints.unreported:
            return dict(self._checkpoints.unreported.popleft())
        started = time.monotonic()
        result = dict(trainer.run_epoch())
        if self._checkpoints:
            self._checkpoints.save_if_due()
        self._epoch_seconds = time.monotonic() - started
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial that is lost starts again, its epochs are seconds; longer runs have `Checkpoints`."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load."""


class SeveralWorkersTrial(tune.Trainable):
    """A run of several workers, an epoch per step; they and the actor, which holds no CPU, go from trial to trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial, which its first step orders from workers that it starts."""
        experiment = Experiment.model_validate_json(config["experiment"])
        folder = Path(config["folder"]).parent / f"group-{uuid.uuid4().hex[:8]}"
        self._workers = StandingWorkers(experiment.parallel, folder)
        self._to_order: dict[str, Any] | None = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial for these workers."""
        self._to_order = new_config
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch's metrics. Lost workers raise, for which Tune starts the trial again, with others."""
        if self._to_order is not None:
            job, self._to_order = self._to_order, None
            experiment = Experiment.model_validate_json(job["experiment"])
            self._workers.train(experiment, job["data"], Path(job["folder"]), job["final"])
        report = self._workers.next_report()
        return report | {"done": True} if FAILURE in report or FINISHED in report else report

    def train_buffered(self, *_: Any) -> list[dict[str, Any]]:
        """The next epoch's result, alone: when another one comes is up to the workers."""
        return [self.train()]

    def cleanup(self) -> None:
        """Send the workers home."""
        self._workers.end()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the workers' checkpoints lie in the run's folder."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load."""
