"""Jobs through Ray Tune: who proposes, who runs and who watches meet in one narrow place."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher

from bbh_dist.cluster.jobs import Job, JobSource, Observer, Outcome, remove_checkpoints
from bbh_dist.cluster.reports import DETAILS, FAILURE, FINISHED
from bbh_dist.cluster.trainables import OneWorkerTrial, SeveralWorkersTrial
from bbh_dist.config import FINAL_METRICS, Parallel, SearchSpace

_RESTARTS = 2
_PREFIXES = ("train/", "val/", "posterior/", "time/", *FINAL_METRICS)
# The driver of a run with several workers holds a crumb of the head node and no CPU: even 0.01 CPU would keep two
# one-CPU workers off a two-core machine for ever.
_DRIVER = {"CPU": 0.0, "node:__internal_head__": 0.001}


class _Proposals(Searcher):
    """Hands jobs to Tune. How they end is told by `_Watch`, which knows the trial's status."""

    def __init__(self, bridge: "_Bridge") -> None:
        super().__init__(metric="epoch", mode="max")
        self.bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next job as a trial's configuration."""
        return self.bridge.propose()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_Watch` is told at the same time and knows more."""


class _Watch(tune.Callback):
    """Tells the bridge what Tune sees."""

    def __init__(self, bridge: "_Bridge") -> None:
        self.bridge = bridge

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        """An epoch ended, or the run did."""
        self.bridge.result(trial.config["name"], result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The run ended, or the scheduler stopped it."""
        self.bridge.end(trial.config["name"], None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The actor died, more often than it is restarted."""
        self.bridge.end(trial.config["name"], _reason(trial))


@dataclass
class _Running:
    """A job that runs, and what it has reported."""

    job: Job
    started: float
    last: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)


class _Bridge:
    """Keeps the jobs that run and passes on what becomes of them."""

    def __init__(
        self, source: JobSource, observers: Sequence[Observer], rungs: Sequence[int], data: str, folder: Path
    ) -> None:
        self.source, self.observers, self.rungs, self.data, self.folder = source, observers, rungs, data, folder
        self.running: dict[str, _Running] = {}
        self.over: list[Path] = []
        """Folders of runs that will not go on."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searcher and callbacks to restore a run from, which is never done here."""
        return {}

    def propose(self) -> dict[str, Any]:
        job = self.source.next_job()
        self.running[job.name] = _Running(job, time.monotonic())
        for observer in self.observers:
            observer.started(job)
        return {
            "name": job.name,
            "experiment": job.experiment.model_dump_json(),
            "final": job.final,
            "keeps_checkpoints": job.keeps_checkpoints,
            "rungs": self.rungs,
            "data": self.data,
            "folder": str(self.run_folder(job)),
        }

    def run_folder(self, job: Job) -> Path:
        """Where a run keeps its checkpoints, and one of several workers its reports, on a resume as well."""
        return self.folder / "workers" / job.name

    def result(self, name: str, result: dict[str, Any]) -> None:
        run, metrics = self.running[name], _metrics(result)
        run.last.update(result)
        if metrics:
            run.epochs.append(metrics)
            for observer in self.observers:
                observer.reported(run.job, metrics)

    def end(self, name: str, error: str | None) -> None:
        run = self.running.pop(name)
        job, outcome = run.job, _outcome(run, error)
        # The source last: a job whose end only it had not heard of is run again, one that only the others had not
        # heard of would stay open in the tracking store for ever.
        for observer in self.observers:
            observer.ended(job, outcome)
        self.source.ended(job, outcome)
        if outcome.state == "COMPLETE" or not job.final:  # a final run that failed goes on when it is resumed
            self.over.append(self.run_folder(job))
            if outcome.state != "PRUNED":  # else its workers may be writing one, and remove them with their next order
                remove_checkpoints(self.run_folder(job))


def run_jobs(
    source: JobSource,
    count: int,
    *,
    parallel: Parallel,
    concurrent: int,
    scheduler: "Asha | None",
    observers: Sequence[Observer],
    data: str,
    folder: Path,
) -> None:
    """Run `count` jobs of a source, `concurrent` at a time; returns when all have ended.

    A job that fails is one failed job. One whose actor or workers die is restarted twice, from its newest checkpoint; a
    trial of one worker has none and begins again. Checkpoints of runs that will not go on are removed.
    """
    bridge = _Bridge(source, observers, scheduler.rungs if scheduler else [], data, folder)
    trainable: Any = OneWorkerTrial
    resources: dict[str, float] = {"CPU": parallel.cpus_per_worker or 1, "GPU": int(parallel.use_gpu)}
    if parallel.max_workers > 1:
        trainable, resources = SeveralWorkersTrial, _DRIVER
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=_Proposals(bridge),
            scheduler=scheduler or FIFOScheduler(),
            num_samples=count,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}",
            storage_path=str(folder / "ray"),
            callbacks=[_Watch(bridge)],
            failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        for ended in bridge.over:  # also what workers wrote until they ended
            remove_checkpoints(ended)


class Asha(AsyncHyperBandScheduler):
    """ASHA as a space asks for it, on one metric also where several are optimised (Li et al. 2020).

    One bracket: more would draw from NumPy's global state.
    """

    def __init__(self, space: SearchSpace) -> None:
        metric, factor = space.pruning_metric, space.scheduler.reduction_factor
        directions = {objective.metric: objective.direction for objective in space.objectives}
        rung, most = min(space.scheduler.grace_epochs, space.base.epochs), _most_epochs(space)
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max" if directions.get(metric, default_direction(metric)) == "maximize" else "min",
            max_t=most + 1,  # past the end: there a run ends by itself and is complete
            grace_period=rung,
            reduction_factor=factor,
            brackets=1,
        )
        self.rungs: list[int] = []
        """Epochs at which it decides whether a trial goes on."""
        while rung <= most:
            self.rungs.append(rung)
            rung *= factor


def build_scheduler(space: SearchSpace, ended: Iterable[Mapping[int, float]] = ()) -> Asha | None:
    """The scheduler that the space asks for.

    `ended` are the metric's values by epoch of trials that have ended before: the next ones have to keep up with them.
    """
    if space.scheduler.name == "none":
        return None
    asha, metric = Asha(space), space.pruning_metric
    nobody: Any = None  # ASHA asks nothing of Tune
    for number, values in enumerate(ended):
        trial: Any = _Ended(f"ended-{number}")
        asha.on_trial_add(nobody, trial)
        for epoch in sorted(values):
            asha.on_trial_result(nobody, trial, {"epoch": epoch, metric: values[epoch]})
        asha.on_trial_remove(nobody, trial)
    return asha


class _Ended(NamedTuple):
    """As much of a trial as ASHA looks at."""

    trial_id: str


def _most_epochs(space: SearchSpace) -> int:
    searched = space.search.get("epochs")
    return max(searched.edge_values()) if searched is not None else space.base.epochs


def default_direction(metric: str) -> str | None:
    """Which way a validation measure gets better, if it is known."""
    from bbh_dist.config import MEASURES

    return MEASURES[metric.removeprefix("val/")].direction


def _reason(trial: Trial) -> str:
    """Why Tune gave a trial up, in one line.

    From the file that it has just written: `Trial.get_error` reads that file's copy in storage, which may lag behind.
    """
    error = Path(trial.error_file) if trial.error_file else None
    lines = error.read_text().strip().splitlines() if error and error.exists() else []
    return lines[-1][:300] if lines else "the trial's actor died"


def _trial_name(trial: Trial) -> str:
    return f"{trial.config['name']}-{trial.trial_id}"


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    """The numbers that our loop reports, without what Tune adds."""
    names = [key for key in result if key.startswith(_PREFIXES)]
    return {"epoch": result["epoch"], **{name: result[name] for name in names}} if names else {}


def _outcome(run: _Running, error: str | None) -> Outcome:
    last, metrics = run.last, _metrics(run.last)
    # Tune's time is the trial's own; the clock here has waited for the actor to start, too.
    seconds, reason = last.get("time_total_s", time.monotonic() - run.started), error or last.get(FAILURE)
    if reason is not None:
        return Outcome("FAIL", metrics, seconds, reason, epochs=run.epochs)
    if last.get(FINISHED):
        return Outcome("COMPLETE", metrics, seconds, details=last.get(DETAILS, {}), epochs=run.epochs)
    return Outcome("PRUNED", metrics, seconds, epochs=run.epochs)
