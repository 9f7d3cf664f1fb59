"""One tracked training run, in this process or over several workers: what `python -m bbh_dist.train` does."""

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bbh_dist.command_line import RunFailed, RunOptions
from bbh_dist.config import FINAL_METRICS, ConfigError, Experiment, Mistake, to_yaml
from bbh_dist.masking import masked
from bbh_dist.preflight import check_experiment
from bbh_dist.provenance import provenance
from bbh_dist.resumable import open_work, run_once
from bbh_dist.storage import CHECKPOINTS, RunFolder
from bbh_dist.tasks import data_directory
from bbh_dist.tracking import ui_command
from bbh_dist.training import Diverged, Trainer, health

_SHOWN = (
    "train/nll",
    "train/kl",
    "val/error",
    "val/rmse",
    "val/nll",
    "val/coverage",
    "val/entropy_auc",
    "val/outlier_entropy_auc",
)
_RESTARTS = 4
"""Of lost workers. A lost node may cost two: it is known to be dead only after some seconds, and counted on before."""
_EPOCH_METRICS = ("train/", "val/", "posterior/", "time/")


class TrainingRun:
    """A run's folder, its tracking run, and its way to the measures on test data."""

    def __init__(self, experiment: Experiment, options: RunOptions) -> None:
        self.experiment, self.options, self.console = experiment, options, options.console
        self.data = str(data_directory(options.data))
        self.task = check_experiment(experiment, self.data)
        self._history: dict[float, dict[str, float]] = {}
        self._check_resources()
        self.folder, self.tracker = open_work(
            options,
            config=to_yaml(experiment),
            tasks=[experiment.task],
            check=self._check_unchanged,
            experiment=options.stem,
        )
        self.name = self.folder.name

    def run(self) -> dict[str, Any]:
        """Train what is left, measure on test data, and return the results as JSON has them.

        A run that has ended is not repeated: its results are returned again.

        Raises:
            RunFailed: training diverged or its workers were lost.
        """
        config = to_yaml(self.experiment)
        return run_once(self.folder, self.tracker, self.name, self._run, config=config, describe=self._description)

    def _run(self) -> dict[str, Any]:
        last = self._train_here() if self.experiment.parallel.max_workers == 1 else self._train_over_workers()
        return self._finish(last)

    def _train_here(self) -> dict[str, Any]:
        parallel = self.experiment.parallel
        if parallel.cpus_per_worker is not None:
            torch.set_num_threads(parallel.cpus_per_worker)
        trainer = Trainer(self.experiment, self.task, device=torch.device("cuda" if parallel.use_gpu else "cpu"))
        checkpoints = self.folder.path / CHECKPOINTS
        if trainer.resume(checkpoints):
            self.console.print(f"going on after epoch {trainer.epoch}")
            for metrics in trainer.history:  # what a killed process had not sent; what had arrived is left out
                self._track(metrics)
        try:
            while not trainer.done:
                with _StepBar(self.console, f"epoch {trainer.epoch + 1}/{self.experiment.epochs}") as on_step:
                    metrics = trainer.run_epoch(on_step)
                if trainer.done or trainer.epoch % self.experiment.checkpoint_every_epochs == 0:
                    trainer.save(checkpoints)
                self._report(metrics)
            attacked = "".join(f", {name}" for name in self.experiment.evaluation.attacks.examples)
            self.console.print(f"measuring on test data, {self.experiment.evaluation.samples} weight samples{attacked}")
            measures, curves = trainer.test()
        except Diverged as error:
            raise self._failed(str(error)) from error
        return {**trainer.history[-1], **measures, "details": {"curves": curves, "history": trainer.history}}

    def _train_over_workers(self) -> dict[str, Any]:
        from bbh_dist.cluster.data_parallel import fit_and_poll
        from bbh_dist.cluster.reports import Reports
        from bbh_dist.cluster.session import cluster

        reports = Reports(self.folder.path)
        reports.forget_failures()
        for report in reports.unread():  # what stood there before a resume has been shown
            self._track(report)

        def show() -> None:
            for report in reports.unread():
                self._report(report)

        with cluster(self.options.address, self.options.verbose):
            try:
                fit_and_poll(self.experiment, show, data=self.data, folder=self.folder.path, restarts=_RESTARTS)
            except RuntimeError as error:
                raise RunFailed(f"the workers were lost: {' '.join(str(error).split())[:300]}") from error
        show()
        failure = reports.failure()
        if failure is not None:
            raise self._failed(failure)
        return reports.last()

    def _report(self, result: dict[str, Any]) -> None:
        """Show and track an epoch."""
        metrics = self._track(result)
        if not metrics:
            return
        shown = "  ".join(f"{name} {metrics[name]:.4g}" for name in _SHOWN if name in metrics)
        line = f"epoch {metrics['epoch']:.0f}/{self.experiment.epochs}  {shown}  {metrics['time/train_seconds']:.1f} s"
        workers = f"  {metrics['time/workers']:.0f} workers" if "time/workers" in metrics else ""
        self.console.print(line + workers, highlight=False, soft_wrap=True)

    def _track(self, result: dict[str, Any]) -> dict[str, float]:
        """Track an epoch and return its metrics; nothing for a report of a failure."""
        if "epoch" not in result:
            return {}
        # Measures on test data are logged once, at the end.
        metrics = {key: value for key, value in result.items() if key.startswith(("epoch", *_EPOCH_METRICS))}
        self._history[metrics["epoch"]] = metrics
        self.tracker.log_epoch(self.name, metrics)
        return metrics

    def _failed(self, reason: str) -> RunFailed:
        """The error of a run that failed in training, which says what its metrics had to say of that."""
        return RunFailed("; ".join(dict.fromkeys([reason, *self._tag_health(reason)])))

    def _tag_health(self, failure: str | None = None) -> list[str]:
        lines = health([self._history[epoch] for epoch in sorted(self._history)], failure)
        self.tracker.tag_health(self.name, lines)
        return lines

    def _finish(self, last: dict[str, Any]) -> dict[str, Any]:
        metrics = {key: value for key, value in last.items() if key.startswith((*FINAL_METRICS, *_EPOCH_METRICS))}
        from bbh_dist.report import draw_run, draw_training  # imported here: it makes matplotlib's cache folder

        details = last["details"]
        tests = {key: value for key, value in metrics.items() if key.startswith(FINAL_METRICS)}
        self.tracker.log(self.name, tests, int(last["epoch"]))
        figures = self.folder.path / "figures"
        for path in draw_run(details["curves"], figures) + draw_training(details["history"], figures):
            self.tracker.log_file(self.name, path, "figures")
        return {
            "run_id": self.name,
            "tracking_uri": masked(self.tracker.uri),
            "metrics": metrics,
            "seconds": metrics["time/train_seconds"],
            "step_ms": metrics["time/step_ms"],
            "health": self._tag_health(),
            "figures": str(figures),
            "ui": ui_command(self.tracker.uri, self.tracker.experiment_id),
        }

    def _description(self) -> dict[str, Any]:
        """Tags and parameters of the run."""
        experiment, method = self.experiment, self.experiment.method
        params: dict[str, object] = {
            "task": experiment.task,
            "network": experiment.network,
            "method": method.name,
            "epochs": experiment.epochs,
            "batch_size": experiment.batch_size,
            "optimizer.lr": experiment.optimizer.lr,
            "kl_weight": method.kl_weight,
            "workers": experiment.parallel.worker_text,
        }
        if method.name == "bbh":
            params |= {"generator": method.generator.kind, "divergence": method.divergence}
        return {"tags": {**provenance(), "kind": "train", "seed": experiment.seed}, "params": params}

    def _check_unchanged(self, folder: RunFolder) -> None:
        if folder.config() != to_yaml(self.experiment):
            rule = f"the experiment must be as the run began, see {folder.path / 'config.yaml'}"
            raise ConfigError(Mistake("--resume", rule))

    def _check_resources(self) -> None:
        parallel = self.experiment.parallel
        if parallel.use_gpu and parallel.max_workers == 1 and not torch.cuda.is_available():
            raise ConfigError(
                Mistake("does not fit", "this machine has no CUDA GPU", key="parallel.use_gpu", got="true")
            )
        if parallel.max_workers == 1 and self.options.address is not None:
            rule = "a run of one worker trains in this process; a cluster takes --workers 2 or more"
            raise ConfigError(Mistake("--address", rule, got=self.options.address))
        if parallel.max_workers > 1 or parallel.cpus_per_worker is not None:
            from bbh_dist.cluster.fits import check_fits

            check_fits([parallel], self.options, [self.experiment.task], self.data)


class _StepBar:
    """A bar over the steps of an epoch that vanishes with it; nothing where nobody watches."""

    def __init__(self, console: Console, label: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._progress.start()
        return lambda step, steps: self._progress.update(self._task, completed=step, total=steps)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
