"""The runs of one experiment in an MLflow store. One process writes: the driver of a study, or a training run.

What is logged goes to a spool in the run's folder and from there to the store, so that nobody waits for the store. A
(metric, step) is logged once, also when a run is resumed.
"""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked
from bbh_dist.tracking.delivery import Delivery
from bbh_dist.tracking.sender import Sender
from bbh_dist.tracking.spool import Delivered, Operation, Spool
from bbh_dist.tracking.store import connect

Status = Literal["FINISHED", "FAILED", "KILLED"]

_LONGEST_VALUE = 500


@dataclass
class _Run:
    """What the spool says of a run."""

    parent: str | None
    status: str = "RUNNING"
    steps: dict[str, int] = field(default_factory=dict)
    """Metric to the last step that was logged."""


class Tracker:
    """Logs the runs of a folder; `key` is the folder's own. A run is known by its name, which it has once in a folder.

    Raises:
        ConfigError: the store does not answer or cannot be opened.
    """

    def __init__(self, folder: Path, uri: str, experiment: str, key: str) -> None:
        self.folder, self.uri, self.key = folder, uri, key
        self._client, self.experiment_id = connect(uri, experiment)
        self._spool = Spool(folder / "tracking")
        self._told = Delivered()
        self._runs: dict[str, _Run] = {}

    @contextlib.contextmanager
    def delivering(self) -> Iterator[None]:
        """Take what is logged, and deliver it; in the end wait for the store, and say what it has not taken.

        To be entered once, by the process that holds the folder's lock.
        """
        self._spool.open()
        self._told = self._spool.delivered()
        for operation in self._spool:
            self._recall(operation)
        self._try_refused_again()
        sender = Sender(
            self._client,
            self.uri,
            self.experiment_id,
            key=self.key,
            folder=self.folder,
            told=self._told,
            refuse=self._spool.refuse,
        )
        delivery = Delivery(self._spool, sender)
        try:
            yield
        finally:
            delivery.close()
            self._say_what_is_left(delivery.last_error, self._spool.close())

    @property
    def left(self) -> int:
        """Entries that the store has not been told, yet."""
        return self._spool.count(self._told.offset)

    @property
    def refused(self) -> int:
        """Entries that the store refused."""
        return len(self._spool.refused())

    def check_stands(self, name: str) -> None:
        """See that a run has not been deleted from the store.

        Raises:
            ConfigError: it has.
        """
        from mlflow.exceptions import MlflowException

        run_id = self.run_id(name)
        if run_id is None:
            return
        try:
            deleted = self._client.get_run(run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            deleted = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        if deleted:
            rule = f"its run {run_id} is no longer in the tracking store"
            raise ConfigError(Mistake("--resume", rule, got=masked(self.uri)))

    def start_run(
        self,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        config: str | None = None,
    ) -> None:
        """Open a run with its tags, parameters and resolved configuration; one that was there is RUNNING again."""
        if name in self._runs:
            self._set_status(name, "RUNNING")
            return
        first = {"kind": "start", "time": _now(), "parent": parent, "tags": _short_values(tags or {})}
        more = [{"kind": "params", "values": _short_values(params)}] if params else []
        if config is not None:
            more.append({"kind": "text", "path": "config.yaml", "text": config})
        self._put(name, first, *more)

    def kill_children(self, parent: str) -> None:
        """Set the children of a run that are still RUNNING, with nobody left to run them, to KILLED."""
        for name, run in self._runs.items():
            if run.parent == parent:
                self._kill(name)

    def kill_all(self) -> None:
        """Set all runs that are still RUNNING, with nobody left to run them, to KILLED."""
        for name in self._runs:
            self._kill(name)

    def log_epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Log an epoch's metrics under the step `metrics["epoch"]`."""
        metrics = dict(metrics)
        self.log(name, metrics, int(metrics.pop("epoch")))

    def log(self, name: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics that the run has not had at this step; for a number that is not finite, a tag.

        MLflow takes no `@` in a name: what is `error@0.1` elsewhere is `error:0.1` there.
        """
        steps = self._runs[name].steps
        new = {key.replace("@", ":"): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in new.items() if step > steps.get(key, -1)}
        finite = {key: value for key, value in new.items() if math.isfinite(value)}
        others = {f"not_finite.{key}": f"{value} at step {step}" for key, value in new.items() if key not in finite}
        if finite:
            self._put(name, {"kind": "metrics", "time": _now(), "step": step, "values": finite})
        if others:
            self._put(name, {"kind": "tags", "values": others})

    def tag(self, name: str, key: str, value: object) -> None:
        """Set one tag."""
        self._put(name, {"kind": "tags", "values": _short_values({key: value})})

    def tag_health(self, name: str, lines: Sequence[str]) -> None:
        """Set the tag `health`: what is wrong with a run's divergence estimate, or `ok`."""
        self.tag(name, "health", "; ".join(lines) or "ok")

    def log_file(self, name: str, path: Path, folder: str | None = None) -> None:
        """Store a file of the run's folder as an artifact; it has to stay where it is."""
        self._put(name, {"kind": "file", "path": str(path.relative_to(self.folder)), "folder": folder})

    def end_run(self, name: str, status: Status) -> None:
        """Close the run."""
        self._set_status(name, status)

    def run_id(self, name: str) -> str | None:
        """A run's id in the store; None where the store has not been told of it."""
        return self._told.run_ids.get(name)

    def with_run_ids(self, result: Any) -> Any:
        """A result as JSON has it with the store's ids of runs where it names runs."""
        if isinstance(result, dict):
            return {
                key: self.run_id(value) if key in ("run_id", "parent_run_id") else self.with_run_ids(value)
                for key, value in result.items()
            }
        return [self.with_run_ids(each) for each in result] if isinstance(result, list) else result

    def _set_status(self, name: str, status: str) -> None:
        if self._runs[name].status != status:
            self._put(name, {"kind": "status", "status": status, "time": _now()})

    def _kill(self, name: str) -> None:
        if self._runs[name].status == "RUNNING":
            self._set_status(name, "KILLED")

    def _put(self, name: str, *operations: Operation) -> None:
        named = [{"run": name, **operation} for operation in operations]
        self._spool.put(*named)
        for operation in named:
            self._recall(operation)

    def _recall(self, operation: Operation) -> None:
        """Take note of an operation that is in the spool."""
        run = self._runs.setdefault(operation["run"], _Run(operation.get("parent")))
        if operation["kind"] == "status":
            run.status = operation["status"]
        elif operation["kind"] == "metrics":
            run.steps |= {sys.intern(key): int(operation["step"]) for key in operation["values"]}

    def _try_refused_again(self) -> None:
        """Put what was refused last time behind the rest, but for statuses that are no longer true."""
        for operation in [entry["operation"] for entry in self._spool.refused()]:
            stale = operation["kind"] == "status" and self._runs[operation["run"]].status != operation["status"]
            if operation["kind"] != "damaged" and not stale:
                self._spool.put(operation)
        self._spool.forget_refused()

    def _say_what_is_left(self, reason: str, lost: int) -> None:
        deliver = f"python -m bbh_dist.tracking sync {self.folder}"
        left = self.left
        if left:
            what = f"the tracking store has not taken {left} entries ({reason}), they are kept"
            print(f"{what}; when it answers: {deliver}", file=sys.stderr)
        refused = self._spool.refused()
        if refused:
            what = f"the tracking store refused {len(refused)} entries, the last one because: {refused[-1]['reason']}"
            print(f"{what}; to try again: {deliver}", file=sys.stderr)
        if lost:
            print(
                f"{lost} entries for the tracking store are lost: {self._spool.path} cannot be written", file=sys.stderr
            )


def _now() -> int:
    return int(time.time() * 1000)


def _short_values(values: Mapping[str, object]) -> dict[str, str]:
    """Values as MLflow takes them, without passwords."""
    texts = {key: masked(str(value)) for key, value in values.items()}
    return {
        key: text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..." for key, text in texts.items()
    }
