"""Writes what becomes of jobs to the tracking store: one run per job, a child of the study's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.config import Objective, to_yaml
from bbh_dist.tracking import Tracker
from bbh_dist.training import health


class TrackedJobs:
    """An observer with a run per job, live metrics per epoch and a status that ends true.

    `known` gives the run that a job already has from before a crash, `note` remembers a new one; one that was opened
    by a driver that was killed before it could note it is found by its name. At the end a run gets the best of each
    objective over its epochs as `best/METRIC`, and the tag `health`.
    """

    def __init__(
        self,
        tracker: Tracker,
        parent: str,
        tags: Mapping[str, str],
        objectives: Sequence[Objective],
        known: Callable[[Job], str | None],
        note: Callable[[Job, str], None],
    ) -> None:
        self.tracker, self.parent, self.tags = tracker, parent, dict(tags)
        self.objectives = objectives
        self.known, self.note = known, note
        self._found = tracker.children(parent)
        self._best: dict[str, dict[str, float]] = {}
        self._history: dict[str, dict[float, dict[str, float]]] = {}
        self.run_ids: dict[str, str] = {}
        self._open: set[str] = set()

    def started(self, job: Job) -> None:
        """Open the job's run."""
        run_id = self.known(job)
        if run_id is not None:
            self.tracker.reopen_run(run_id)
        else:
            run_id = self._open_run(job)
            self.note(job, run_id)
        self.run_ids[job.name] = run_id
        self._open.add(run_id)

    def _open_run(self, job: Job) -> str:
        what: dict[str, Any] = {"params": job.params, "config": to_yaml(job.experiment)}
        run_id = self._found.get(job.name)
        if run_id is None:
            tags = {**self.tags, "kind": "final" if job.final else "trial", "seed": job.experiment.seed}
            return self.tracker.start_run(job.name, parent=self.parent, tags=tags, **what)
        self.tracker.reopen_run(run_id)
        self.tracker.describe(run_id, **what)
        return run_id

    def reported(self, job: Job, metrics: dict[str, float]) -> None:
        """Queue the epoch's metrics."""
        # Objectives first: MLflow's comparison opens with the metric that was logged first.
        first = {each.metric: metrics[each.metric] for each in self.objectives if each.metric in metrics}
        self.tracker.log_epoch(self.run_ids[job.name], {**first, **metrics})
        self._history.setdefault(job.name, {})[metrics["epoch"]] = metrics  # a restarted run tells its epochs again
        best = self._best.setdefault(job.name, {})
        for objective in self.objectives:
            if objective.metric in metrics:
                name, value = f"best/{objective.metric}", metrics[objective.metric]
                best[name] = objective.best([value, best.get(name, value)])

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Close the job's run; a pruned one is FINISHED with the tag `state`."""
        run_id = self.run_ids[job.name]
        self.tracker.tag(run_id, "state", outcome.state)
        if outcome.reason is not None:
            self.tracker.tag(run_id, "reason", outcome.reason)
        self.tracker.tag_health(run_id, health(list(self._history.pop(job.name, {}).values()), outcome.reason))
        last = {**self._best.pop(job.name, {}), "time/run_seconds": outcome.seconds}
        self.tracker.log(run_id, last, int(outcome.metrics.get("epoch", 0)))
        self.tracker.end_run(run_id, "FAILED" if outcome.state == "FAIL" else "FINISHED")
        self._open.discard(run_id)

    def kill(self) -> None:
        """Close the runs that are still open as KILLED."""
        for run_id in self._open:
            self.tracker.end_run(run_id, "KILLED")
        self._open.clear()
