"""Search spaces: what `--set` reaches, conditions, and resolved files."""

from pathlib import Path

import pytest
from broken_spaces import VALID
from config_files import message, space

from bbh_dist.config import (
    MapMethod,
    load_space,
    to_yaml,
)
from bbh_dist.config.methods import METHODS
from bbh_dist.config.space import parents_first

TASKS = ("toy", "digits5", "mnist", "cifar5")


def test_defaults_of_a_space(tmp_path: Path) -> None:
    found = space(tmp_path, text=VALID[: VALID.index("scheduler")])
    assert (found.scheduler.name, found.scheduler.metric, found.scheduler.grace_epochs) == ("none", None, 5)
    assert (found.sampler.name, found.sampler.seed, found.sampler.startup_trials) == ("tpe", 0, 8)
    assert (found.trials, found.final.top, found.final.seeds) == (24, 1, [0, 1, 2])
    assert found.base.seed == 1000


def test_every_method_has_a_space_for_every_task() -> None:
    """Of the project; BbH on digits5 is the one that the README begins with."""
    folder = Path(__file__).parents[2] / "tune_spaces"
    named = {(method, task): f"{method}_{task}" for method in METHODS for task in TASKS} | {("bbh", "digits5"): "bbh"}
    assert sorted(path.stem for path in folder.iterdir()) == sorted(named.values())
    for (method, task), name in named.items():
        found = load_space(folder / f"{name}.yaml")
        assert (found.base.method.name, found.base.task, found.trials) == (method, task, 24)


def test_a_seed_of_trials_that_is_given_stands(tmp_path: Path) -> None:
    assert space(tmp_path, "seed=7").base.seed == 7


def test_a_scheduler_is_told_which_way_coverage_gets_better(tmp_path: Path) -> None:
    scheduler = "scheduler={name: asha, metric: val/coverage}"
    assert "scheduler.metric: must be an objective, which says" in message(space, tmp_path, scheduler)
    found = space(tmp_path, scheduler, "objectives=[{metric: val/coverage, direction: maximize}]")
    assert found.pruning_metric == "val/coverage"


@pytest.mark.parametrize("assignments", [(), ("search.network={choice: ['mlp:8', lenet]}", "final.top=3")])
def test_a_resolved_space_loads_again(tmp_path: Path, assignments: tuple[str, ...]) -> None:
    found = space(tmp_path, *assignments)
    assert space(tmp_path, text=to_yaml(found)) == found


def test_null_among_choices_survives_resolving(tmp_path: Path) -> None:
    found = space(tmp_path, "search.optimizer.gradient_clip.choice=[null, 1.0]")
    assert space(tmp_path, text=to_yaml(found)).search["optimizer.gradient_clip"].choice == [None, 1.0]


@pytest.mark.parametrize("assignment", ["epochs=7", "base.epochs=7"])
def test_the_experiments_keys_may_be_set_without_base(tmp_path: Path, assignment: str) -> None:
    assert space(tmp_path, assignment).base.epochs == 7


def test_a_whole_method_may_be_set(tmp_path: Path) -> None:
    found = space(tmp_path, "method={name: map}", "search={optimizer.lr: {loguniform: [1e-4, 1e-1]}}")
    assert found.base.method == MapMethod(name="map")


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("epohcs=3", "base.epohcs: unknown key (did you mean epochs?)"),
        ("trails=3", "trails: unknown key (did you mean trials?)"),
        ("wibble=3", "wibble: unknown key; known here: base, search"),
        ("search.epochs.int=[9, 1]", "search.epochs.int: low must be less than high, got [9, 1]"),
        ("search.epochs.integer=[1, 9]", "search.epochs.integer: must be a mapping of keys, got [1, 9]"),
        ("search.epochs.int=[0, 9]", "search.epochs: must be greater than or equal to 1, got 0"),
        ("search.epohcs.int=[1, 9]", "search.epohcs: the base experiment has no such key (did you mean epochs?)"),
    ],
)
def test_mistyped_assignments_of_a_space(tmp_path: Path, assignment: str, line: str) -> None:
    assert message(space, tmp_path, assignment).startswith(f"--set {assignment}: {line}")


@pytest.mark.parametrize(
    "assignment",
    [
        "search.epochs={int: [1, 9]}",
        "search.epochs.int=[1, 9]",
        "search.optimizer.gradient_clip={float: [1, 9]}",
        "search.optimizer.gradient_clip.loguniform=[1, 9]",
        "search.method.generator.noise_dim={logint: [1, 9]}",
        "search.method.generator.noise_dim.logint=[1, 9]",
    ],
)
def test_searched_keys_are_set_by_their_dotted_path(tmp_path: Path, assignment: str) -> None:
    found = space(tmp_path, assignment)
    key = assignment.removeprefix("search.").partition("=")[0].removesuffix(".int").removesuffix(".logint")
    assert found.search[key.removesuffix(".loguniform")].bounds == (1, 9)


def test_a_searched_key_of_the_file_is_replaced_or_extended(tmp_path: Path) -> None:
    found = space(
        tmp_path, "search.optimizer.lr.loguniform=[1, 2]", "search.optimizer.lr.when.method.divergence=gaussian"
    )
    assert found.search["optimizer.lr"].bounds == (1, 2)
    assert found.search["optimizer.lr"].when == {"method.divergence": "gaussian"}


def test_a_key_is_active_where_its_conditions_hold(tmp_path: Path) -> None:
    found = space(tmp_path)
    key = "method.semi_implicit.initial_stddev"
    assert found.active("optimizer.lr", {})
    assert found.active(key, {"method.divergence": "semi_implicit"})
    assert not found.active(key, {"method.divergence": "gaussian"})
    assert not found.active(key, {})


def test_a_condition_may_list_values_and_name_several_keys(tmp_path: Path) -> None:
    when = "{method.divergence: [semi_implicit, gaussian], epochs: 2}"
    found = space(tmp_path, "search.epochs={int: [1, 3]}", f"search.optimizer.lr.when={when}")
    assert found.active("optimizer.lr", {"method.divergence": "gaussian", "epochs": 2})
    assert not found.active("optimizer.lr", {"method.divergence": "gaussian", "epochs": 3})


def test_a_value_is_judged_in_the_company_of_its_conditions(tmp_path: Path) -> None:
    """One sample is too few for the base's `knn`, but it is searched only where the divergence is another."""
    found = space(
        tmp_path,
        "method.divergence=knn",
        "search.method.kl_samples={choice: [2, 5], when: {method.divergence: [gaussian, semi_implicit]}}",
        "search.method.divergence.choice=[knn, semi_implicit, gaussian]",
        "search.method.kl_samples.when.method.divergence=semi_implicit",
    )
    assert found.search["method.kl_samples"].choice == [2, 5]


@pytest.mark.parametrize(
    ("when", "line"),
    [
        ("{epochs: 9}", "`when` asks for a value that epochs never takes, got 9"),
        ("{epochs: two}", "`when` asks for a value that epochs never takes"),
        ("{epochs: []}", "`when` must give epochs at least one value, got []"),
        ("{optimizer.lr: 1}", "`when` conditions form a cycle"),
    ],
)
def test_conditions_that_never_hold_are_refused(tmp_path: Path, when: str, line: str) -> None:
    assignments = ("search.epochs.int=[1, 3]", f"search.optimizer.lr.when={when}")
    if "optimizer.lr" in when:
        assignments = ("search.optimizer.lr.choice=[1, 2]", "search.optimizer.lr.loguniform=null", assignments[1])
    assert line in message(space, tmp_path, *assignments)


def test_parents_come_first_and_the_files_order_decides_the_rest(tmp_path: Path) -> None:
    found = space(
        tmp_path,
        "search.optimizer.lr.when.epochs=2",
        "search.epochs={int: [1, 3], when: {method.divergence: gaussian}}",
    )
    assert next(iter(found.search)) == "optimizer.lr"
    order = parents_first(found.search)
    assert order == ["method.divergence", "method.semi_implicit.initial_stddev", "epochs", "optimizer.lr"]
