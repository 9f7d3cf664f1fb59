"""A study from its search space to the final runs: what `python -m bbh_dist.tune` does."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from bbh_dist.cluster.final import FinalJobs
from bbh_dist.cluster.fits import check_fits
from bbh_dist.cluster.jobs import Job, JobSource, Outcome
from bbh_dist.cluster.tracked import TrackedJobs
from bbh_dist.cluster.watched import Connection, run_watched
from bbh_dist.command_line import RunFailed, RunOptions
from bbh_dist.config import SEARCH_SEED, ConfigError, Mistake, SearchSpace, plain, to_yaml, tuned_settings
from bbh_dist.masking import masked
from bbh_dist.preflight import check_fresh_seeds, check_space
from bbh_dist.provenance import provenance
from bbh_dist.resumable import open_work, run_once
from bbh_dist.storage import RunFolder
from bbh_dist.tasks import data_directory
from bbh_dist.tracking import ui_command

if TYPE_CHECKING:
    from bbh_dist.cluster.optuna_study import OptunaJobs

SETTINGS = "settings.yaml"
FINAL_METRICS = ("test/error", "test/nll", "test/outlier_entropy_auc")


class Study:
    """One search: its folder, its tracking run, its trials and its final runs."""

    def __init__(self, space: SearchSpace, options: RunOptions) -> None:
        self.space, self.options, self.console = space, options, options.console
        self.data = str(data_directory(options.data))
        self.started = time.monotonic()
        check_space(space, self.data)
        if not options.resume:  # an older version's may have had them
            check_fresh_seeds(space)
        check_fits([space.base.parallel], options, [space.base.task], self.data)
        self.tags = provenance()
        self.folder, self.tracker = open_work(
            options, config=to_yaml(space), tasks=[space.base.task], check=self._check_unchanged
        )
        self.parent = f"study {self.folder.name}"

    def run(self) -> dict[str, Any]:
        """Run what is left of the study and return its results as JSON has them.

        A study that has ended, with the trials and the final runs that are asked for, is left as it is.

        Raises:
            RunFailed: no trial, or no final run, came to its end.
        """
        return run_once(
            self.folder,
            self.tracker,
            self.parent,
            self._run,
            config=to_yaml(self.space),  # more trials, or other final runs, of the same search
            describe=self._description,
            keep=lambda result: not result["failed_finals"],
        )

    def _run(self) -> dict[str, Any]:
        from bbh_dist.cluster.optuna_study import OptunaJobs
        from bbh_dist.report import rank_best  # imported here: it makes matplotlib's cache folder

        record = self.folder.record()
        jobs = OptunaJobs(self.space, self.folder.path, begun=record.get("begun", False))
        self.folder.write_record({**record, "begun": True})
        self.tracker.kill_children(self.parent)  # of a driver that was killed; what is run again is opened again
        with contextlib.ExitStack() as stack:
            connection = Connection(stack, self.options)
            self._search(jobs, connection)
            rows = jobs.rows()
            ranked = rank_best(rows, self.space.objectives)
            if not ranked:
                raise RunFailed(f"none of {len(rows)} trials came to its end: {jobs.reasons()}")
            self._write_settings(jobs, ranked[0])
            chosen = ranked[: self.space.final.top]
            finals = FinalJobs(jobs, chosen, self.folder)
            self._finals(finals, connection)
        summaries = [finals.summary(number) for number in chosen]
        self._log_results(jobs, finals, chosen, summaries)
        if not any(summary["seeds"] for summary in summaries):
            raise RunFailed(f"no final run came to its end: {'; '.join(finals.failures().values())}")
        return {**self._result(jobs, ranked, summaries), "failed_finals": finals.failures()}

    def _search(self, jobs: "OptunaJobs", connection: Connection) -> None:
        if jobs.remaining == 0:
            return
        names = [objective.metric for objective in self.space.objectives]
        tracked = TrackedJobs(self.tracker, self.parent, self.tags, self.space.objectives)
        best = _Best(self, jobs)
        try:
            connection()  # before Ray is imported
            from bbh_dist.cluster.run import build_scheduler

            watchers: dict[str, Any] = {"metrics": names, "tracked": tracked, "others": [best]}
            title, scheduler = f"study {self.folder.name}", build_scheduler(self.space, jobs.curves())
            self._run_jobs(jobs, jobs.remaining, connection, title=title, scheduler=scheduler, **watchers)
        except BaseException:
            jobs.interrupt()
            raise

    def _finals(self, finals: FinalJobs, connection: Connection) -> None:
        if len(finals) == 0:
            return
        tracked = TrackedJobs(self.tracker, self.parent, self.tags, self.space.objectives)
        title = "final runs, test data"
        self._run_jobs(finals, len(finals), connection, title=title, metrics=FINAL_METRICS, tracked=tracked)

    def _run_jobs(self, jobs: JobSource, count: int, connection: Connection, **settings: Any) -> None:
        place: dict[str, Any] = {"data": self.data, "folder": self.folder.path}
        run_watched(jobs, count, connection=connection, parallel=self.space.base.parallel, **place, **settings)

    def _write_settings(self, jobs: "OptunaJobs", best: int) -> None:
        """What the search found, in a file that suites read."""
        found = tuned_settings(self.space, self.folder.name, jobs.counted, jobs.values(best), jobs.params(best), best)
        self.folder.write(SETTINGS, to_yaml(found))
        self.tracker.log_file(self.parent, self.folder.path / SETTINGS)

    def _log_results(
        self, jobs: "OptunaJobs", finals: FinalJobs, chosen: list[int], summaries: list[dict[str, Any]]
    ) -> None:
        from bbh_dist.report import draw_run, draw_study, draw_training

        figures = self.folder.path / "figures"
        for path in draw_study(jobs.rows(), self.space.objectives, jobs.importances(), chosen, figures):
            self.tracker.log_file(self.parent, path, "figures")
        for rank, summary in enumerate(summaries):
            prefix = "final" if rank == 0 else f"final-{rank + 1}"
            values = {
                f"{prefix}/{name}/{key}": stats[key] for name, stats in summary["metrics"].items() for key in stats
            }
            # A later step with each run more: a step is logged once.
            self.tracker.log(self.parent, values, len(jobs.rows()) + len(summary["seeds"]))
        for name, run in finals.record.items():
            details = run.get("details") or {}
            if details:
                paths = draw_run(details["curves"], figures / name) + draw_training(details["history"], figures / name)
                for path in paths:
                    self.tracker.log_file(name, path, "figures")

    def _result(self, jobs: "OptunaJobs", ranked: list[int], summaries: list[dict[str, Any]]) -> dict[str, Any]:
        trials = [
            {
                "number": row.number,
                "state": row.state,
                "values": row.values,
                "params": row.params,
                "run_id": f"trial-{row.number}",
                "seconds": row.seconds,
            }
            for row in jobs.rows()
        ]
        by_number = {trial["number"]: trial for trial in trials}
        return {
            "study": self.folder.name,
            "parent_run_id": self.parent,
            "tracking_uri": masked(self.tracker.uri),
            "trials": trials,
            "best": [by_number[number] for number in ranked],
            "final": next(summary for summary in summaries if summary["seeds"]),
            "finals": summaries,
            "figures": str(self.folder.path / "figures"),
            "settings": str(self.folder.path / SETTINGS),
            "ui": ui_command(self.tracker.uri, self.tracker.experiment_id),
            "seconds": time.monotonic() - self.started,
        }

    def _description(self) -> dict[str, Any]:
        """Tags and parameters of the study's run."""
        objectives = ", ".join(f"{each.direction} {each.metric}" for each in self.space.objectives)
        params = {
            "task": self.space.base.task,
            "network": self.space.base.network,
            "method": self.space.base.method.name,
            "objectives": objectives,
            "sampler": self.space.sampler.name,
            "scheduler": self.space.scheduler.name,
            "trials": self.space.trials,
            "final_seeds": json.dumps(self.space.final.seeds),
        }
        return {"tags": {**self.tags, "kind": "study", "seed": self.space.sampler.seed}, "params": params}

    def _check_unchanged(self, folder: RunFolder) -> None:
        """Refuse to go on with another space; trials and final runs may be more or fewer.

        A study goes on with the seed that its trials have had, where the space says none.

        Raises:
            ConfigError: base, searched keys, objectives, scheduler or sampler differ from the stored ones.
        """
        stored = folder.config_data()
        begun_with = stored.get("base", {}).get("seed") if isinstance(stored.get("base"), dict) else None
        if self.space.base.seed == SEARCH_SEED and isinstance(begun_with, int):
            self.space = self.space.with_seed(begun_with)
        given = plain(self.space)
        for key in ("base", "search", "objectives", "scheduler", "sampler"):
            if stored.get(key) != given.get(key):
                rule = f"must be as the study began, see {folder.path / 'config.yaml'}; choose another --name"
                raise ConfigError(Mistake("--resume", rule, key=key))


class _Best:
    """Logs the best value of each objective so far to the study's run, as trials end."""

    def __init__(self, study: Study, jobs: "OptunaJobs") -> None:
        self.study = study
        self.rows = jobs.rows()

    def started(self, job: Job) -> None:
        """Nothing to log."""

    def reported(self, job: Job, metrics: dict[str, float]) -> None:
        """Nothing to log."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Log the best values, this trial's included, at the number of trials that have ended."""
        from bbh_dist.report import TrialRow

        values = outcome.metrics if outcome.state == "COMPLETE" else None
        self.rows.append(TrialRow(job.number, outcome.state, values, job.params, outcome.seconds))
        done = [row.values for row in self.rows if row.values is not None]
        objectives = self.study.space.objectives if done else []
        bests = {f"best/{each.metric}": each.best(values[each.metric] for values in done) for each in objectives}
        self.study.tracker.log(self.study.parent, bests, len(self.rows))
