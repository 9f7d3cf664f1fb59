"""How often a group of workers is started again: as often as it may be lost, and whenever it finds its room taken."""

import pickle
from pathlib import Path

import pytest
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from bbh_dist.cluster import group
from bbh_dist.config import Parallel

LOST = WorkerGroupError("the node is gone", {})
NO_ROOM = ControllerError(WorkerGroupStartupTimeoutError(2))


def started(monkeypatch: pytest.MonkeyPatch, folder: Path, *ends: Exception | None) -> int:
    """How often a group is started that may be lost once and ends in these ways, in turn."""
    left = [pickle.loads(pickle.dumps(end)) for end in ends]  # as it comes from Ray Train's controller

    def fit(*_: object) -> None:
        if (end := left.pop(0)) is not None:
            raise end

    monkeypatch.setattr(group, "wait_for_room", lambda *_: 2)
    monkeypatch.setattr(group, "_fit", fit)
    group.fit_group(print, {}, Parallel(workers=2), folder, restarts=1)
    return len(ends) - len(left)


def test_a_group_that_is_lost_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert started(monkeypatch, tmp_path, LOST, None) == 2


def test_a_group_that_is_lost_too_often_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the node is gone"):
        started(monkeypatch, tmp_path, LOST, LOST, None)


def test_a_group_whose_room_was_taken_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert started(monkeypatch, tmp_path, NO_ROOM, NO_ROOM, LOST, NO_ROOM, None) == 5
