"""One training run over several workers by Ray Train: gloo on CPU, nccl on GPU, the same loop and the same objective.

Checkpoints lie in the run's folder, which all workers see, and are found again by a restarted group of workers.
"""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bbh_dist.config import DataError, Experiment
from bbh_dist.tasks import load_task
from bbh_dist.training import Diverged, Trainer, Workers

REPORTS = "reports.jsonl"
_PLACEMENT_GROUP = "placement_group"
_POLL_SECONDS = 0.5


def fit(
    experiment: Experiment, *, data: str, folder: Path, final: bool, restarts: int, callbacks: list[Any] | None = None
) -> dict[str, Any]:
    """Train over `parallel.workers` workers and return what the first reported last.

    Every report also stands, a line of JSON each, in `reports.jsonl` of the folder. A lost worker restarts the group
    from the newest checkpoint, `restarts` times at most.

    Raises:
        RuntimeError: the run was lost more often than that, or its workers could not be started.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import FailureConfig  # Ray's stubs name the old one

    parallel = experiment.parallel
    per_worker: dict[str, float] = {"CPU": parallel.cpus_per_worker or 1}
    if parallel.use_gpu:
        per_worker["GPU"] = 1
    folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _train,
        train_loop_config={
            "experiment": experiment.model_dump_json(),
            "data": data,
            "folder": str(folder),
            "final": final,
            "replay": bool(callbacks),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=parallel.workers, use_gpu=parallel.use_gpu, resources_per_worker=per_worker
        ),
        run_config=ray.train.RunConfig(
            # Ray Train's own state is never read again: its name is new each time, the checkpoints are ours.
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "ray"),
            callbacks=callbacks or [],
            failure_config=FailureConfig(max_failures=restarts, controller_failure_limit=0),
        ),
    )
    trainer.fit()
    return last_report(folder)


def fit_and_poll(experiment: Experiment, poll: Callable[[], None], **settings: Any) -> None:
    """`fit` in a process of the cluster, calling `poll` twice a second meanwhile.

    In this process `fit` would take over Ctrl-C in the main thread, and in another one outlive Ray's shutdown.

    Raises:
        RuntimeError: as `fit`.
    """
    import ray

    remote_fit: Any = ray.remote(num_cpus=0)(cast(Any, fit))  # Ray's stubs know no keyword arguments
    fitting = remote_fit.remote(experiment, **settings)
    while not ray.wait([fitting], timeout=_POLL_SECONDS)[0]:
        poll()
    ray.get(fitting)


def release(folder: Path) -> None:
    """Take a run's CPUs and GPUs back from its workers, which end with that; nothing where they have left already.

    A trial that is pruned does not end the Ray Train run inside it, which would go on and keep its CPUs.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    path = folder / _PLACEMENT_GROUP
    if path.exists():
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(path.read_text(encoding="utf-8")))))
        path.unlink()


def last_report(folder: Path) -> dict[str, Any]:
    """The last line of a run's reports, empty where there is none."""
    lines = _whole_lines(folder / REPORTS)
    return json.loads(lines[-1]) if lines else {}


def _whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end; a killed worker may have torn the last one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _train(config: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray.train.torch
    import ray.util
    import torch

    experiment = Experiment.model_validate_json(config["experiment"])
    torch.set_num_threads(experiment.parallel.cpus_per_worker or 1)
    device = ray.train.torch.get_device()
    workers, folder = Workers.of_process_group(experiment.shards, device.type), Path(config["folder"])
    group = ray.util.get_current_placement_group()
    if workers.is_first and group is not None:
        (folder / _PLACEMENT_GROUP).write_text(group.id.hex(), encoding="utf-8")
    try:
        task = load_task(experiment.task, Path(config["data"]))
        trainer = Trainer(experiment, task, workers, device)
        _resume(trainer, folder, config["replay"])
        while not trainer.done:
            metrics = trainer.run_epoch()
            if trainer.done or trainer.epoch % experiment.checkpoint_every_epochs == 0:
                trainer.save(folder / "checkpoints")
            if not trainer.done:
                _report(workers, folder, dict(metrics))
        _report(workers, folder, _result(trainer, config["final"]))
    except Exception as error:
        if not would_repeat(error):
            raise  # a lost peer, say: the group is restarted
        reason = str(error) if isinstance(error, Diverged) else f"{type(error).__name__}: {error}"
        _report(workers, folder, {"failure": reason})


def _resume(trainer: Trainer, folder: Path, replay: bool) -> None:
    """Go on from the newest checkpoint, if there is one, and complete the reports of the epochs before it.

    With `replay` they go to the callbacks as well: a new driver knows none of them, one that is not leaves them out.
    """
    import ray.train

    if not trainer.resume(folder / "checkpoints"):
        return
    if trainer.workers.is_first:
        _cut_torn_line(folder / REPORTS)
        _append(folder, _unreported(trainer.history, last_report(folder)))
    for metrics in trainer.history if replay else []:
        ray.train.report(dict(metrics))


def _report(workers: Workers, folder: Path, result: dict[str, Any]) -> None:
    import ray.train

    if workers.is_first:
        _append(folder, [result])
    ray.train.report(result)


def would_repeat(error: Exception) -> bool:
    """Whether the same run, started again, would fail in the same way: it diverged, or it does not fit in memory."""
    import torch

    return isinstance(error, Diverged | DataError | MemoryError | torch.OutOfMemoryError) or (
        "allocate memory" in str(error)
    )


def _append(folder: Path, reports: list[dict[str, Any]]) -> None:
    with open(folder / REPORTS, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(report) + "\n" for report in reports))


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        whole = "".join(line + "\n" for line in _whole_lines(path))
        os.truncate(path, len(whole.encode()))


def _unreported(history: list[dict[str, float]], last: dict[str, Any]) -> list[dict[str, Any]]:
    """Epochs of a checkpoint whose group of workers was lost before it reported them."""
    return [dict(metrics) for metrics in history if metrics["epoch"] > last.get("epoch", 0)]


def _result(trainer: Trainer, final: bool) -> dict[str, Any]:
    """The last epoch's metrics, with the measures on test data for a final run."""
    result: dict[str, Any] = dict(trainer.history[-1])
    if final:
        measures, curves = trainer.test()
        result |= measures | {"details": {"curves": curves, "history": trainer.history}}
    return result | {"finished": True}
