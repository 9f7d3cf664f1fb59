"""Why a trial was given up: told from what Tune has at hand, not from a copy that may not be there yet."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from bbh_dist.cluster.run import _Watch


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Failure # 1 (occurred at noon)\nThe actor died.\nFailure # 2 (occurred at one)\nIts node died.\n",
            "Its node died.",
        ),
        ("", "the trial's actor died"),
        (None, "the trial's actor died"),
        ("no file", "the trial's actor died"),
    ],
)
def test_a_trial_that_is_given_up_has_a_reason(tmp_path: Path, text: str | None, reason: str) -> None:
    ends: list[tuple[str, str | None]] = []
    trial: Any = Trial.__new__(Trial)  # a whole one needs a cluster that runs
    trial.storage, trial.config = SimpleNamespace(trial_driver_staging_path=str(tmp_path)), {"name": "trial-7"}
    trial.run_metadata = SimpleNamespace(error_filename=None if text is None else "error.txt")
    if text not in (None, "no file"):
        (tmp_path / "error.txt").write_text(text)
    bridge: Any = SimpleNamespace(end=lambda name, error: ends.append((name, error)))
    _Watch(bridge).on_trial_error(1, [trial], trial)
    assert ends == [("trial-7", reason)]
