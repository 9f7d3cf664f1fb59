"""A study that an older version began, whose trials had seed 0 as its final runs, goes on as it began."""

from pathlib import Path

import pytest

from bbh_dist.cluster.study import Study
from bbh_dist.config import ConfigError, SearchSpace, to_yaml
from bbh_dist.storage import RunFolder

SPACE = {
    "base": {"task": "digits5", "method": {"name": "map"}},
    "search": {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}},
    "objectives": [{"metric": "val/nll", "direction": "minimize"}],
}


def resumed(space: SearchSpace, stored: SearchSpace, folder: Path) -> SearchSpace:
    """What a study goes on with, of a space that is given and the one that is stored."""
    RunFolder(folder).create(to_yaml(stored), {})
    study = object.__new__(Study)
    study.space = space
    study._check_unchanged(RunFolder(folder))
    return study.space


def test_trials_keep_the_seed_that_they_had(tmp_path: Path) -> None:
    given = SearchSpace.model_validate(SPACE)
    for seed in (0, 1000):
        assert resumed(given, given.with_seed(seed), tmp_path) == given.with_seed(seed)
    with pytest.raises(ConfigError, match="--resume: base: must be as the study began"):
        resumed(given.with_seed(3), given, tmp_path)
