"""A group of Ray Train workers: as many as asked for and as there is room for, started again when it is lost."""

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from bbh_dist.config import Parallel

_POLL_SECONDS = 0.5
_SECONDS_TO_SETTLE = 5.0
"""What a lost group held is free again within these."""
_SECONDS_FOR_NODES = 600.0
"""How long a cluster that has become too small is waited for: a spot node's successor takes minutes."""


def fit_group(
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    parallel: Parallel,
    folder: Path,
    restarts: int,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run `loop(config)` in the workers that `parallel` asks for until it returns in all of them.

    A group that loses a worker or a node, by preemption too, is started again, `restarts` times at most, each time
    with as many workers as there is then room for. Ray Train's own state below `folder` is never read again: its name
    is new each time, checkpoints are ours. Nothing is started once `stopped` says so.

    Raises:
        RuntimeError: the group was lost more often than that, or there is no room for its workers.
    """
    from ray.train import TrainingFailedError

    folder.mkdir(parents=True, exist_ok=True)
    for lost in range(restarts + 1):
        workers = _wait_for_room(parallel, stopped)
        if stopped():
            return
        try:
            return _fit(loop, config, parallel, workers, folder)
        except TrainingFailedError as error:
            if lost == restarts:
                raise RuntimeError(" ".join(str(error).split())) from error


def room(
    per_worker: Mapping[str, float], nodes: list[Mapping[str, float]], available: Mapping[str, float]
) -> tuple[int, int]:
    """Workers that fit on nodes with these resources, and those for which there are enough `available` over all."""
    there = sum(int(min(node.get(name, 0) // need for name, need in per_worker.items())) for node in nodes)
    return there, min(there, int(min(available.get(name, 0) // need for name, need in per_worker.items())))


def _fit(
    loop: Callable[[dict[str, Any]], None], config: dict[str, Any], parallel: Parallel, workers: int, folder: Path
) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import FailureConfig  # Ray's stubs name the old one

    class WithoutDatasets(TorchTrainer):
        """Ray starts a process for its data sets, two or three seconds on one core, whether there are any or not."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks: list[Any] = cast(Any, super())._create_default_callbacks()  # Ray's stubs know the old trainer
            return [callback for callback in callbacks if not type(callback).__name__.startswith("Datasets")]

    trainer = WithoutDatasets(
        loop,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=parallel.use_gpu, resources_per_worker=_per_worker(parallel)
        ),
        run_config=ray.train.RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "ray"),
            # Ray's elastic restarts look at nodes every 20 s only, and ask for the lost one's workers again.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
    )
    trainer.fit()


def _per_worker(parallel: Parallel) -> dict[str, float]:
    need: dict[str, float] = {"CPU": parallel.cpus_per_worker or 1}
    return need | {"GPU": 1} if parallel.use_gpu else need


def _wait_for_room(parallel: Parallel, stopped: Callable[[], bool]) -> int:
    """How many workers can be started, once enough can; what other runs hold is waited for as long as it takes.

    Raises:
        RuntimeError: the cluster has been too small for ten minutes.
    """
    import ray

    began = large_enough = time.monotonic()
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        there, free = room(_per_worker(parallel), nodes, ray.available_resources())
        now = time.monotonic()
        settled = now - began > _SECONDS_TO_SETTLE
        if free >= parallel.max_workers or stopped() or (settled and free >= parallel.min_workers):
            return min(free, parallel.max_workers)
        if there >= parallel.min_workers:
            large_enough = now
        if now - large_enough > _SECONDS_FOR_NODES:
            raise RuntimeError(f"there is room for {there} workers, {parallel.min_workers} are needed")
        time.sleep(_POLL_SECONDS)
