"""The contestant by DistributedDataParallel takes the very steps that ours takes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from bbh_dist.config import Experiment
from bbh_dist.sharding import Workers
from bbh_dist.speed import ddp, experiments
from bbh_dist.speed.worker import Sharded
from bbh_dist.training import Trainer


def experiment(*, factored: bool) -> Experiment:
    found = experiments.experiment("bbh-layerwise", network="mlp:3", hidden="4", batch_size=11, likelihood_samples=2)
    optimizer = found.optimizer.model_dump() | {"factored": factored}
    return Experiment.model_validate(found.model_dump() | {"optimizer": optimizer, "precision": "float64"})


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Workers]:
    dist.init_process_group("gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1)
    yield Workers.of_process_group()
    dist.destroy_process_group()


def test_one_worker_takes_our_steps(group: Workers) -> None:
    task = experiments.task()
    ours = Sharded(Trainer(experiment(factored=True), task))
    theirs = ddp.DataParallel(experiment(factored=False), task, group)
    for _ in range(3):
        ours.step()
        theirs.step()
    expected = ours.trainer.method.state_dict()
    start = Trainer(experiment(factored=True), task).method.state_dict()
    for name, value in theirs.trainer.method.state_dict().items():
        assert_close(value, expected[name], rtol=1e-9, atol=1e-12)
        assert not (value == start[name]).all(), name


@pytest.mark.parametrize("workers", [2, 3])
def test_the_mean_of_the_workers_losses_is_the_objective(workers: int) -> None:
    """What DDP takes the mean of, without a group: its workers one after another."""
    trainer = Trainer(experiment(factored=False), experiments.task())
    batch = experiments.batch(trainer, 0)

    def losses(count: int) -> list[Tensor]:
        return [
            ddp.worker_loss(trainer, ddp.WorkersPart(trainer, count), Workers(rank, count), batch, 0)
            for rank in range(count)
        ]

    (whole,) = losses(1)
    assert_close(sum(losses(workers)) / workers, whole, rtol=1e-10, atol=0)
