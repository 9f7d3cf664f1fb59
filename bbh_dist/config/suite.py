"""A benchmark suite: one base experiment, the rows of its table, seeds, and what others published."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from bbh_dist.config.errors import RuleError, nearest
from bbh_dist.config.experiment import Experiment
from bbh_dist.config.measures import MEASURES, Direction
from bbh_dist.config.model import Frozen, PositiveInt, Seeds
from bbh_dist.config.space import SearchSpace

TRAIN_SECONDS = "time/train_seconds"
"""The measure of runtime that suites report beside those on test data."""

_ROW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class Published(Frozen):
    """Figures of others, which stand beside ours."""

    source: Annotated[str, Field(min_length=1)]
    """Paper and table."""
    figures: dict[str, dict[str, float]]
    """Row to measure (`test/error`, `time/train_seconds`) to value, in our units."""

    @field_validator("figures")
    @classmethod
    def _measures_are_reported(cls, figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        known = [*(f"test/{name}" for name in MEASURES), TRAIN_SECONDS]
        for row, values in figures.items():
            for metric in values:
                if metric not in known and not metric.startswith("adversarial/"):
                    rule = "no final run reports this measure"
                    raise RuleError(rule, key=row, got=metric, suggestion=nearest(metric, known))
        return figures


class Suite(Frozen):
    """Methods x seeds, as a file describes them. A row is the base experiment with some keys set."""

    base: dict[str, Any]
    """An experiment; its method may be left to the rows, its seed is the suite's."""
    rows: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Name to the keys that the row sets, dotted (`method.name: map`) or as a nested mapping."""
    seeds: Seeds = Field(default=[0, 1, 2])
    """Every row is run with each."""
    quick: dict[str, Any] = Field(default={})
    """Keys that `--quick` sets in every row, fewer epochs for example; every table says so."""
    published: Published | None = None
    """Default: none."""
    reference: str | None = None
    """The row against which the others are tested. Default: of the rows of BbH the one with the least mean NLL on
    validation data."""
    settings: dict[str, str] = Field(default={})
    """Row to a file that `tune` wrote (`runs/NAME/settings.yaml`), whose searched values the row takes."""

    @field_validator("rows")
    @classmethod
    def _rows_have_plain_names(cls, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in rows:
            if not _ROW_NAME.fullmatch(name):
                rule = "names of rows must be letters, digits, '_' and '-', at most 40, the first a letter or digit"
                raise RuleError(rule, got=name)
        return rows

    @model_validator(mode="after")
    def _names_are_of_rows(self) -> Self:
        figures = self.published.figures if self.published else {}
        named = [*((f"published.figures.{name}", name) for name in figures)]
        named += [(f"settings.{name}", name) for name in self.settings]
        named += [("reference", self.reference)] if self.reference is not None else []
        for key, name in named:
            if name not in self.rows:
                rule = f"must be a row of the suite, one of {', '.join(self.rows)}"
                raise RuleError(rule, key=key, got=name, suggestion=nearest(name, self.rows))
        return self


class TunedObjective(Frozen):
    """An objective of a search and what the chosen trial reached."""

    metric: str
    direction: Direction
    value: float


class TunedSettings(Frozen):
    """What a search found, as `tune` writes it for suites."""

    study: str
    """Its name."""
    space: str
    """Hash of base experiment, searched keys and objectives."""
    task: str
    method: str
    trials: PositiveInt
    """How many were run, pruned and failed ones included."""
    trial: Annotated[int, Field(ge=0)]
    """The number of the one whose values these are."""
    objectives: list[TunedObjective]
    """On validation data."""
    settings: dict[str, Any]
    """Searched key, dotted, to value."""


def tuned_settings(
    space: SearchSpace, study: str, trials: int, values: Mapping[str, float], params: dict[str, Any], number: int
) -> TunedSettings:
    """The settings of a search's best trial: its number, objectives by metric, and searched values."""
    asked = space.model_dump_json(include={"base", "search", "objectives"})
    reached = [
        TunedObjective(metric=each.metric, direction=each.direction, value=values[each.metric])
        for each in space.objectives
    ]
    return TunedSettings(
        study=study,
        space=hashlib.sha256(asked.encode()).hexdigest()[:16],
        task=space.base.task,
        method=space.base.method.name,
        trials=trials,
        trial=number,
        objectives=reached,
        settings=params,
    )


def run_name(row: str, seed: int) -> str:
    """Name of a row's run with a seed."""
    return f"{row}-seed-{seed}"


class PlannedRow(Frozen):
    """A row as it is run."""

    experiment: Experiment
    """With seed 0; each run has its own."""
    changes: dict[str, Any]
    """Dotted keys in which it differs from the base."""
    tuned: TunedSettings | None = None
    """Whose values it took. Default: none, it was not searched."""


class SuitePlan(Frozen):
    """A suite as it is run: every row resolved."""

    rows: dict[str, PlannedRow]
    methods: list[str]
    """The rows that are run; others may have been run before."""
    seeds: Seeds
    quick: bool = False
    departures: dict[str, Any] = Field(default={})
    """Dotted keys that `--quick` or `--set` changed, so that it is not the suite of the file any more."""
    published: Published | None = None
    reference: str | None = None
