import atexit
import gc
import sqlite3
from collections.abc import Iterator

import pytest
import torch

atexit.register(gc.freeze)  # the system takes it all: looking for garbage before takes four seconds


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: on a busy machine a second thread costs ten times what it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MLflow database as it is made, with an experiment `other`; to make one takes a second or two."""
    from bbh_dist.tracking import Tracker

    folder = tmp_path_factory.mktemp("store")
    Tracker(folder, f"sqlite:///{folder / 'mlflow.db'}", "other", key="k")
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (folder / "mlflow.db").read_bytes()
