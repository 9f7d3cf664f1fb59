"""Training runs over several workers by Ray Train: gloo on CPU, nccl on GPU, the same loop and the same objective.

Checkpoints and reports lie in a run's folder, which all workers see, and are found again by a restarted group.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from bbh_dist.cluster.group import fit_group
from bbh_dist.cluster.reports import DETAILS, FAILURE, FINISHED, Report, Reports
from bbh_dist.config import DataError, Experiment
from bbh_dist.storage import CHECKPOINTS
from bbh_dist.tasks import Task, load_task
from bbh_dist.training import Diverged, Trainer, Workers

_POLL_SECONDS = 0.5


def fit(experiment: Experiment, *, data: str, folder: Path, restarts: int) -> None:
    """Train over several workers and measure on test data; what comes of it stands in the folder's reports.

    Raises:
        RuntimeError: as `fit_group`.
    """
    config = {"experiment": experiment.model_dump_json(), "data": data, "folder": str(folder)}
    fit_group(_train, config, experiment.parallel, folder, restarts)


def fit_and_poll(experiment: Experiment, poll: Callable[[], None], **settings: Any) -> None:
    """`fit` in a process of the cluster, calling `poll` twice a second meanwhile.

    In this process `fit` would take over Ctrl-C in the main thread, and in another one outlive Ray's shutdown.

    Raises:
        RuntimeError: as `fit`.
    """
    import ray

    on_head = {"node:__internal_head__": 0.001}  # a node that is lost does not take it along
    remote_fit: Any = ray.remote(num_cpus=0, resources=on_head)(cast(Any, fit))  # Ray's stubs know no keyword arguments
    fitting = remote_fit.remote(experiment, **settings)
    while not ray.wait([fitting], timeout=_POLL_SECONDS)[0]:
        poll()
    ray.get(fitting)


@functools.lru_cache(maxsize=1)
def cached_task(name: str, directory: str) -> Task:
    """The task, loaded once per process."""
    return load_task(name, Path(directory))


@functools.lru_cache(maxsize=4)
def group_of_workers(shards: int) -> Workers:
    """The workers of this process's group, which are met once; to be called by all of them."""
    import ray.train.torch

    return Workers.of_process_group(shards, ray.train.torch.get_device().type)


def train_job(
    experiment: Experiment, data: str, folder: Path, final: bool, stopped: Callable[[], bool] = lambda: False
) -> None:
    """What each worker does for a run: resume, train, save, report; the measures on test data of a final one.

    It ends early, between epochs, when `stopped` says so; all workers have to be told the same.

    Raises:
        Exception: what a restart may mend, a lost peer say, and what has broken this worker alone; the reports then
            have a failure where the same run, started again, would fail in the same way.
    """
    torch.set_num_threads(experiment.parallel.cpus_per_worker or 1)
    workers, reports = group_of_workers(experiment.shards(dist.get_world_size())), Reports(folder)
    try:
        for report in _trained(experiment, data, folder, final, stopped):
            if workers.is_first:
                reports.append([report])
    except Diverged as error:  # in all workers at once
        if workers.is_first:
            reports.append([{FAILURE: str(error)}])
    except Exception as error:
        if would_repeat(error):
            reports.append([{FAILURE: f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}])
        raise


def _trained(
    experiment: Experiment, data: str, folder: Path, final: bool, stopped: Callable[[], bool]
) -> Iterator[Report]:
    """Reports of a run as it goes on; an epoch that is due for a checkpoint has one before it is reported."""
    import ray.train.torch

    workers, reports = group_of_workers(experiment.shards(dist.get_world_size())), Reports(folder)
    trainer = Trainer(experiment, cached_task(experiment.task, data), workers, ray.train.torch.get_device())
    resumed = trainer.resume(folder / CHECKPOINTS)
    if workers.is_first:
        reports.cut_torn_line()
    if resumed:
        # The last epoch of a run that is done is reported with its end, below.
        yield from _unreported(trainer.history[:-1] if trainer.done else trainer.history, reports.last())
    while not trainer.done and not stopped():
        metrics = trainer.run_epoch()
        if trainer.done or trainer.epoch % experiment.checkpoint_every_epochs == 0:
            trainer.save(folder / CHECKPOINTS)
        if not trainer.done:
            yield dict(metrics)
    if trainer.done:
        yield _result(trainer, final)


def would_repeat(error: Exception) -> bool:
    """Whether the same run, started again, would fail in the same way: it diverged, or it does not fit in memory."""
    return isinstance(error, Diverged | DataError | MemoryError | torch.OutOfMemoryError) or (
        "allocate memory" in str(error)
    )


def _train(config: dict[str, Any]) -> None:
    if Reports(Path(config["folder"])).failure() is not None:
        return  # the group is up again after a failure that would repeat
    experiment = Experiment.model_validate_json(config["experiment"])
    train_job(experiment, config["data"], Path(config["folder"]), final=True)


def _unreported(history: list[dict[str, float]], last: dict[str, Any]) -> list[dict[str, Any]]:
    """Epochs of a checkpoint whose group of workers was lost before it reported them."""
    return [dict(metrics) for metrics in history if metrics["epoch"] > last.get("epoch", 0)]


def _result(trainer: Trainer, final: bool) -> dict[str, Any]:
    """The last epoch's metrics, with the measures on test data for a final run."""
    result: dict[str, Any] = dict(trainer.history[-1])
    if final:
        measures, curves = trainer.test()
        result |= measures | {DETAILS: {"curves": curves, "history": trainer.history}}
    return result | {FINISHED: True}
