"""The usual way to train on several workers: DistributedDataParallel around the plain method, for comparison.

Every worker holds the whole weight generator, draws all weight samples and computes the whole divergence; likelihoods
are shared as in ours. The objective and its gradient are the same, and so are the weights after a step.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bbh_dist.config import Experiment
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare, Workers
from bbh_dist.sharding.group import ring_bytes
from bbh_dist.speed import experiments
from bbh_dist.tasks import Task
from bbh_dist.training import Trainer
from bbh_dist.training.objective import objective


class DataParallel:
    """One worker of such a run, with the optimiser for stored gradients; the process group stands already."""

    def __init__(self, experiment: Experiment, task: Task, workers: Workers) -> None:
        self.trainer, self.workers, self.number = Trainer(experiment, task), workers, 0
        self.model = DistributedDataParallel(WorkersPart(self.trainer, workers.size), gradient_as_bucket_view=True)
        self.optimizer = self.trainer.update.optimizer
        self.sent = 0
        self.gradient_bytes = sum(tensor.nbytes for tensor in self.model.parameters())

    @property
    def traffic(self) -> Mapping[str, int]:
        """Bytes sent so far, by the rule of a ring."""
        return {"gradients": self.sent} if self.workers.size > 1 else {}

    def step(self) -> None:
        """Take the next step."""
        self.optimizer.zero_grad()
        batch = experiments.batch(self.trainer, self.number)
        worker_loss(self.trainer, self.model, self.workers, batch, self.number).backward()
        self.optimizer.step()
        self.sent += ring_bytes(self.gradient_bytes, self.workers.size)
        self.number += 1


class WorkersPart(nn.Module):
    """What a worker differentiates. The mean over workers, which DDP takes of gradients, is that of the objective."""

    def __init__(self, trainer: Trainer, workers: int) -> None:
        super().__init__()
        self.method, self.config, self.workers = trainer.method, trainer.experiment.method, workers

    def forward(
        self, inputs: Tensor, labels: Tensor, noise: Noise, samples: SampleShare, sizes: dict[str, Any]
    ) -> Tensor:
        """The worker's loss; `sizes` are `first`, its place in the batch, and those of batch and training data."""
        drawn, weight = self.method.draw(noise), self.config.kl_weight / self.workers
        self.method.adapt(drawn)
        loss = objective(
            self.method,
            self.config,
            inputs,
            labels,
            drawn,
            samples,
            kl_weight=weight,
            **sizes,
        )
        return self.workers * loss.part


def worker_loss(trainer: Trainer, part: nn.Module, workers: Workers, batch: Tensor, number: int) -> Tensor:
    """A worker's loss in step `number`, of its share of a global batch of indices, with the samples that ours draws."""
    config, train = trainer.experiment.method, trainer.task.train
    samples = workers.samples(config.likelihood_samples, splittable=config.likelihood == "mean_log")
    own = workers.examples(len(batch), samples)
    share = batch[own.start : own.stop]
    noise = Noise(trainer.experiment.seed, "train", number, range(config.samples_per_step), dtype=trainer.dtype)
    sizes = {"first": own.start, "batch": len(batch), "examples": len(train)}
    loss: Tensor = part(train.inputs[share], train.labels[share], noise, samples, sizes)
    return loss
