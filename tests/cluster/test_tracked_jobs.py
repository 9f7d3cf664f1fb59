from typing import Any

import pytest

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.cluster.tracked import TrackedJobs
from bbh_dist.config import Experiment


class Recorder:
    """Takes what a tracker is told."""

    def __init__(self) -> None:
        self.health: dict[str, list[str]] = {}

    def tag_health(self, name: str, lines: list[str]) -> None:
        self.health[name] = list(lines)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **settings: None


@pytest.mark.parametrize(
    ("kl", "reason", "start"),
    [
        (5.0, None, None),
        (-5.0, None, "the KL estimate was negative in 1 of 2 epochs"),
        (5.0, "loss is not finite by step 3 of epoch 3", "loss is not finite"),
        (5.0, "the trial's actor died", None),
    ],
)
def test_a_trial_is_tagged_with_its_own_health(kl: float, reason: str | None, start: str | None) -> None:
    recorder = Recorder()
    tracked = TrackedJobs(recorder, "parent", {}, [])  # type: ignore[arg-type]
    experiment = Experiment.model_validate({"task": "digits5", "method": {"name": "map"}})
    jobs = [Job(name, experiment, number, {}) for number, name in enumerate(("trial-0", "trial-1"))]
    for job in jobs:
        tracked.started(job)
    tracked.reported(jobs[0], {"epoch": 1, "train/kl": kl})
    tracked.reported(jobs[1], {"epoch": 1, "train/kl": 5.0})
    tracked.reported(jobs[0], {"epoch": 2, "train/kl": 7.0})
    tracked.ended(jobs[0], Outcome("FAIL" if reason else "COMPLETE", {"epoch": 2}, 1.0, reason))
    tracked.ended(jobs[1], Outcome("PRUNED", {"epoch": 1}, 1.0))
    assert recorder.health["trial-1"] == []
    assert [line[: len(start or "")] for line in recorder.health["trial-0"]] == ([start] if start else [])
