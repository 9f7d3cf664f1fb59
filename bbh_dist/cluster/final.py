"""The final runs of a study: its best trials, trained again with fresh seeds and measured on test data."""

import statistics
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.config import FINAL_METRICS, override
from bbh_dist.storage import RunFolder

if TYPE_CHECKING:
    from bbh_dist.cluster.optuna_study import OptunaJobs


class FinalJobs:
    """The final runs that are still to be done; each that ends is written to the study's record at once."""

    def __init__(self, jobs: "OptunaJobs", chosen: Sequence[int], folder: RunFolder) -> None:
        self.folder = folder
        self.record: dict[str, dict[str, Any]] = folder.record().get("final", {})
        self.names: dict[int, list[str]] = {}
        self._waiting: deque[Job] = deque()
        for number in chosen:
            experiment, params = jobs.experiment(number), jobs.params(number)
            for seed in jobs.space.final.seeds:
                job = Job(
                    f"final-{number}-seed-{seed}", override(experiment, {"seed": seed}), number, params, final=True
                )
                self.names.setdefault(number, []).append(job.name)
                if self.record.get(job.name, {}).get("state") != "COMPLETE":
                    self._waiting.append(job)

    def __len__(self) -> int:
        return len(self._waiting)

    def next_job(self) -> Job:
        """The next run that has not been done."""
        return self._waiting.popleft()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Write down how a run ended."""
        self.record[job.name] |= {
            "state": outcome.state,
            "seed": job.experiment.seed,
            "metrics": outcome.metrics,
            "seconds": outcome.seconds,
            "reason": outcome.reason,
            "details": outcome.details,
        }
        self._write()

    def failures(self) -> dict[str, str]:
        """The runs of this study's choice that did not come to their end, and why."""
        names = [name for names in self.names.values() for name in names]
        runs = {name: self.record.get(name, {}) for name in names}
        return {name: run.get("reason") or "cut off" for name, run in runs.items() if run.get("state") != "COMPLETE"}

    def known(self, job: Job) -> str | None:
        """The tracking run that a job already has."""
        return self.record.get(job.name, {}).get("run_id")

    def note(self, job: Job, run_id: str) -> None:
        """Remember a job's tracking run."""
        self.record[job.name] = {"run_id": run_id, "state": "RUNNING"}
        self._write()

    def summary(self, number: int) -> dict[str, Any]:
        """Seeds that were completed, and mean, standard deviation and count of every final measure over them.

        The standard deviation is the sample's (n - 1), 0 for one seed.
        """
        runs = [self.record.get(name, {}) for name in self.names.get(number, [])]
        done = [run for run in runs if run.get("state") == "COMPLETE"]
        names = [name for name in (done[0]["metrics"] if done else {}) if name.startswith(FINAL_METRICS)]
        metrics = {}
        for name in names:
            values = [run["metrics"][name] for run in done]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            metrics[name] = {"mean": statistics.fmean(values), "std": deviation, "n": len(values)}
        return {"trial": number, "seeds": [run["seed"] for run in done], "metrics": metrics}

    def _write(self) -> None:
        self.folder.write_record({**self.folder.record(), "final": self.record})
