"""The usual way to train on several workers: DistributedDataParallel around the plain method, for comparison.

Every worker holds the whole weight generator, draws all weight samples and computes the whole divergence; likelihoods
are shared as in ours. The objective and its gradient are the same, and so are the weights after a step.
"""

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bbh_dist.config import Experiment
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare, Workers
from bbh_dist.sharding.group import ring_bytes
from bbh_dist.speed import experiments
from bbh_dist.tasks import Task
from bbh_dist.training import Trainer
from bbh_dist.training.objective import objective


class DataParallel:
    """One worker of such a run, with torch's optimiser; the process group stands already."""

    def __init__(self, experiment: Experiment, task: Task, workers: Workers) -> None:
        self.trainer, self.workers, self.number = Trainer(experiment, task), workers, 0
        part = _WorkersPart(self.trainer.method, experiment, workers.size)
        self.model = DistributedDataParallel(part, gradient_as_bucket_view=True)
        self.optimizer = self.trainer.update.optimizer
        self.traffic = {"gradients": 0}
        self.gradient_bytes = sum(tensor.nbytes for tensor in self.model.parameters())

    def step(self) -> None:
        """Take the next step."""
        config = self.trainer.experiment.method
        samples = self.workers.samples(config.likelihood_samples, splittable=config.likelihood == "mean_log")
        batch = experiments.batch(self.trainer, self.number)
        seed, dtype = self.trainer.experiment.seed, self.trainer.dtype
        noise = Noise(seed, "train", self.number, range(config.samples_per_step), dtype=dtype)
        train, share = self.trainer.task.train, self.workers.examples(batch, samples)
        self.optimizer.zero_grad(set_to_none=True)
        sizes = {"batch": len(batch), "examples": len(train)}
        self.model(train.inputs[share], train.labels[share], noise, samples, sizes).backward()
        self.optimizer.step()
        self.traffic["gradients"] += ring_bytes(self.gradient_bytes, self.workers.size)
        self.number += 1


class _WorkersPart(nn.Module):
    """What a worker differentiates. The mean over workers, which DDP takes of gradients, is that of the objective."""

    def __init__(self, method: Method, experiment: Experiment, workers: int) -> None:
        super().__init__()
        self.method, self.config, self.workers = method, experiment.method, workers

    def forward(
        self, inputs: Tensor, labels: Tensor, noise: Noise, samples: SampleShare, sizes: dict[str, int]
    ) -> Tensor:
        """The worker's loss; `sizes` are those of the global batch and the training data."""
        drawn, weight = self.method.draw(noise), self.config.kl_weight / self.workers
        loss = objective(self.method, self.config, inputs, labels, drawn, samples, kl_weight=weight, **sizes)
        return self.workers * loss.part
