"""Reports of workers in a file, and who starts workers for them, without Ray."""

from pathlib import Path
from typing import Any

import pytest

from bbh_dist.cluster import standing
from bbh_dist.cluster.reports import Reports
from bbh_dist.cluster.standing import StandingWorkers
from bbh_dist.config import Experiment, Parallel

TWO = Experiment.model_validate({"task": "digits5", "method": {"name": "map"}, "parallel": {"workers": 2}})


def test_every_epoch_is_read_once_and_whole(tmp_path: Path) -> None:
    reports, reader = Reports(tmp_path), Reports(tmp_path)
    assert (list(reader.unread()), reports.last(), reports.failure()) == ([], {}, None)
    reports.append([{"epoch": 1}, {"epoch": 2}])
    with open(reports.path, "a") as file:
        file.write('{"epoch": 3')  # a killed worker
    assert list(reader.unread()) == [{"epoch": 1}, {"epoch": 2}]
    reports.cut_torn_line()
    reports.append([{"epoch": 2}, {"epoch": 3}])  # from a checkpoint after the first
    assert list(reader.unread()) == [{"epoch": 3}]
    reports.append([{"epoch": 3, "finished": True}])
    assert list(reader.unread()) == [{"epoch": 3, "finished": True}]


def test_a_failure_counts_wherever_it_stands_until_it_is_tried_again(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    reports.append([{"epoch": 1}, {"failure": "MemoryError"}, {"epoch": 2}])
    assert reports.failure() == "MemoryError"
    reports.forget_failures()
    assert reports.failure() is None
    assert list(Reports(tmp_path).unread()) == [{"epoch": 1}, {"epoch": 2}]


class Group:
    """Workers that are lost at once, or report that they are done."""

    started = 0

    def __init__(self, parallel: Parallel, folder: Path, seen: int) -> None:
        self.folder, self.reason = folder, "gone"

    def start(self) -> None:
        Group.started += 1
        if Group.started == 2:
            Reports(self.folder.parent / "second").append([{"epoch": 1, "finished": True}])

    def is_alive(self) -> bool:
        return Group.started == 2


def test_workers_that_the_run_before_has_lost_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_Group", Group)
    monkeypatch.setattr(Group, "started", 0)
    workers = StandingWorkers(TWO.parallel, tmp_path / "group")
    workers.train(TWO, ".", tmp_path / "first", False)
    with pytest.raises(RuntimeError, match="the workers were lost: gone"):
        workers.next_report()
    monkeypatch.setattr(Group, "is_alive", lambda group: True)  # not yet seen to be dying
    workers.train(TWO, ".", tmp_path / "second", False)
    monkeypatch.undo()
    monkeypatch.setattr(standing, "_Group", Group)
    Group.started = 1
    assert workers.next_report() == {"epoch": 1, "finished": True}


def test_a_finished_run_needs_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_group(*arguments: Any) -> Any:
        raise AssertionError("workers were started")

    monkeypatch.setattr(standing, "_Group", no_group)
    Reports(tmp_path).append([{"epoch": 1}, {"epoch": 2, "finished": True}])
    workers = StandingWorkers(TWO.parallel, tmp_path / "group")
    workers.train(TWO, ".", tmp_path, True)
    assert [workers.next_report() for _ in range(2)] == [{"epoch": 1}, {"epoch": 2, "finished": True}]
    workers.end()
