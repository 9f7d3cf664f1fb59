"""Workers that stand for trial after trial: Ray Train starts them once, orders in a file tell them what to train.

Starting a group of workers takes about ten seconds, importing and meeting; a short trial should not pay for it.
The driver writes orders and reads the reports of a run's folder; the workers look for a new order while they are idle
and between epochs. A lost worker ends the whole group, and whoever gives the next order starts another.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bbh_dist.cluster.data_parallel import train_job
from bbh_dist.cluster.group import fit_group
from bbh_dist.cluster.jobs import remove_checkpoints
from bbh_dist.cluster.reports import FINISHED, Report, Reports
from bbh_dist.cluster.room import withdraw
from bbh_dist.config import Experiment, Parallel

_ORDER = "order.json"
_PLACEMENT_GROUP = "placement_group"
_GROUP = "group"
_POLL_SECONDS = 0.01
_HEARTBEAT_SECONDS = 5.0
_SECONDS_TO_END, _SECONDS_TO_START = 10.0, 60.0


class StandingWorkers:
    """A group of workers, seen from its driver. `folder` is seen by driver and workers and nobody else's."""

    def __init__(self, parallel: Parallel, folder: Path) -> None:
        self.parallel, self.folder = parallel, folder
        self._orders = 0
        self._group: _Group | None = None
        self._reports: Reports | None = None
        self._is_fresh = self._has_reported = False

    def train(self, experiment: Experiment, data: str, folder: Path, final: bool) -> None:
        """Have the workers drop what they do and train a run in its folder, or go on with it, unless it is finished."""
        folder.mkdir(parents=True, exist_ok=True)
        self._reports, self._has_reported = Reports(folder), False
        self._reports.forget_failures()
        if FINISHED in self._reports.last():
            return
        self._succeed(folder)
        job = {"experiment": experiment.model_dump_json(), "data": data, "folder": str(folder), "final": final}
        self._order(job)
        self._is_fresh = False
        if self._group is None or not self._group.is_alive():
            self._start()

    def next_report(self) -> Report:
        """Wait for the next report of the run.

        Raises:
            RuntimeError: the workers were lost, or could not be started.
        """
        assert self._reports is not None
        while True:
            # Asked first: what a group leaves behind has been written by then.
            is_lost = self._group is not None and not self._group.is_alive()
            for report in self._reports.unread():
                self._has_reported = True
                return report
            if is_lost and (self._is_fresh or self._has_reported):
                raise RuntimeError(f"the workers were lost: {self._group and self._group.reason}")
            if is_lost:  # by the run before, as its failure had been told already when this one was ordered
                self._start()
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Send the workers home, and take their CPUs and GPUs back if they don't go."""
        if self._group is None or not self._group.is_alive():
            return
        self._group.stopped.set()
        self._order({})
        self._group.join(_SECONDS_TO_END)
        until = time.monotonic() + _SECONDS_TO_START
        while self._group.is_alive() and not _release(self.folder) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)  # they are still on their way, and have no resources that could be named

    def _start(self) -> None:
        (self.folder / _PLACEMENT_GROUP).unlink(missing_ok=True)
        self._group = _Group(self.parallel, self.folder, self._orders - 1)
        self._group.start()
        self._is_fresh = True

    def _succeed(self, folder: Path) -> None:
        """Release the workers of a driver that was killed at this run, and leave word of one's own for the next."""
        note = folder / _GROUP
        former = Path(note.read_text(encoding="utf-8")) if note.exists() else self.folder
        if former != self.folder:
            withdraw(former)
            _release(former)
        note.write_text(str(self.folder), encoding="utf-8")

    def _order(self, job: dict[str, Any]) -> None:
        self._orders += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{_ORDER}.new"
        temporary.write_text(json.dumps({"number": self._orders, **job}), encoding="utf-8")
        temporary.replace(self.folder / _ORDER)


class _Group(threading.Thread):
    """The Ray Train run that the workers stand in."""

    def __init__(self, parallel: Parallel, folder: Path, seen: int) -> None:
        super().__init__(name="standing workers", daemon=True)
        self.parallel, self.folder, self.seen = parallel, folder, seen
        self.reason = "they ended"
        self.stopped = threading.Event()

    def run(self) -> None:
        """Until the workers are sent home or lost."""
        try:
            config = {"folder": str(self.folder), "seen": self.seen}
            fit_group(_stand, config, self.parallel, self.folder, restarts=0, stopped=self.stopped.is_set)
        except Exception as error:
            self.reason = " ".join(str(error).split())[:300]


def _release(folder: Path) -> bool:
    """Take a group's CPUs and GPUs back from its workers, which end with that; false where none have come yet."""
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    path = folder / _PLACEMENT_GROUP
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(text))))
    return bool(text)


def _stand(config: dict[str, Any]) -> None:
    """What each worker runs: order after order."""
    import ray.util

    folder = Path(config["folder"])
    desk = _Desk(folder / _ORDER, config["seen"])
    group = ray.util.get_current_placement_group()
    if desk.is_first and group is not None:
        (folder / _PLACEMENT_GROUP).write_text(group.id.hex(), encoding="utf-8")
    _work(desk)


def _work(desk: "_Desk") -> None:
    """Train what is ordered, run after run.

    A run is ordered when the one before has ended. Of a trial that is so for good, and now that no worker writes its
    checkpoints any more they are removed; a final run that failed goes on from them when it is resumed.
    """
    former: dict[str, Any] = {}
    while job := desk.next_job():
        if desk.is_first and former and not former["final"]:
            remove_checkpoints(Path(former["folder"]))
        experiment = Experiment.model_validate_json(job["experiment"])
        train_job(experiment, job["data"], Path(job["folder"]), job["final"], desk.has_news)
        former = job


class _Desk:
    """Where the workers of a group learn what is to be done; the first one looks, all are told."""

    def __init__(self, path: Path, seen: int) -> None:
        import torch.distributed as dist

        self.path, self.seen = path, seen
        self.is_first = dist.get_rank() == 0

    def next_job(self) -> dict[str, Any]:
        """Wait for an order that has not been seen; empty where there is nothing more to do."""
        while True:
            order = self._told(self._wait)
            if order is not None:
                self.seen = order.pop("number")
                return order

    def has_news(self) -> bool:
        """Whether there is another order."""
        return self._told(self._look) is not None

    def _wait(self) -> dict[str, Any] | None:
        """The next order, or None after a while, so that those who wait to be told don't run into their timeout."""
        until = time.monotonic() + _HEARTBEAT_SECONDS
        while (order := self._look()) is None and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        return order

    def _look(self) -> dict[str, Any] | None:
        order: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return order if order["number"] > self.seen else None

    def _told(self, look: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """What the first worker finds."""
        import torch.distributed as dist

        found = [look() if self.is_first else None]
        dist.broadcast_object_list(found)
        return found[0]
