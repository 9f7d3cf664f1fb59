"""The settings of multiplicative normalizing flows."""

from pathlib import Path

import pytest

from bbh_dist.config import ConfigError, Experiment, MnfMethod, load_experiment, to_yaml

JOBS = Path(__file__).parents[2] / "jobs"
MNF = "task: digits5\nmethod: {name: mnf}\n"


def experiment(tmp_path: Path, *assignments: str, text: str = MNF) -> Experiment:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return load_experiment(path, assignments)


def mistake(tmp_path: Path, *assignments: str, text: str = MNF) -> str:
    with pytest.raises(ConfigError) as caught:
        experiment(tmp_path, *assignments, text=text)
    assert len(caught.value.mistakes) == 1, str(caught.value)
    return str(caught.value)


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    method = experiment(tmp_path).method
    assert isinstance(method, MnfMethod)
    assert (method.posterior_flows, method.posterior_hidden) == (2, 50)
    assert (method.auxiliary_flows, method.auxiliary_hidden) == (2, 100)
    assert (method.largest_stddev, method.initial_log_variance) == (0.5, -9.0)
    assert (method.initial_multiplier_stddev, method.estimator) == (0.1, "reparameterised")
    assert (method.likelihood_samples, method.samples_per_step, method.likelihood) == (1, 1, "mean_log")
    assert (method.prior_stddev, method.kl_weight, method.splits_samples) == (1.0, 1.0, False)


def test_likelihood_samples_are_all_that_a_step_draws(tmp_path: Path) -> None:
    assert experiment(tmp_path, "method.likelihood_samples=3").method.samples_per_step == 3


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("posterior_flows=-1", "must be greater than or equal to 0, got -1"),
        ("auxiliary_hidden=0", "must be greater than or equal to 1, got 0"),
        ("largest_stddev=0", "must be greater than 0, got 0"),
        ("estimator=flipout", "must be one of reparameterised, local, got"),
        ("initial_log_variance=-1", "must be at most -1.386, the log variance of largest_stddev: clipped"),
        ("flows=2", "unknown key"),
        ("generator={}", "only the bbh method has this key"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, assignment: str, line: str) -> None:
    key = assignment.partition("=")[0]
    assert f"method.{key}: {line}" in mistake(tmp_path, f"method.{assignment}")


def test_only_a_log_variance_above_the_clip_is_refused(tmp_path: Path) -> None:
    settings = ("method.largest_stddev=0.3", "method.initial_log_variance=-2.41")
    assert experiment(tmp_path, *settings).method.name == "mnf"
    assert "must be at most -2.408" in mistake(tmp_path, *settings[:1], "method.initial_log_variance=-2.4")


def test_there_is_nothing_for_shards(tmp_path: Path) -> None:
    assert experiment(tmp_path, "parallel.workers=2").shards(2) == 1
    line = mistake(tmp_path, "parallel.workers=2", "parallel.shards=2")
    assert "parallel.shards: must be 1 for mnf, which splits no weight samples, got 2" in line


def test_other_methods_refuse_its_keys(tmp_path: Path) -> None:
    line = mistake(tmp_path, text="task: digits5\nmethod: {name: map, posterior_flows: 2}\n")
    assert "method.posterior_flows: only the mnf method has this key" in line


@pytest.mark.parametrize("job", ["digits5_mnf", "mnist_mnf"])
def test_jobs_load_and_load_again_when_resolved(tmp_path: Path, job: str) -> None:
    found = load_experiment(JOBS / f"{job}.yaml")
    assert found.method.name == "mnf"
    assert experiment(tmp_path, text=to_yaml(found)) == found
