"""Runs in an MLflow store. One process writes: the driver of a study, or a training run.

Metrics wait in memory and travel in batches. A (metric, epoch) is logged once, also when a run is resumed.
"""

import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked

Status = Literal["FINISHED", "FAILED", "KILLED"]

_FLUSH_SECONDS = 2.0
_BATCH = 1_000
_LONGEST_VALUE = 500
_EVERY_EPOCH = "val/nll"
"""A metric that every epoch has."""
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the UI opens an experiment as one of language-model traces."""


def tracking_uri(given: str | None) -> str:
    """The given store, else the environment's MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///"):  # absolute, so that a run is resumed from any folder
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return uri


def ui_command(uri: str, experiment_id: str) -> str:
    """What to type, or open, to look at an experiment of the store."""
    if uri.startswith(("http://", "https://")):
        return f"{masked(uri).rstrip('/')}/#/experiments/{experiment_id}"
    command = f"mlflow ui --backend-store-uri {shlex.quote(masked(uri))}"
    return f"{command}    then open http://127.0.0.1:5000/#/experiments/{experiment_id}"


class Tracker:
    """Writes the runs of one experiment.

    Raises:
        ConfigError: the store does not answer or cannot be opened.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        # MLflow and its migrations otherwise print dozens of lines when a store is made.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # MLflow may have been imported before
        from sqlalchemy.exc import SQLAlchemyError

        self.uri = uri
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            self.experiment_id: str = (
                found.experiment_id
                if found is not None
                else self._client.create_experiment(
                    experiment, artifact_location=_artifact_location(uri, experiment), tags=_EXPERIMENT_TAGS
                )
            )
        except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
            reason = " ".join(str(error).replace(uri, masked(uri)).split())[:200]
            raise ConfigError(
                Mistake("--tracking-uri", f"the tracking store must answer ({reason})", got=masked(uri))
            ) from error
        self._waiting: dict[str, list[Any]] = {}
        self._logged_epoch: dict[str, float] = {}
        self._flushed = time.monotonic()

    def start_run(
        self,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        config: str | None = None,
    ) -> str:
        """Id of a new run that is RUNNING, with its tags, parameters and resolved configuration stored."""
        all_tags = {key: _short(value) for key, value in (tags or {}).items()}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent
        run_id: str = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        self.describe(run_id, params=params, config=config)
        return run_id

    def describe(self, run_id: str, *, params: Mapping[str, object] | None = None, config: str | None = None) -> None:
        """Store parameters and the resolved configuration of a run; again, too."""
        if params:
            from mlflow.entities import Param

            self._client.log_batch(run_id, params=[Param(key, _short(value)) for key, value in params.items()])
        if config is not None:
            self._client.log_text(run_id, config, "config.yaml")

    def reopen_run(self, run_id: str) -> None:
        """Set a run that ended or was cut off back to RUNNING; epochs that it holds are not logged again.

        Raises:
            ConfigError: the run has been deleted from the store.
        """
        from mlflow.exceptions import MlflowException

        try:
            tags = self._client.get_run(run_id).data.tags
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            rule = f"its run {run_id} is no longer in the tracking store"
            raise ConfigError(Mistake("--resume", rule, got=masked(self.uri))) from error
        if "reason" in tags:
            self._client.delete_tag(run_id, "reason")
        history = self._client.get_metric_history(run_id, _EVERY_EPOCH)
        self._logged_epoch[run_id] = max((point.step for point in history), default=0)

    def children(self, parent: str) -> dict[str, str]:
        """Name to id of the runs below a run."""
        found = self._client.search_runs(
            [self.experiment_id], f"tags.mlflow.parentRunId = '{parent}'", max_results=50_000
        )
        return {run.info.run_name: run.info.run_id for run in found}

    def kill_children(self, parent: str) -> None:
        """Set the children of a run that are still RUNNING, with nobody left to run them, to KILLED."""
        query = f"tags.mlflow.parentRunId = '{parent}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self.experiment_id], query):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def close_run(self, run_id: str) -> None:
        """Set a run that is known to have ended to FINISHED, if it is not."""
        if self._client.get_run(run_id).info.status != "FINISHED":
            self.end_run(run_id, "FINISHED")

    def log_epoch(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Queue an epoch's metrics, under the step `metrics["epoch"]`; what is queued travels every 2 seconds."""
        metrics = dict(metrics)
        epoch = int(metrics.pop("epoch"))
        if epoch > self._logged_epoch.get(run_id, 0):
            self._logged_epoch[run_id] = epoch
            self.log(run_id, metrics, epoch)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def log(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Queue metrics; numbers that are not finite are left out, a tag says which.

        MLflow takes no `@` in a name: what is `error@0.1` elsewhere is `error:0.1` there.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        waiting = self._waiting.setdefault(run_id, [])
        for name, value in metrics.items():
            key = name.replace("@", ":")
            if math.isfinite(value):
                waiting.append(Metric(key, float(value), now, step))
            else:
                self._client.set_tag(run_id, f"not_finite.{key}", f"{value} at step {step}")

    def flush(self) -> None:
        """Send what is queued; what the store does not take now is kept and sent with the next."""
        from mlflow.exceptions import MlflowException

        self._flushed = time.monotonic()
        try:
            for run_id in list(self._waiting):
                while metrics := self._waiting[run_id]:
                    self._client.log_batch(run_id, metrics=metrics[:_BATCH])
                    del metrics[:_BATCH]
                del self._waiting[run_id]
        except (MlflowException, OSError) as error:
            reason = masked(" ".join(str(error).split()))[:200]
            print(f"the tracking store took no metrics, they are kept for later: {reason}", file=sys.stderr)

    def tag(self, run_id: str, key: str, value: object) -> None:
        """Set one tag."""
        self._client.set_tag(run_id, key, _short(value))

    def tag_health(self, run_id: str, lines: Sequence[str]) -> None:
        """Set the tag `health`: what is wrong with a run's divergence estimate, or `ok`."""
        self.tag(run_id, "health", "; ".join(lines) or "ok")

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Store a file as an artifact."""
        self._client.log_artifact(run_id, str(path), folder)

    def end_run(self, run_id: str, status: Status) -> None:
        """Send what is queued and close the run."""
        self.flush()
        self._client.set_terminated(run_id, status)


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Beside the database where the store is a local file, so that nothing lands in whatever folder one is in."""
    if not uri.startswith("sqlite:///"):
        return None
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts" / experiment
    return folder.as_uri()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
