"""A group of Ray Train workers: as many as asked for and as there is room for, started again when it is lost."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bbh_dist.cluster.room import per_worker, wait_for_room
from bbh_dist.config import Parallel


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
    with as many workers as there is then room for. One that finds the room taken, by another run that waited as well,
    waits again. Ray Train's own state below `folder` is never read again: its name is new each time, checkpoints are
    ours. Nothing is started once `stopped` says so.

    Raises:
        RuntimeError: the group was lost more often than that, or there is no room for its workers.
    """
    from ray.train import TrainingFailedError

    folder.mkdir(parents=True, exist_ok=True)
    lost = 0
    while True:
        workers = wait_for_room(parallel, folder, stopped)
        if stopped():
            return
        try:
            return _fit(loop, config, parallel, workers, folder)
        except TrainingFailedError as error:
            lost += not _found_no_room(error)
            if lost > restarts:
                raise RuntimeError(" ".join(str(error).split())) from error


def _found_no_room(error: Exception) -> bool:
    """Whether workers could not be started as their resources were not to be had."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)


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
            num_workers=workers, use_gpu=parallel.use_gpu, resources_per_worker=per_worker(parallel)
        ),
        run_config=ray.train.RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "ray"),
            # Ray's elastic restarts look at nodes every 20 s only, and ask for the lost one's workers again.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
    )
    trainer.fit()
