"""A suite from its rows to its page: what `python -m bbh_dist.benchmark` does."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bbh_dist.cluster.fits import check_fits
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.recorded import RecordedJobs
from bbh_dist.cluster.tracked import TrackedJobs
from bbh_dist.cluster.watched import Connection, run_watched
from bbh_dist.command_line import RunFailed, RunOptions
from bbh_dist.config import (
    TRAIN_SECONDS,
    ConfigError,
    Mistake,
    Parallel,
    SuitePlan,
    override,
    plain,
    run_name,
    to_yaml,
)
from bbh_dist.costs.runs import nominal_seconds
from bbh_dist.masking import masked
from bbh_dist.over_seeds import summarise
from bbh_dist.preflight import check_suite
from bbh_dist.provenance import provenance
from bbh_dist.resumable import open_work, run_once
from bbh_dist.storage import RunFolder
from bbh_dist.suite_results import PAGE, SuiteResults, as_json, collect
from bbh_dist.tasks import data_directory
from bbh_dist.tasks.own_files import OWN_FILES, own_hashes
from bbh_dist.tracking import ui_command

RUNS = "runs"
"""Where the folder's record has them."""
MEANS = ("test/error", "test/rmse", "test/nll", "test/entropy_auc", "test/outlier_entropy_auc", TRAIN_SECONDS)
"""Metrics whose means the parent run has; the tables have all."""
_SHOWN = ("val/nll", "test/error", "test/nll", "test/outlier_entropy_auc")


class SuiteRun:
    """One benchmark: its folder, its tracking run, its rows' runs, its table and its page."""

    def __init__(self, plan: SuitePlan, options: RunOptions) -> None:
        self.plan, self.options, self.console = plan, options, options.console
        self.data = str(data_directory(options.data))
        self.started = time.monotonic()
        self.tasks = check_suite(plan, self.data)
        parallels = dict.fromkeys(plan.rows[name].experiment.parallel for name in plan.methods)
        check_fits(parallels, options, self._tasks, self.data)
        self.tags = provenance()
        self.folder, self.tracker = open_work(
            options, config=to_yaml(plan), tasks=self._tasks, check=self._check_unchanged
        )
        self.parent = f"suite {self.folder.name}"

    def run(self) -> dict[str, Any]:
        """Run what is left of the suite and return its results as JSON has them.

        Raises:
            RunFailed: a row that was asked for has no run that came to its end.
        """
        return run_once(
            self.folder,
            self.tracker,
            self.parent,
            self._run,
            config=to_yaml(self.plan),  # more seeds, or other rows, of the same suite
            describe=self._description,
            keep=lambda result: not result["failed"],
        )

    def _run(self) -> dict[str, Any]:
        self.tracker.kill_children(self.parent)  # of a driver that was killed; what is run again is opened again
        record = self.folder.record()
        rows = record.get("rows", {}) | plain(self.plan)["rows"]
        own_files = own_hashes(self._tasks) | record.get(OWN_FILES, {})  # those of rows that are new
        self.folder.write_record({**record, "rows": rows, OWN_FILES: own_files})
        jobs = self._jobs(self.plan.methods)
        with contextlib.ExitStack() as stack:
            connection = Connection(stack, self.options)
            for parallel, some in self._groups(jobs):
                self._run_group(parallel, some, connection)
        results = self._finish()
        failed = RecordedJobs(self.folder, RUNS, jobs).failures()
        without = ", ".join(row.name for row in results.rows if not row.runs)
        if without:
            raise RunFailed(f"no run of {without} came to its end: {'; '.join(dict.fromkeys(failed.values()))}")
        return {**self._result(results), "failed": failed}

    @property
    def _tasks(self) -> list[str]:
        return [row.experiment.task for row in self.plan.rows.values()]

    def _jobs(self, names: list[str]) -> list[Job]:
        """Rows x seeds."""
        numbers = {name: number for number, name in enumerate(self.plan.rows)}
        return [
            Job(
                run_name(name, seed),
                override(self.plan.rows[name].experiment, {"seed": seed}),
                numbers[name],
                {"row": name, **self.plan.rows[name].changes},
                final=True,
                keeps_checkpoints=True,
            )
            for name in names
            for seed in self.plan.seeds
        ]

    def _groups(self, jobs: list[Job]) -> Iterator[tuple[Parallel, list[Job]]]:
        """Jobs that need the same resources, the longest first; the group with the longest first."""
        record = RecordedJobs(self.folder, RUNS, jobs)
        left = [job for job in jobs if not record.is_complete(job.name)]
        seconds = {row: self._seconds(row, record) for row in {job.params["row"] for job in left}}
        left.sort(key=lambda job: seconds[job.params["row"]], reverse=True)
        for parallel in dict.fromkeys(job.experiment.parallel for job in left):
            yield parallel, [job for job in left if job.experiment.parallel == parallel]

    def _seconds(self, row: str, record: RecordedJobs) -> float:
        """How long a run of a row takes: as long as others of it took, or about what its steps cost."""
        names = [run_name(row, seed) for seed in self.plan.seeds]
        took = [record.record[name]["seconds"] for name in names if record.is_complete(name)]
        if took:
            return summarise(took).mean
        return nominal_seconds(self.plan.rows[row].experiment, self.tasks[row])

    def _run_group(self, parallel: Parallel, jobs: list[Job], connection: Connection) -> None:
        source = RecordedJobs(self.folder, RUNS, jobs)
        tracked = TrackedJobs(self.tracker, self.parent, self.tags, [])
        run_watched(
            source,
            len(source),
            title=f"suite {self.folder.name}",
            metrics=_SHOWN,
            parallel=parallel,
            connection=connection,
            tracked=tracked,
            data=self.data,
            folder=self.folder.path,
        )

    def _finish(self) -> SuiteResults:
        """Tables, figures and page of what has been run, in the folder and in the tracking store."""
        from bbh_dist.report.suite import write_suite  # imported here: it makes matplotlib's cache folder

        facts = {name: fact for name, fact in self.tags.items() if not name.startswith("mlflow.")}
        results = collect(self.folder.name, self.plan, self.folder.record().get(RUNS, {}), facts | {"data": self.data})
        for path in write_suite(results, self.folder.path):
            inside = path.relative_to(self.folder.path).parent
            self.tracker.log_file(self.parent, path, None if inside == Path() else str(inside))
        means = {
            f"{row.name}/{metric.removeprefix('test/')}": summary.mean
            for row in results.rows
            for metric in results.metrics
            if metric in MEANS and (summary := row.summary(metric)) is not None
        }
        # A later step with each run more: a step is logged once.
        self.tracker.log(self.parent, means, sum(len(row.runs) for row in results.rows))
        return results

    def _result(self, results: SuiteResults) -> dict[str, Any]:
        from bbh_dist.report.table import main_table

        return {
            **as_json(results),
            "table": asdict(main_table(results)),
            "parent_run_id": self.parent,
            "tracking_uri": masked(self.tracker.uri),
            "page": str(self.folder.path / PAGE),
            "ui": ui_command(self.tracker.uri, self.tracker.experiment_id),
            "seconds": time.monotonic() - self.started,
        }

    def _description(self) -> dict[str, Any]:
        """Tags and parameters of the suite's run."""
        plan, first = self.plan, next(iter(self.plan.rows.values())).experiment
        params = {
            "task": first.task,
            "network": first.network,
            "rows": ", ".join(plan.rows),
            "seeds": json.dumps(plan.seeds),
            "quick": plan.quick,
            "departures": json.dumps(plan.departures),
        }
        return {"tags": {**self.tags, "kind": "suite"}, "params": params}

    def _check_unchanged(self, folder: RunFolder) -> None:
        """Refuse to go on with other settings; rows and seeds may be more or fewer.

        Raises:
            ConfigError: a row's experiment, or the quick setting, differs from the stored one.
        """
        stored, given = folder.config_data(), plain(self.plan)
        run = folder.record().get("rows", {}) | stored.get("rows", {})  # those, too, that have left the suite meanwhile
        changed = [f"rows.{name}" for name, row in given["rows"].items() if name in run and run[name] != row]
        changed += [key for key in ("quick",) if stored.get(key) != given.get(key)]
        if changed:
            rule = f"must be as the suite began, see {folder.path / 'config.yaml'}; choose another --name"
            raise ConfigError(Mistake("--resume", rule, key=changed[0]))
