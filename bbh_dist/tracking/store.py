"""The MLflow store: which one it is, how one looks at it, how it is reached."""

import contextlib
import fcntl
import glob
import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the UI opens an experiment as one of language-model traces."""


def tracking_uri(given: str | None) -> str:
    """The given store, else the environment's MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(_SQLITE):  # absolute, so that a run is resumed from any folder
        return f"{_SQLITE}{_database(uri)}"
    return uri


def ui_command(uri: str, experiment_id: str) -> str:
    """What to type, or open, to look at an experiment of the store."""
    if is_server(uri):
        return f"{masked(uri).rstrip('/')}/#/experiments/{experiment_id}"
    command = f"mlflow ui --backend-store-uri {shlex.quote(masked(uri))}"
    return f"{command}    then open http://127.0.0.1:5000/#/experiments/{experiment_id}"


def is_server(uri: str) -> bool:
    """Whether the store is reached over HTTP."""
    return uri.startswith(("http://", "https://"))


def connect(uri: str, experiment: str) -> tuple["MlflowClient", str]:
    """A client of the store and the id of the experiment there, which is made or restored where it is missing.

    Raises:
        ConfigError: the store does not answer or cannot be opened.
    """
    _quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # MLflow may have been imported before
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # else a traceback for each error, which is told here
    try:
        with _alone_at(uri):
            if uri.startswith(_SQLITE) and not _database(uri).exists():
                _make(_database(uri))
            client = MlflowClient(tracking_uri=uri)
            return client, _experiment(client, uri, experiment)
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        rule = f"the tracking store must answer ({reason(error, uri)})"
        raise ConfigError(Mistake("--tracking-uri", rule, got=masked(uri))) from error


def reason(error: BaseException, uri: str) -> str:
    """An error of the store in one short line without a password."""
    return masked(" ".join(str(error).replace(uri, masked(uri)).split()))[:200] or type(error).__name__


def _quieten() -> None:
    # MLflow and its migrations otherwise print dozens of lines when a store is made, and one for each run that ends.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    # MLflow itself would repeat a request that may have arrived, and make a second run; `Delivery` looks before.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


@contextlib.contextmanager
def _alone_at(uri: str) -> Iterator[None]:
    """Hold the folder of a local database: of processes that make its tables at the same time all but one fail."""
    if not uri.startswith(_SQLITE):
        yield
        return
    folder = _database(uri).parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system that cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(database: Path) -> None:
    """Make a database with all its tables, whole or not at all: a process that is killed in MLflow's migrations leaves
    one that can never be opened again."""
    import sqlite3

    from mlflow import MlflowClient

    prefix = f".bbh_dist-making-{database.name}-"
    for left in database.parent.glob(f"{glob.escape(prefix)}*"):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=database.parent) as folder:
        unfinished, whole = Path(folder) / "unfinished.db", Path(folder) / "whole.db"
        MlflowClient(tracking_uri=f"{_SQLITE}{unfinished}").search_experiments(max_results=1)
        with contextlib.closing(sqlite3.connect(unfinished)) as connection:
            connection.execute("VACUUM INTO ?", (str(whole),))
        if not database.exists():  # where the folder cannot be locked another process may have been faster
            whole.replace(database)


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=_artifacts(uri, name), tags=_EXPERIMENT_TAGS)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # else another process was faster
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _artifacts(uri: str, experiment: str) -> str | None:
    """Beside the database where the store is a local file, so that nothing lands in whatever folder one is in."""
    if not uri.startswith(_SQLITE):
        return None
    return (_database(uri).parent / "mlartifacts" / experiment).as_uri()


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE)).resolve()
