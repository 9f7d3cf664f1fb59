"""Operations of a spool as calls of MLflow. Each may be repeated: told twice, the store is as told once.

A run is found again by a tag. Metrics carry the time at which they were logged, and the store's primary key (run, name,
time, step, value) drops what it has (MLflow's `SqlAlchemyStore._log_metrics_once`). Tags, parameters, statuses and
artifacts only overwrite themselves.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbh_dist.tracking.spool import Delivered, Operation
from bbh_dist.tracking.store import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "bbh_dist.key"
_FOR_EVER = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""Answers of MLflow that stay the same however often one asks."""


def key_tag(key: str, name: str) -> str:
    """By which a run of a folder is found again in the store; tells nobody the folder's key."""
    return hashlib.sha256(f"{key}/{name}".encode()).hexdigest()[:32]


class Sender:
    """Tells the store what a spool holds. `key` tells the spool's runs from those of all others."""

    def __init__(
        self,
        client: "MlflowClient",
        uri: str,
        experiment_id: str,
        *,
        key: str,
        folder: Path,
        told: Delivered,
        refuse: Callable[[Operation, str], None],
    ) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.key, self.folder, self.told, self._refuse = key, folder, told, refuse
        self.calls = 0
        """Calls that got through, to see whether the store is alive."""
        self._doubtful = self._patient = True

    def send(self, operations: Iterable[Operation], *, doubtful: bool, patient: bool) -> None:
        """Tell operations, those of one run in their order and its artifacts last.

        What the store will never take is set aside, and an artifact that alone fails if not `patient`. `doubtful`: the
        operations may have arrived before.

        Raises:
            Exception: whatever the client raises where the store does not answer; what had been told may be repeated.
        """
        self._doubtful, self._patient = doubtful, patient
        by_run: dict[str, list[Operation]] = {}
        for operation in operations:
            by_run.setdefault(operation["run"], []).append(operation)
        for some in by_run.values():
            some.sort(key=lambda operation: operation["kind"] in ("text", "file"))
            for call, alike in groupby(some, key=self._call):
                self._tell(call, list(alike))

    def _call(self, operation: Operation) -> Callable[[list[Operation]], None]:
        kind = operation["kind"]
        if kind in ("metrics", "params", "tags"):
            return self._log
        calls = {"start": self._start, "status": self._status, "text": self._artifact, "file": self._artifact}
        return calls.get(kind, _damaged)

    def _tell(self, call: Callable[[list[Operation]], None], operations: list[Operation]) -> None:
        try:
            call(operations)
        except Exception as error:
            if not self._is_for_ever(error):
                raise
            if len(operations) > 1:
                for operation in operations:
                    self._tell(call, [operation])
                return
            self._refuse(operations[0], reason(error, self.uri))
        self.calls += 1

    def _is_for_ever(self, error: Exception) -> bool:
        from mlflow.exceptions import MlflowException, RestException

        if isinstance(error, _Refused | FileNotFoundError):
            return True
        # A proxy's 404 is an MlflowException without an answer of MLflow's.
        mlflows = isinstance(error, RestException) or (
            isinstance(error, MlflowException) and not str(error).startswith("API request to")
        )
        return mlflows and getattr(error, "error_code", None) in _FOR_EVER

    def _run_id(self, operation: Operation) -> str:
        try:
            return self.told.run_ids[operation["run"]]
        except KeyError:
            raise _Refused("its run was refused") from None

    def _start(self, operations: list[Operation]) -> None:
        for operation in operations:
            name, tags = operation["run"], dict(operation["tags"])
            if name in self.told.run_ids:
                continue
            if operation["parent"] in self.told.run_ids:
                tags["mlflow.parentRunId"] = self.told.run_ids[operation["parent"]]
            tags[KEY_TAG] = key_tag(self.key, name)
            found = self._find(name) if self._doubtful else []
            if not found:
                made = self.client.create_run(self.experiment_id, operation["time"], tags, run_name=name)
                found = [made.info.run_id]
                self.told.in_doubt += [name] if self._doubtful else []
            self.told.run_ids[name] = found[0]

    def _find(self, name: str) -> list[str]:
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key_tag(self.key, name)}'")
        return [run.info.run_id for run in found]

    def _status(self, operations: list[Operation]) -> None:
        for operation in operations:
            if operation["status"] == "RUNNING":
                self._reopen(self._run_id(operation))
            else:
                self._delete_twins(operation["run"])
                self.client.set_terminated(self._run_id(operation), operation["status"], operation["time"])

    def _reopen(self, run_id: str) -> None:
        if "reason" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "reason")
        self.client.update_run(run_id, "RUNNING")

    def _delete_twins(self, name: str) -> None:
        """Delete empty runs of the same name, made by requests that were given up and arrived later."""
        if name in self.told.in_doubt:
            for twin in set(self._find(name)) - {self.told.run_ids[name]}:
                self.client.delete_run(twin)
            self.told.in_doubt.remove(name)

    def _log(self, operations: list[Operation]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(key, value, each["time"], each["step"])
            for each in operations
            if each["kind"] == "metrics"
            for key, value in each["values"].items()
        ]
        params = [Param(*each) for each in _items(operations, "params")]
        tags = [RunTag(*each) for each in _items(operations, "tags")]
        self.client.log_batch(self._run_id(operations[0]), metrics, params, tags)

    def _artifact(self, operations: list[Operation]) -> None:
        for operation in operations:
            run_id = self._run_id(operation)
            try:
                if operation["kind"] == "text":
                    self.client.log_text(run_id, operation["text"], operation["path"])
                else:
                    self.client.log_artifact(run_id, str(self.folder / operation["path"]), operation["folder"])
            except Exception as error:
                if self._patient:
                    raise
                self.client.get_run(run_id)  # raises where it is the store that is away, and not the artifact's fault
                raise _Refused(reason(error, self.uri)) from error
            self.calls += 1


class _Refused(Exception):
    """The store will not take this."""


def _damaged(operations: list[Operation]) -> None:
    raise _Refused("its line in the spool is damaged")


def _items(operations: Sequence[Operation], kind: str) -> list[tuple[str, Any]]:
    """Names and their last values."""
    merged: dict[str, Any] = {}
    for operation in operations:
        if operation["kind"] == kind:
            merged |= operation["values"]
    return list(merged.items())
