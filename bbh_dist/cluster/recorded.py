"""A fixed list of jobs and the record of them in a run's folder: what is complete is not proposed again."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.storage import RunFolder


class RecordedJobs:
    """The jobs of a list that are still to be done; each that ends is written to the folder's record at once."""

    def __init__(self, folder: RunFolder, key: str, jobs: Sequence[Job]) -> None:
        self.folder, self.key = folder, key
        self.jobs = list(jobs)
        self.record: dict[str, dict[str, Any]] = folder.record().get(key, {})
        self._waiting = deque(job for job in jobs if not self.is_complete(job.name))

    def __len__(self) -> int:
        return len(self._waiting)

    def is_complete(self, name: str) -> bool:
        """Whether a job came to its end."""
        return self.record.get(name, {}).get("state") == "COMPLETE"

    def next_job(self) -> Job:
        """The next run that has not been done."""
        return self._waiting.popleft()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Write down how a run ended."""
        self.record[job.name] = {
            "state": outcome.state,
            "seed": job.experiment.seed,
            "metrics": outcome.metrics,
            "seconds": outcome.seconds,
            "reason": outcome.reason,
            "details": outcome.details,
        }
        self.folder.write_record({**self.folder.record(), self.key: self.record})

    def failures(self) -> dict[str, str]:
        """The runs that did not come to their end, and why."""
        names = [job.name for job in self.jobs if not self.is_complete(job.name)]
        return {name: self.record.get(name, {}).get("reason") or "cut off" for name in names}
