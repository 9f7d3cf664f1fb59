"""Trained runs, found again in their folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import ConfigError, Experiment, Mistake, load_experiment
from bbh_dist.evaluation import Prediction, RegressionPrediction
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.storage import RunFolder
from bbh_dist.tasks import load_task
from bbh_dist.tasks.inputs import network_inputs
from bbh_dist.tasks.own_files import OWN_FILES, check_own_files
from bbh_dist.training import Trainer
from bbh_dist.training.checkpoints import Checkpoint, CheckpointError, newest_checkpoint, open_checkpoint


def checkpoint_in(folder: Path) -> Checkpoint:
    """The checkpoint that a folder is, or the newest whole one in it or in its `checkpoints`.

    Raises:
        ConfigError: there is none, or the one that is named is damaged.
    """
    if (folder / "state.json").is_file():
        try:
            return open_checkpoint(folder, Workers())
        except CheckpointError as error:
            raise ConfigError(Mistake("--run", f"damaged checkpoint: {error}", got=str(folder))) from error
    inside = folder / "checkpoints"
    found = newest_checkpoint(inside if inside.is_dir() else folder, Workers())
    if found is None:
        raise ConfigError(Mistake("--run", "holds no whole checkpoint", got=str(folder)))
    return found


@dataclass(frozen=True)
class Trained:
    """A run's method with the weights of a checkpoint."""

    experiment: Experiment
    checkpoint: Checkpoint
    trainer: Trainer

    @classmethod
    def of(cls, folder: Path, data: Path) -> "Trained":
        """The trained method of a run's folder, of its checkpoints or of one checkpoint; its task's data are read too.

        Raises:
            ConfigError: the folder holds no configuration, no whole checkpoint, or one of other weights.
            DataError: the task's data are missing, damaged, or a file that was changed since the run began.
        """
        # As it is named and as it is: it may be `.` or a link, or lie in a folder that is one.
        places = [place for path in (folder, folder.resolve()) for place in (path, *path.parents[:2])]
        config = next((path for path in (place / "config.yaml" for place in places) if path.is_file()), None)
        if config is None:
            raise ConfigError(Mistake("--run", "holds no config.yaml of a run", got=str(folder)))
        experiment, checkpoint = load_experiment(config), checkpoint_in(folder)
        if config.with_name("run.json").is_file():
            check_own_files([experiment.task], RunFolder(config.parent).record().get(OWN_FILES, {}))
        on_gpu = experiment.parallel.use_gpu and torch.cuda.is_available()
        task = load_task(experiment.task, data)
        trainer = Trainer(experiment, task, device=torch.device("cuda" if on_gpu else "cpu"))
        try:
            checkpoint.read({f"method.{name}": value for name, value in trainer.method.state_dict().items()})
        except CheckpointError as error:
            rule = f"does not hold the weights that {config} describes: {error}"
            raise ConfigError(Mistake("--run", rule, got=str(checkpoint.path))) from error
        return cls(experiment, checkpoint, trainer)

    def inputs(self, file: Path, array: np.ndarray) -> Tensor:
        """The network's inputs (N, ...) of an array as it was read.

        Raises:
            DataError: it is not of this run's task.
        """
        inputs = network_inputs(self.experiment.task, file, array)
        return inputs.to(self.trainer.device, self.trainer.dtype)

    def predict(self, inputs: Tensor, samples: int) -> Prediction | RegressionPrediction:
        """The prediction for inputs (N, ...) under the weight samples of the run's test.

        All at once: what an input gets may depend on its place (masks of dropout) or its block (batch statistics).
        """
        trainer = self.trainer
        seed, epoch = self.experiment.seed, self.checkpoint.epoch
        noise = Noise(seed, "test", epoch, range(samples), trainer.device, trainer.dtype)
        found: Prediction | RegressionPrediction = trainer.evaluator.predict(
            trainer.method, inputs, noise, trainer.workers
        )
        return found
