"""A search space: a base experiment, what varies, what is optimised, and how the best is re-run."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bbh_dist.config.errors import RuleError, nearest
from bbh_dist.config.experiment import Experiment
from bbh_dist.config.measures import MEASURES, Direction
from bbh_dist.config.model import Frozen, PositiveInt, Seeds

IntegerRange = Annotated[list[int], Field(min_length=2, max_length=2)]
NumberRange = Annotated[list[float], Field(min_length=2, max_length=2)]

SEARCH_SEED = 1000
"""Of a study's trials where `base.seed` is left out. `--seeds` gives final runs and suites smaller ones, so that none
of them repeats a run that was chosen for what it reached."""

_FIXED = ("task", "seed", "parallel")
"""Keys on which the study's data, final seeds and concurrency rest."""

_KINDS = ("choice", "int", "logint", "float", "loguniform")


class Parameter(Frozen):
    """How one dotted key of the experiment varies: exactly one kind, and when it does."""

    choice: list[Any] | None = None
    """Values to choose from."""
    int: IntegerRange | None = None
    """[low, high], both included, uniform."""
    logint: IntegerRange | None = None
    """[low, high], both included, uniform in the logarithm."""
    float: NumberRange | None = None
    """[low, high], uniform."""
    loguniform: NumberRange | None = None
    """[low, high], uniform in the logarithm."""
    when: dict[str, Any] | None = None
    """Other searched keys and the value, or list of values, for which this one is searched at all."""

    @model_validator(mode="after")
    def _is_one_sensible_range(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise RuleError(f"exactly one of {', '.join(_KINDS)} is needed", got=given)
        if self.kind == "choice":
            labels = self.labels
            if not labels:
                raise RuleError("must not be empty", key="choice", got=labels)
            if len(set(labels)) != len(labels):
                raise RuleError("choices must differ", key="choice", got=self.choice)
            return self
        low, high = self.bounds
        if low >= high:
            raise RuleError("low must be less than high", key=self.kind, got=[low, high])
        if self.kind.startswith("log") and low <= 0:
            raise RuleError("a logarithmic range must be positive", key=self.kind, got=[low, high])
        return self

    @property
    def kind(self) -> str:
        """The one kind that is given."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Low and high of a range."""
        low, high = getattr(self, self.kind)
        return low, high

    @property
    def labels(self) -> list[str]:
        """Each choice as text, how a sampler and a figure name it."""
        return [value if isinstance(value, str) else json.dumps(value) for value in self.choice or []]

    def takes(self, value: Any) -> bool:
        """Whether the value is a choice or lies in the range."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.bounds
        return isinstance(value, (int, float)) and low <= value <= high

    def edge_values(self) -> list[Any]:
        """All choices, or both bounds: if they make valid experiments, so does what lies between."""
        return list(self.choice) if self.choice is not None else list(self.bounds)


class Objective(Frozen):
    """A measure on validation data and which way is better."""

    metric: str
    """`val/` and the name of a measure."""
    direction: Direction
    """minimize or maximize."""

    def best(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return max(values) if self.direction == "maximize" else min(values)

    @field_validator("metric")
    @classmethod
    def _is_measured_on_validation_data(cls, metric: str) -> str:
        return _validation_metric(metric)


class Scheduler(Frozen):
    """Early pruning of weak trials."""

    name: Literal["asha", "none"] = "none"
    metric: str | None = None
    """Default: the first objective."""
    grace_epochs: PositiveInt = 5
    """Epochs that every trial is given."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Of this many trials at a rung, one goes on."""

    @field_validator("metric")
    @classmethod
    def _is_a_validation_measure(cls, metric: str | None) -> str | None:
        return None if metric is None else _validation_metric(metric)


class Sampler(Frozen):
    """How Optuna proposes configurations."""

    name: Literal["tpe", "nsga2", "random"] = "tpe"
    """TPE (multi-objective where several objectives stand), NSGA-II, or uniform."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    startup_trials: PositiveInt = 8
    """Uniform proposals before TPE models anything; the population of NSGA-II."""


class Final(Frozen):
    """The best trials, trained again with other seeds and measured on test data."""

    top: PositiveInt = 1
    """How many trials: the best, or those of the Pareto front that come nearest to the ideal point."""
    seeds: Seeds = Field(default=[0, 1, 2])


class SearchSpace(Frozen):
    """A study: base experiment, searched keys, objectives, and the re-runs of the best."""

    base: Experiment
    search: Annotated[dict[str, Parameter], Field(min_length=1)]
    objectives: Annotated[list[Objective], Field(min_length=1)]
    scheduler: Scheduler = Scheduler()
    sampler: Sampler = Sampler()
    trials: PositiveInt = 24
    final: Final = Final()

    @model_validator(mode="before")
    @classmethod
    def _trials_have_a_seed_of_their_own(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("base"), dict):
            return data | {"base": {"seed": SEARCH_SEED} | data["base"]}
        return data

    @model_validator(mode="after")
    def _scheduler_knows_what_is_better(self) -> Self:
        metric = self.pruning_metric
        is_objective = metric in [objective.metric for objective in self.objectives]
        if not is_objective and MEASURES[metric.removeprefix("val/")].direction is None:
            rule = "must be an objective, which says whether more or less of it is better"
            raise RuleError(rule, key="scheduler.metric", got=metric)
        return self

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.metric for objective in objectives]
        if len(set(names)) != len(names):
            raise RuleError("each metric may be an objective once", got=names)
        return objectives

    @field_validator("search")
    @classmethod
    def _conditions_can_be_met(cls, search: dict[str, Parameter]) -> dict[str, Parameter]:
        for key, parameter in search.items():
            if key.split(".")[0] in _FIXED:
                raise RuleError("must be the same in all trials, set it in base", key=f"{key}.{parameter.kind}")
            for parent, wanted in (parameter.when or {}).items():
                if parent not in search:
                    rule = "`when` must name another searched key"
                    raise RuleError(rule, key=f"{key}.when", got=parent, suggestion=nearest(parent, search))
                _check_reachable(key, parent, search[parent], wanted)
        parents_first(search)
        return search

    @property
    def pruning_metric(self) -> str:
        """What the scheduler looks at."""
        return self.scheduler.metric or self.objectives[0].metric

    def with_seed(self, seed: int) -> Self:
        """The same with another seed of trials."""
        return self.model_copy(update={"base": self.base.model_copy(update={"seed": seed})})

    def active(self, key: str, chosen: dict[str, Any]) -> bool:
        """Whether a key is searched, given the values of the keys before it."""
        for parent, wanted in (self.search[key].when or {}).items():
            values = wanted if isinstance(wanted, list) else [wanted]
            if parent not in chosen or chosen[parent] not in values:
                return False
        return True


def _validation_metric(metric: str) -> str:
    """The metric, if runs report it on validation data."""
    known = [f"val/{name}" for name in MEASURES]
    if metric in known:
        return metric
    close = nearest(metric.replace("test/", "val/"), known)
    if metric.startswith("test/"):
        raise RuleError("test data is never searched on", got=metric, suggestion=close)
    rule = "no run reports this metric" if close else f"must be one of {', '.join(known)}"
    raise RuleError(rule, got=metric, suggestion=close)


def _check_reachable(key: str, parent: str, parameter: Parameter, wanted: Any) -> None:
    if wanted == []:
        raise RuleError(f"`when` must give {parent} at least one value", key=f"{key}.when", got=wanted)
    for value in wanted if isinstance(wanted, list) else [wanted]:
        if not parameter.takes(value):
            raise RuleError(f"`when` asks for a value that {parent} never takes", key=f"{key}.when", got=value)


def parents_first(search: dict[str, Parameter]) -> list[str]:
    """The searched keys, each after the keys that its condition names.

    Raises:
        RuleError: the conditions form a cycle.
    """
    order: list[str] = []
    waiting = dict.fromkeys(search)
    while waiting:
        ready = [key for key in waiting if not set(search[key].when or {}) & set(waiting)]
        if not ready:
            raise RuleError("`when` conditions form a cycle", got=list(waiting))
        order += ready
        for key in ready:
            del waiting[key]
    return order
