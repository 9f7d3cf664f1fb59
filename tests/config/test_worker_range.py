"""`parallel.workers` as a range: what it means, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from bbh_dist.config import ConfigError, Experiment, load_experiment, to_yaml

MAP = "task: digits5\nmethod: {name: map}\n"
BBH = "task: digits5\nmethod: {name: bbh}\n"


def experiment(folder: Path, text: str, *assignments: str) -> Experiment:
    path = folder / "job.yaml"
    path.write_text(text)
    return load_experiment(path, assignments)


def test_a_range_is_from_min_to_max(tmp_path: Path) -> None:
    parallel = experiment(tmp_path, BBH + "parallel: {workers: {min: 2, max: 4}}").parallel
    assert (parallel.min_workers, parallel.max_workers, parallel.is_elastic) == (2, 4, True)
    assert parallel.worker_text == "2 to 4"


@pytest.mark.parametrize(("workers", "text"), [("3", "3"), ("{min: 3, max: 3}", "3")])
def test_a_number_does_not_change(tmp_path: Path, workers: str, text: str) -> None:
    parallel = experiment(tmp_path, MAP, f"parallel.workers={workers}").parallel
    assert (parallel.min_workers, parallel.max_workers, parallel.is_elastic) == (3, 3, False)
    assert parallel.worker_text == text


def test_one_worker_is_the_least(tmp_path: Path) -> None:
    assert experiment(tmp_path, MAP, "parallel.workers={max: 4}").parallel.min_workers == 1


@pytest.mark.parametrize("workers", ["3", "{min: 2, max: 4}"])
def test_what_is_stored_loads_again(tmp_path: Path, workers: str) -> None:
    found = experiment(tmp_path, MAP, f"parallel.workers={workers}")
    assert experiment(tmp_path, to_yaml(found)) == found


def test_all_workers_that_there_are_share_the_samples(tmp_path: Path) -> None:
    found = experiment(tmp_path, BBH, "parallel.workers={min: 2, max: 4}")
    assert [found.shards(workers) for workers in (2, 3, 4)] == [2, 3, 4]
    assert experiment(tmp_path, BBH, "parallel={workers: {min: 2, max: 4}, shards: 1}").shards(3) == 1


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("parallel.workers=0", "parallel.workers: must be greater than or equal to 1, got 0"),
        ("parallel.workers=many", 'parallel.workers: must be an integer, got "many"'),
        ("parallel.workers={min: 3, max: 2}", "parallel.workers.min: must be at most max, 2, got 3"),
        ("parallel.workers={min: 0, max: 2}", "parallel.workers.min: must be greater than or equal to 1, got 0"),
        ("parallel.workers={min: 2}", "parallel.workers.max: required key is missing"),
        ("parallel.workers={min: 2, mux: 4}", "parallel.workers.mux: unknown key (did you mean max?)"),
        ("parallel.workers={min: 1, max: 101}", "parallel.workers.max: must be at most batch_size, 100, got 101"),
        (
            "parallel={workers: {min: 2, max: 4}, shards: 2}",
            "parallel.shards: must be 1 or left out where parallel.workers is a range, got 2",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, setting: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(tmp_path, BBH, setting)
    lines: list[Any] = [str(mistake) for mistake in caught.value.mistakes]
    assert f"--set {setting}: {line}" in lines
