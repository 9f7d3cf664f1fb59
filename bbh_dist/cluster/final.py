"""The final runs of a study: its best trials, trained again with other seeds and measured on test data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.recorded import RecordedJobs
from bbh_dist.config import FINAL_METRICS, override
from bbh_dist.over_seeds import summarise
from bbh_dist.storage import RunFolder

if TYPE_CHECKING:
    from bbh_dist.cluster.optuna_study import OptunaJobs


class FinalJobs(RecordedJobs):
    """The final runs of a study that are still to be done."""

    def __init__(self, jobs: "OptunaJobs", chosen: Sequence[int], folder: RunFolder) -> None:
        super().__init__(folder, "final", [job for number in chosen for job in _final_runs(jobs, number)])

    def summary(self, number: int) -> dict[str, Any]:
        """Seeds that were completed, and mean, standard deviation and count of every final measure over them."""
        names = [job.name for job in self.jobs if job.number == number and self.is_complete(job.name)]
        done = [self.record[name] for name in names]
        measures = [name for name in (done[0]["metrics"] if done else {}) if name.startswith(FINAL_METRICS)]
        metrics = {name: asdict(summarise([run["metrics"][name] for run in done])) for name in measures}
        return {"trial": number, "seeds": [run["seed"] for run in done], "metrics": metrics}


def _final_runs(jobs: "OptunaJobs", number: int) -> list[Job]:
    experiment, params = jobs.experiment(number), jobs.params(number)
    return [
        Job(f"final-{number}-seed-{seed}", override(experiment, {"seed": seed}), number, params, final=True)
        for seed in jobs.space.final.seeds
    ]
