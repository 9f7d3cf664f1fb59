"""What can be known to go wrong before anything is started."""

from pathlib import Path

from bbh_dist.config import MEASURES, ConfigError, Experiment, Mistake, SearchSpace, SuitePlan, measures_of, override
from bbh_dist.networks import build_network
from bbh_dist.private_folder import keep_torch_programs_private
from bbh_dist.tasks import Task, load_task


def check_experiment(experiment: Experiment, data: str, prefix: str = "") -> Task:
    """The experiment's task, loaded and found to suit it. `prefix` stands before the keys of mistakes.

    Raises:
        DataError: data is missing or damaged.
        ConfigError: the network does not take the inputs, a batch is larger than the training data, the last one of an
            epoch is too small for batch statistics, an attack or shift is asked for that the task has no images for, or
            steps are to be compiled and there is no safe folder for the programs.
    """
    task = load_task(experiment.task, Path(data))
    _check(experiment, task, prefix)
    return task


def _check(experiment: Experiment, task: Task, prefix: str) -> None:
    _check_suits(experiment, task, prefix)
    _check_evaluation(experiment, task, prefix)
    if experiment.parallel.compile:
        try:
            keep_torch_programs_private()
        except OSError as error:
            raise ConfigError(Mistake(f"{prefix}parallel.compile", str(error), got="true")) from error


def _check_suits(experiment: Experiment, task: Task, prefix: str) -> None:
    try:
        build_network(experiment.network, task.input_shape, task.outputs)
    except ValueError as error:
        raise ConfigError(Mistake(experiment.task, str(error), key=f"{prefix}network")) from error
    if len(task.train) < experiment.batch_size:
        rule = f"must be at most the {len(task.train)} training examples"
        raise ConfigError(Mistake(experiment.task, rule, key=f"{prefix}batch_size", got=str(experiment.batch_size)))
    if experiment.normalisation_kind != "group" and len(task.train) % experiment.batch_size == 1:
        rule = f"leaves a last batch of one of the {len(task.train)} training examples, which has no batch statistics"
        raise ConfigError(Mistake(experiment.task, rule, key=f"{prefix}batch_size", got=str(experiment.batch_size)))


def _check_evaluation(experiment: Experiment, task: Task, prefix: str) -> None:
    evaluation = experiment.evaluation
    for attack, examples in evaluation.attacks.examples.items():
        if task.pixel_range is None:
            rule = "must be 0: attacks need classes of images whose pixels have a known range, as those of bytes"
            key = f"{prefix}evaluation.attacks.{attack}_examples"
            raise ConfigError(Mistake(experiment.task, rule, key=key, got=str(examples)))
    if evaluation.shifts and task.shifts is None:
        rule = "must be false: no test images are chosen to be rotated and mixed"
        raise ConfigError(Mistake(experiment.task, rule, key=f"{prefix}evaluation.shifts", got="true"))
    if evaluation.shifts and task.shifts is not None:
        task.shifts.check(task.test.labels)


def check_space(space: SearchSpace, data: str) -> None:
    """See that the base experiment suits its task and that the task can give every objective.

    Raises:
        DataError: data is missing or damaged.
        ConfigError: as `check_experiment`, or the task does not emit an objective.
    """
    task = check_experiment(space.base, data, "base.")
    for key in ("network", "batch_size"):
        for value in space.search[key].edge_values() if key in space.search else []:
            _check_suits(override(space.base, {key: value}), task, "search.")
    emitted = [f"val/{name}" for name in measures_of(task.likelihood.kind, task.outliers_validation is not None)]
    asked = {f"objectives.{index}.metric": objective.metric for index, objective in enumerate(space.objectives)}
    if space.scheduler.metric is not None:
        asked["scheduler.metric"] = space.scheduler.metric
    for key, metric in asked.items():
        if metric not in emitted:
            raise ConfigError(Mistake(space.base.task, _missing_rule(space, metric, emitted), key=key, got=metric))


def check_fresh_seeds(space: SearchSpace) -> None:
    """See that no final run of a new study repeats a trial, which was chosen for what it reached.

    Raises:
        ConfigError: one would.
    """
    if space.base.seed in space.final.seeds:
        rule = (
            f"must not have {space.base.seed}, the seed of the trials (base.seed); give other ones, or leave that out"
        )
        raise ConfigError(Mistake("search space", rule, key="final.seeds", got=str(space.final.seeds)))


def _missing_rule(space: SearchSpace, metric: str, emitted: list[str]) -> str:
    """Why a task does not emit a metric."""
    if MEASURES[metric.removeprefix("val/")].needs_outliers and "val/error" in emitted:
        return f"{space.base.task} has no outliers to measure it on (x_outlier)"
    return f"must be one of {', '.join(emitted)}, which the task emits"


def check_suite(plan: SuitePlan, data: str) -> dict[str, Task]:
    """The task of every row, loaded once and found to suit it.

    Raises:
        DataError: data is missing or damaged.
        ConfigError: as `check_experiment`.
    """
    tasks: dict[str, Task] = {}
    for name, row in plan.rows.items():
        task = row.experiment.task
        if task not in tasks:
            tasks[task] = load_task(task, Path(data))
        _check(row.experiment, tasks[task], f"rows.{name}.")
    return {name: tasks[row.experiment.task] for name, row in plan.rows.items()}
