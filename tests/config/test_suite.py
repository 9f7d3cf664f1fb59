"""Suites: layers over each other, and one placed line per mistake."""

from pathlib import Path

import pytest

from bbh_dist.config import (
    ConfigError,
    SuitePlan,
    load_space,
    load_suite,
    to_yaml,
    tuned_settings,
)

SUITE = """\
base:
  task: digits5
  optimizer: {lr: 1e-2, schedule: one_cycle}
  epochs: 30
rows:
  map: {method: {name: map}, epochs: 20}
  bbh-single:
    method: {name: bbh, generator: {kind: single, noise_dim: 3}}
  bbh-sliced: {method.name: bbh, method.generator.kind: sliced}
seeds: [3, 5]
quick: {epochs: 2, evaluation.samples: 7}
reference: bbh-single
published:
  source: someone 2017
  figures:
    map: {test/error: 0.8, time/train_seconds: 710}
"""
TUNED = """\
study: s
space: abc
task: digits5
method: bbh
trials: 24
trial: 3
objectives: [{metric: val/nll, direction: minimize, value: 0.1}]
settings: {optimizer.lr: 0.02, method.generator.noise_dim: 5}
"""


JOBS = Path(__file__).parents[2] / "jobs"
SUITES = [path for path in sorted(JOBS.glob("*.yaml")) if "\nrows:\n" in path.read_text()]


def suite(folder: Path, text: str = SUITE, *assignments: str, **options: object) -> SuitePlan:
    path = folder / "suite.yaml"
    path.write_text(text)
    return load_suite(path, assignments, **options)


def lines(folder: Path, text: str, *assignments: str, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        suite(folder, text, *assignments, **options)
    return [str(mistake).removeprefix(f"{folder}/") for mistake in caught.value.mistakes]


def test_rows_lie_over_the_base(tmp_path: Path) -> None:
    plan = suite(tmp_path)
    assert list(plan.rows) == plan.methods == ["map", "bbh-single", "bbh-sliced"]
    assert plan.seeds == [3, 5]
    assert [row.experiment.epochs for row in plan.rows.values()] == [20, 30, 30]
    assert {row.experiment.optimizer.lr for row in plan.rows.values()} == {0.01}
    single, sliced = (plan.rows[name].experiment.method for name in ("bbh-single", "bbh-sliced"))
    assert (single.generator.kind, single.generator.noise_dim) == ("single", 3)
    assert (sliced.generator.kind, sliced.generator.noise_dim) == ("sliced", 8)
    assert plan.rows["map"].changes == {"method.name": "map", "epochs": 20}
    assert (plan.quick, plan.departures) == (False, {})


def test_quick_lies_over_rows_and_assignments_over_quick(tmp_path: Path) -> None:
    plan = suite(tmp_path, SUITE, "evaluation.samples=9", "rows.map.optimizer.lr=0.5", "base.batch_size=50", quick=True)
    assert {row.experiment.epochs for row in plan.rows.values()} == {2}
    assert {row.experiment.evaluation.samples for row in plan.rows.values()} == {9}
    assert [row.experiment.optimizer.lr for row in plan.rows.values()] == [0.5, 0.01, 0.01]
    assert {row.experiment.batch_size for row in plan.rows.values()} == {50}
    # What tables have to name: what was run, not what the file calls quick.
    set_here = {"rows.map.optimizer.lr": 0.5, "base.batch_size": 50}
    assert (plan.quick, plan.departures) == (True, {"epochs": 2, "evaluation.samples": 9, **set_here})


def test_changed_keys_are_departures_and_workers_are_none(tmp_path: Path) -> None:
    assignments = ["epochs=3", "parallel.workers=2", "seeds=[1]", "reference=map", "quick.epochs=1"]
    assert suite(tmp_path, SUITE, *assignments).departures == {"epochs": 3}


def test_methods_choose_rows_in_the_suites_order(tmp_path: Path) -> None:
    assert suite(tmp_path, methods="bbh-sliced, map").methods == ["map", "bbh-sliced"]
    assert list(suite(tmp_path, methods="map").rows) == ["map", "bbh-single", "bbh-sliced"]


def test_tuned_settings_lie_over_their_row(tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text(TUNED)
    plan = suite(tmp_path, SUITE, f"settings.bbh-single={tmp_path / 'tuned.yaml'}")
    tuned, other = plan.rows["bbh-single"], plan.rows["bbh-sliced"]
    assert (tuned.experiment.optimizer.lr, tuned.experiment.method.generator.noise_dim) == (0.02, 5)
    assert tuned.tuned is not None
    assert tuned.tuned.trials == 24
    assert (other.experiment.optimizer.lr, other.tuned) == (0.01, None)


def test_a_searchs_settings_can_be_read_back(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "base: {task: digits5, method: {name: bbh}}\n"
        "search: {optimizer.lr: {loguniform: [1e-3, 1e-1]}, method.generator.hidden: {choice: [[8], [16, 32]]}}\n"
        "objectives: [{metric: val/nll, direction: minimize}]\n"
    )
    space = load_space(tmp_path / "space.yaml")
    found = {"optimizer.lr": 0.03, "method.generator.hidden": [16, 32]}
    tuned = tuned_settings(space, "study", 17, {"val/nll": 0.25}, found, 4)
    (tmp_path / "tuned.yaml").write_text(to_yaml(tuned))
    row = suite(tmp_path, SUITE, f"settings.bbh-sliced={tmp_path / 'tuned.yaml'}").rows["bbh-sliced"]
    assert row.tuned == tuned
    assert row.experiment.method.generator.hidden == (16, 32)
    assert row.experiment.optimizer.lr == 0.03
    other = load_space(tmp_path / "space.yaml", ["trials=99"])
    assert tuned_settings(other, "study", 17, {"val/nll": 0.25}, found, 4).space == tuned.space
    other = load_space(tmp_path / "space.yaml", ["epochs=3"])
    assert tuned_settings(other, "study", 17, {"val/nll": 0.25}, found, 4).space != tuned.space


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs: 30", "epochs: x", 'suite.yaml:4: base.epochs: must be an integer, got "x"'),
        ("epochs: 20", "epochs: 0", "suite.yaml:6: rows.map.epochs: must be greater than or equal to 1, got 0"),
        (
            "noise_dim: 3",
            "noise_dims: 3",
            "suite.yaml:8: rows.bbh-single.method.generator.noise_dims: unknown key (did you mean noise_dim?)",
        ),
        (
            "name: map}",
            "name: map, generator: {kind: single}}",
            "suite.yaml:6: rows.map.method.generator: only the bbh method has this key",
        ),
        ("method.name: bbh, ", "", "suite.yaml:9: rows.bbh-sliced.method.name: required key is missing"),
        ("map: {method: {name: map}, ", "map: {", "suite.yaml:6: rows.map.method: required key is missing"),
        ("  task: digits5\n", "", "suite.yaml:1: base.task: required key is missing"),
        ("epochs: 20", "task: mnist", "suite.yaml:6: rows.map.task: must be the same in all rows, set it in base"),
        ("epochs: 30", "seed: 3", "suite.yaml:4: base.seed: seeds are the suite's: seeds, or --seeds, got 3"),
        ("quick: {epochs: 2,", "quick: {epochs: -2,", "suite.yaml:11: quick.epochs: must be greater"),
        ("[3, 5]", "[]", "suite.yaml:10: seeds: must not be empty, got []"),
        ("[3, 5]", "[5, 5]", "suite.yaml:10: seeds: seeds must differ, got [5, 5]"),
        ("reference: bbh-single", "reference: bbh-singel", "suite.yaml:12: reference: must be a row of the suite"),
        ("    map: {test", "    mapp: {test", "suite.yaml:16: published.figures.mapp: must be a row of the suite"),
        ("test/error:", "test/errors:", "suite.yaml:16: published.figures.map: no final run reports this measure"),
        ("quick:", "quik:", "suite.yaml:11: quik: unknown key (did you mean quick?)"),
        ("  map: {method", "  m a p: {method", "suite.yaml:5: rows: names of rows must be letters"),
    ],
)
def test_one_mistake_makes_one_placed_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert SUITE.count(old) == 1
    (found,) = lines(tmp_path, SUITE.replace(old, new))
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("assignments", "options", "line"),
    [
        ([], {"methods": "map,bhh-single"}, '"bhh-single" (did you mean bbh-single?)'),
        ([], {"methods": "map,map"}, "--methods: rows must differ"),
        ([], {"methods": ""}, "--methods: must be rows of the suite"),
        (["epoch=3"], {}, "--set epoch=3: epoch: unknown key (did you mean epochs?)"),
        (["seed=3"], {}, "--set seed=3: seed: seeds are the suite's"),
        (["sedes=[1]"], {}, "--set sedes=[1]: sedes: unknown key (did you mean seeds?)"),
        (["settings.map=nothing.yaml"], {}, "--set settings.map=nothing.yaml: nothing.yaml: cannot be read"),
        (["settings.mop=nothing.yaml"], {}, "settings.mop: must be a row of the suite"),
    ],
)
def test_mistakes_of_the_command_line(
    tmp_path: Path, assignments: list[str], options: dict[str, object], line: str
) -> None:
    (found,) = lines(tmp_path, SUITE, *assignments, **options)
    assert line in found


def test_quick_needs_a_quick_setting(tmp_path: Path) -> None:
    (found,) = lines(tmp_path, SUITE.replace("quick: {epochs: 2, evaluation.samples: 7}\n", ""), quick=True)
    assert found.startswith("--quick: the suite has no quick setting")


@pytest.mark.parametrize(
    ("row", "old", "new", "line"),
    [
        ("map", "x", "x", "the settings are those of method bbh, the row is map"),
        ("bbh-single", "task: digits5", "task: mnist", "the settings are those of task mnist, the row is digits5"),
        (
            "bbh-sliced",
            "optimizer.lr: 0.02",
            "method.generator.kind: single",
            "the settings are those of method.generator.kind single, the row is sliced",
        ),
        ("bbh-single", "noise_dim: 5", "noise_dim: 0", "settings.method.generator.noise_dim: must be greater"),
        ("bbh-single", "trials: 24", "trials: 0", "trials: must be greater"),
        ("bbh-single", "space: abc\n", "", "space: required key is missing"),
    ],
)
def test_settings_of_something_else_are_refused(tmp_path: Path, row: str, old: str, new: str, line: str) -> None:
    (tmp_path / "tuned.yaml").write_text(TUNED.replace(old, new))
    found = lines(tmp_path, SUITE, f"settings.{row}={tmp_path / 'tuned.yaml'}")
    assert line in found[0]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_every_suite_that_comes_along_is_valid(path: Path) -> None:
    full, quick = load_suite(path), load_suite(path, quick=True)
    assert list(full.rows) == list(quick.rows)
    assert quick.quick
    assert all(full.rows[name].experiment != quick.rows[name].experiment for name in full.rows)
