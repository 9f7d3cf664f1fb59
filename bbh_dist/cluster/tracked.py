"""Writes what becomes of jobs to the tracking store: one run per job, a child of the study's."""

from collections.abc import Mapping, Sequence
from typing import Any

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.config import Objective, to_yaml
from bbh_dist.tracking import Tracker
from bbh_dist.training import health


class TrackedJobs:
    """An observer with a run per job, live metrics per epoch and a status that ends true.

    At the end a run gets the best of each objective over its epochs as `best/METRIC`, and the tag `health`. The run is
    known by its job's name: a job that is run again goes on in it.
    """

    def __init__(self, tracker: Tracker, parent: str, tags: Mapping[str, str], objectives: Sequence[Objective]) -> None:
        self.tracker, self.parent, self.tags = tracker, parent, dict(tags)
        self.objectives = objectives
        self._best: dict[str, dict[str, float]] = {}
        self._history: dict[str, dict[float, dict[str, float]]] = {}
        self._open: set[str] = set()

    def started(self, job: Job) -> None:
        """Open the job's run."""
        tags = {**self.tags, "kind": "final" if job.final else "trial", "seed": job.experiment.seed}
        what: dict[str, Any] = {"params": job.params, "config": to_yaml(job.experiment)}
        self.tracker.start_run(job.name, parent=self.parent, tags=tags, **what)
        self._open.add(job.name)

    def reported(self, job: Job, metrics: dict[str, float]) -> None:
        """Queue the epoch's metrics."""
        # Objectives first: MLflow's comparison opens with the metric that was logged first.
        first = {each.metric: metrics[each.metric] for each in self.objectives if each.metric in metrics}
        self.tracker.log_epoch(job.name, {**first, **metrics})
        self._history.setdefault(job.name, {})[metrics["epoch"]] = metrics  # a restarted run tells its epochs again
        best = self._best.setdefault(job.name, {})
        for objective in self.objectives:
            if objective.metric in metrics:
                name, value = f"best/{objective.metric}", metrics[objective.metric]
                best[name] = objective.best([value, best.get(name, value)])

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Close the job's run; a pruned one is FINISHED with the tag `state`."""
        self.tracker.tag(job.name, "state", outcome.state)
        if outcome.reason is not None:
            self.tracker.tag(job.name, "reason", outcome.reason)
        self.tracker.tag_health(job.name, health(list(self._history.pop(job.name, {}).values()), outcome.reason))
        last = {**self._best.pop(job.name, {}), "time/run_seconds": outcome.seconds}
        self.tracker.log(job.name, last, int(outcome.metrics.get("epoch", 0)))
        self.tracker.end_run(job.name, "FAILED" if outcome.state == "FAIL" else "FINISHED")
        self._open.discard(job.name)

    def kill(self) -> None:
        """Close the runs that are still open as KILLED."""
        for name in self._open:
            self.tracker.end_run(name, "KILLED")
        self._open.clear()
