"""What a suite brought, as tables, figures and pages read it: rows, their runs by seed, and what others published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bbh_dist.config import FINAL_METRICS, MEASURES, TRAIN_SECONDS, Experiment, SuitePlan, run_name, to_yaml
from bbh_dist.over_seeds import Comparison, Summary, compare, summarise
from bbh_dist.training import health

PAGE = "report.html"
_OF_EPOCHS = ("val/", "posterior/")
"""How metrics begin that come with every epoch: on validation data, and of the weights. A run has its last ones."""


@dataclass(frozen=True)
class SuiteRow:
    """One row: its complete runs, seed to metrics, and where its settings come from."""

    name: str
    runs: Mapping[int, Mapping[str, float]]
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Seed to what figures show: `curves`, `history` and others."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys in which it differs from the base."""
    trials: int | None = None
    """Of the search that chose its settings; None where there was none."""
    published: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    """Seed to why its run did not come to its end."""
    health: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Seed to what is wrong with its divergence estimate; healthy runs are left out."""

    @property
    def seeds(self) -> list[int]:
        """Of the complete runs."""
        return sorted(self.runs)

    def values(self, metric: str) -> dict[int, float]:
        """Seed to value, of the runs that have the metric; a variance of weights that is infinite, say, is none."""
        found = {seed: self.runs[seed][metric] for seed in self.seeds if metric in self.runs[seed]}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def summary(self, metric: str) -> Summary | None:
        """Over seeds; None without a value."""
        values = list(self.values(metric).values())
        return summarise(values) if values else None

    def detail(self, name: str) -> list[Any]:
        """The named detail of every run that has it, by seed."""
        return [self.details[seed][name] for seed in sorted(self.details) if name in self.details[seed]]


@dataclass(frozen=True)
class SuiteResults:
    """All rows of a suite, in its order, and how they came about."""

    name: str
    rows: Sequence[SuiteRow]
    quick: bool = False
    departures: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys in which it departs from the suite's file."""
    reference: str | None = None
    """The row against which the others are tested."""
    source: str | None = None
    """Of the published figures."""
    task: str = ""
    resources: str = ""
    """What each run had, where all had the same: `1 worker of 1 CPU core`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Versions, commit, machine, command."""
    config: str = ""
    """The suite, resolved, as YAML."""

    @property
    def metrics(self) -> list[str]:
        """Every reported metric: on test data, under attack, seconds of training, then those of `_OF_EPOCHS`."""
        found = dict.fromkeys(name for row in self.rows for run in row.runs.values() for name in run)
        names = [name for name in found if name.startswith(FINAL_METRICS)]
        names += [TRAIN_SECONDS] if TRAIN_SECONDS in found else []
        return names + [name for name in found if name.startswith(_OF_EPOCHS)]

    def row(self, name: str) -> SuiteRow:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def comparison(self, row: SuiteRow, metric: str) -> Comparison | None:
        """Row against reference; None for the reference itself, or without common seeds."""
        if self.reference is None or row.name == self.reference:
            return None
        return compare(row.values(metric), self.row(self.reference).values(metric))

    @property
    def setting(self) -> str:
        """`full`, or how it departs from that: `quick: epochs 10`, `changed: epochs 2`."""
        if not self.departures:
            return "full"
        what = ", ".join(f"{key} {value}" for key, value in self.departures.items())
        return f"{'quick' if self.quick else 'changed'}: {what}"


def collect(
    name: str, plan: SuitePlan, record: Mapping[str, Mapping[str, Any]], facts: Mapping[str, str]
) -> SuiteResults:
    """The results of a suite from the record of its runs: rows that are asked for, or that have been run before."""
    rows = [_row(plan, row, record) for row in plan.rows]
    rows = [row for row in rows if row.runs or row.name in plan.methods]
    reference = plan.reference or _best_bbh(plan, rows)
    experiments = [row.experiment for row in plan.rows.values()]
    return SuiteResults(
        name=name,
        rows=rows,
        quick=plan.quick,
        departures=plan.departures,
        reference=reference if reference in [row.name for row in rows if row.runs] else None,
        source=plan.published.source if plan.published else None,
        task=experiments[0].task,
        resources=_resources(experiments),
        facts=facts,
        config=to_yaml(plan),
    )


def _resources(experiments: Sequence[Experiment]) -> str:
    found = {experiment.parallel for experiment in experiments}
    if len(found) > 1:
        return ""
    (parallel,) = found
    cores = parallel.cpus_per_worker or 1
    each = "1 GPU" if parallel.use_gpu else f"{cores} CPU core{'s' if cores > 1 else ''}"
    return f"{parallel.worker_text} worker{'s' if parallel.max_workers > 1 else ''} of {each}"


def _row(plan: SuitePlan, name: str, record: Mapping[str, Mapping[str, Any]]) -> SuiteRow:
    planned = plan.rows[name]
    runs = {seed: record[run_name(name, seed)] for seed in plan.seeds if run_name(name, seed) in record}
    done = {seed: run for seed, run in runs.items() if run["state"] == "COMPLETE"}
    return SuiteRow(
        name=name,
        runs={seed: run["metrics"] for seed, run in done.items()},
        details={seed: run["details"] for seed, run in done.items()},
        changes=planned.changes,
        trials=planned.tuned.trials if planned.tuned else None,
        published=plan.published.figures.get(name, {}) if plan.published else {},
        health={seed: lines for seed, run in done.items() if (lines := health(run["details"].get("history", [])))},
        failures={seed: run.get("reason") or "cut off" for seed, run in runs.items() if seed not in done},
    )


def _best_bbh(plan: SuitePlan, rows: Sequence[SuiteRow]) -> str | None:
    """The row of BbH with the least mean NLL on validation data: test data decides nothing."""
    candidates = [row for row in rows if plan.rows[row.name].experiment.method.name == "bbh"]
    means = {row.name: found.mean for row in candidates if (found := row.summary("val/nll")) is not None}
    return min(means, key=means.__getitem__) if means else None


def as_json(results: SuiteResults) -> dict[str, Any]:
    """The results as `--json` has them."""
    return {
        "suite": results.name,
        "quick": results.quick,
        "setting": results.setting,
        "reference": results.reference,
        "rows": [_row_as_json(results, row) for row in results.rows],
    }


def _row_as_json(results: SuiteResults, row: SuiteRow) -> dict[str, Any]:
    summaries = {metric: row.summary(metric) for metric in results.metrics}
    compared = {metric: results.comparison(row, metric) for metric in results.metrics}
    seconds = summaries.get(TRAIN_SECONDS)
    return {
        "name": row.name,
        "seeds": row.seeds,
        "trials": row.trials,
        "metrics": {metric: asdict(found) for metric, found in summaries.items() if found is not None},
        "seconds": None if seconds is None else seconds.mean,
        "published": dict(row.published),
        "health": {seed: list(lines) for seed, lines in row.health.items()},
        "against_reference": {metric: asdict(found) for metric, found in compared.items() if found is not None},
    }


def direction(metric: str) -> str | None:
    """`minimize`, `maximize`, or None where neither is known to be better."""
    part, _, name = metric.partition("@")[0].rpartition("/")
    if metric == TRAIN_SECONDS:
        return "minimize"
    # To be certain is no virtue under attack, nor is it known how certain one should be.
    is_ranked = name in MEASURES and (part == "test" or name == "error")
    return MEASURES[name].direction if is_ranked else None
