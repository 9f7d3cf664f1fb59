"""One training run over several workers by Ray Train: gloo on CPU, nccl on GPU, the same loop and the same objective.

Checkpoints lie in the run's folder, which all workers see, and are found again by a restarted group of workers.
"""

import json
import uuid
from pathlib import Path
from typing import Any

from bbh_dist.config import Experiment
from bbh_dist.tasks import load_task
from bbh_dist.training import Diverged, Trainer, Workers

REPORTS = "reports.jsonl"
_RESTARTS = 2


def fit(
    experiment: Experiment, *, data: str, folder: Path, final: bool, callbacks: list[Any] | None = None
) -> dict[str, Any]:
    """Train over `parallel.workers` workers and return what the first reported last.

    Every report also stands, a line of JSON each, in `reports.jsonl` of the folder. A lost worker restarts the group
    from the newest checkpoint, twice at most.

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
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=parallel.workers, use_gpu=parallel.use_gpu, resources_per_worker=per_worker
        ),
        run_config=ray.train.RunConfig(
            # Ray Train's own state is never read again: its name is new each time, the checkpoints are ours.
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "ray"),
            callbacks=callbacks or [],
            failure_config=FailureConfig(max_failures=_RESTARTS, controller_failure_limit=0),
        ),
    )
    trainer.fit()
    return last_report(folder)


def last_report(folder: Path) -> dict[str, Any]:
    """The last line of a run's reports, empty where there is none."""
    path = folder / REPORTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return json.loads(lines[-1]) if lines else {}


def _train(config: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    experiment = Experiment.model_validate_json(config["experiment"])
    torch.set_num_threads(experiment.parallel.cpus_per_worker or 1)
    workers, folder = Workers.of_process_group(), Path(config["folder"])

    def report(result: dict[str, Any]) -> None:
        if workers.is_first:
            _append(folder, [result])
        ray.train.report(result)

    try:
        task = load_task(experiment.task, Path(config["data"]))
        trainer = Trainer(experiment, task, workers, ray.train.torch.get_device())
        if trainer.resume(folder / "checkpoints") and workers.is_first:
            _append(folder, _unreported(trainer.history, last_report(folder)))
        while not trainer.done:
            metrics = trainer.run_epoch()
            if trainer.done or trainer.epoch % experiment.checkpoint_every_epochs == 0:
                trainer.save(folder / "checkpoints")
            if not trainer.done:
                report(dict(metrics))
        report(_result(trainer, config["final"]))
    except Diverged as error:
        report({"failure": str(error)})


def _append(folder: Path, reports: list[dict[str, Any]]) -> None:
    with open(folder / REPORTS, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(report) + "\n" for report in reports)


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
