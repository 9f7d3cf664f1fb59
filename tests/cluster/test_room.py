"""A group waits for room, and asks a cluster that can grow for it: on a played cluster, in seconds of its own."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
import ray._private.state

from bbh_dist.cluster import room
from bbh_dist.config import Parallel, WorkerRange

POLL = 0.5


class Id(NamedTuple):
    number: int

    def hex(self) -> str:
        return f"{self.number:036x}"


@dataclass
class Group:
    """A placement group."""

    id: Any
    bundle_specs: list[dict[str, float]] = field(default_factory=list)
    nodes: list[int] | None = None


@dataclass
class PlayedCluster:
    """Nodes with cores, placement groups, and an autoscaler as Ray's second: it starts nodes for whole groups only."""

    total: dict[int, float] = field(default_factory=dict)
    taken: dict[int, float] = field(default_factory=dict)
    grows_to: int = 0
    cores_of_a_node: int = 1
    seconds_to_boot: float = 120.0
    seconds_between_nodes: float = 10.0
    seconds_between_looks: float = 0.0
    looked: float = 0.0
    now: float = 1000.0
    groups: dict[str, Group] = field(default_factory=dict)
    booting: list[float] = field(default_factory=list)
    ever: list[int] = field(default_factory=list)
    """Bundles of each group that was ever made."""
    events: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert self.now < 10_000, "still waiting"
        self._place()
        self._grow()
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()
        for booted in [at for at in self.booting if at <= self.now]:
            self.booting.remove(booted)
            self.total[max(self.total, default=-1) + 1] = self.cores_of_a_node
        self._place()

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        self.events.append((self.now + seconds, what))

    def free(self, node: int) -> float:
        held = [bundle["CPU"] for group in self.groups.values() for bundle, at in _placed(group) if at == node]
        return self.total[node] - self.taken.get(node, 0) - sum(held)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": str(n), "Alive": True, "Resources": {"CPU": cores}} for n, cores in self.total.items()]

    def available(self) -> dict[str, dict[str, float]]:
        return {str(node): {"CPU": self.free(node)} for node in self.total}

    def make(self, bundles: list[dict[str, float]]) -> Group:
        self.ever.append(len(bundles))
        group = Group(Id(len(self.ever)), bundles)
        self.groups[group.id.hex()] = group
        return group

    def remove(self, group: Group) -> None:
        self.groups.pop(group.id.hex(), None)

    def table(self, group: Group) -> dict[str, Any]:
        return {"state": "PENDING" if group.nodes is None else "CREATED"} if group.id.hex() in self.groups else {}

    def _place(self) -> None:
        for group in self.groups.values():
            if group.nodes is None:
                group.nodes = _fit(group.bundle_specs, {node: self.free(node) for node in self.total})

    def _grow(self) -> None:
        if self.now - self.looked < self.seconds_between_looks:
            return
        self.looked = self.now
        free = {node: self.free(node) for node in self.total}
        free |= {-1 - number: float(self.cores_of_a_node) for number in range(len(self.booting))}
        waiting = [group for group in self.groups.values() if group.nodes is None]
        for group in sorted(waiting, key=lambda group: -len(group.bundle_specs)):
            for more in range(self.grows_to - len(self.total) - len(self.booting) + 1):
                trial = free | {1000 + number: float(self.cores_of_a_node) for number in range(more)}
                if _fit(group.bundle_specs, trial) is None:
                    continue
                for _ in range(more):
                    gap = self.seconds_between_nodes * len(self.booting)
                    self.booting.append(self.now + self.seconds_to_boot + gap)
                    trial[-len(self.booting)] = trial.pop(max(trial))
                _fit(group.bundle_specs, trial)
                free = trial
                break


def _placed(group: Group) -> list[tuple[dict[str, float], int]]:
    return list(zip(group.bundle_specs, group.nodes, strict=True)) if group.nodes is not None else []


def _fit(bundles: list[dict[str, float]], free: dict[int, float]) -> list[int] | None:
    """A node for each bundle, taken from what is free, or nothing at all."""
    left, nodes = dict(free), []
    for bundle in bundles:
        node = next((node for node, cores in left.items() if cores >= bundle["CPU"]), None)
        if node is None:
            return None
        left[node] -= bundle["CPU"]
        nodes.append(node)
    free.update(left)
    return nodes


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> PlayedCluster:
    played = PlayedCluster()
    groups = importlib.import_module("ray.util.placement_group")
    monkeypatch.setattr(room, "time", played)
    monkeypatch.setattr(ray, "nodes", played.nodes)
    monkeypatch.setattr(ray, "PlacementGroupID", lambda raw: Id(int.from_bytes(raw, "big")))
    monkeypatch.setattr(ray._private.state, "available_resources_per_node", played.available)
    monkeypatch.setattr(groups, "PlacementGroup", Group)
    monkeypatch.setattr(groups, "placement_group", played.make)
    monkeypatch.setattr(groups, "remove_placement_group", played.remove)
    monkeypatch.setattr(groups, "placement_group_table", played.table)
    return played


def workers(parallel: Parallel, folder: Path, stopped: Callable[[], bool] = lambda: False) -> int:
    return room.wait_for_room(parallel, folder, stopped)


TWO = Parallel(workers=2)


def test_where_there_is_room_nothing_is_waited_for_and_nothing_asked(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total = {0: 2}
    assert workers(TWO, tmp_path) == 2
    assert (cluster.now, cluster.ever, list(tmp_path.iterdir())) == (1000, [], [])


def test_a_cluster_that_has_no_node_yet_is_asked_for_them(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.grows_to = {0: 0}, 4
    assert workers(TWO, tmp_path) == 2
    assert (len(cluster.total), cluster.booting, cluster.groups) == (3, [], {})
    assert list(tmp_path.iterdir()) == []


def test_a_lost_node_has_a_successor(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.grows_to = {0: 0, 1: 1}, 4
    assert workers(TWO, tmp_path) == 2
    assert len(cluster.total) == 3


@pytest.mark.parametrize(("limit", "expected"), [(9, 4), (5, 4), (4, 3), (2, 1)])
def test_a_range_gets_the_nodes_that_the_cluster_may_have(
    cluster: PlayedCluster, tmp_path: Path, limit: int, expected: int
) -> None:
    cluster.total, cluster.grows_to = {0: 0}, limit
    assert workers(Parallel(workers=WorkerRange(min=1, max=4)), tmp_path) == expected
    assert (len(cluster.total), cluster.groups) == (1 + expected, {})


def test_a_range_keeps_what_it_can_start_with_while_more_nodes_come(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.grows_to, cluster.seconds_between_nodes, free = {0: 0}, 3, 20, []
    cluster.at(140, lambda: free.append(cluster.free(1)))
    assert workers(Parallel(workers=WorkerRange(min=1, max=4)), tmp_path) == 2
    assert free == [0]


def test_a_range_that_can_start_asks_for_nothing(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.grows_to = {0: 0, 1: 1, 2: 1}, 9
    assert workers(Parallel(workers=WorkerRange(min=2, max=4)), tmp_path) == 2
    assert (cluster.now, cluster.ever) == (1000 + room._SECONDS_TO_SETTLE + POLL, [])


def test_what_a_lost_group_held_comes_back_before_anything_is_asked(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.taken = {0: 2}, {0: 2}
    cluster.at(4, cluster.taken.clear)
    assert (workers(TWO, tmp_path), cluster.now, cluster.ever) == (2, 1004, [])


def test_what_other_runs_hold_is_waited_for(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.taken = {0: 1, 1: 1}, {0: 1, 1: 1}
    cluster.at(1000, cluster.taken.clear)
    assert (workers(TWO, tmp_path), cluster.now) == (2, 2000)
    assert (cluster.ever, cluster.groups) == ([2], {})


def test_free_cores_of_several_nodes_make_no_worker(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.taken = {0: 4, 1: 4}, {0: 2, 1: 2}
    parallel = Parallel(workers=1, cpus_per_worker=3)
    cluster.at(60, cluster.taken.popitem)
    assert (workers(parallel, tmp_path), cluster.now) == (1, 1060)


def test_a_range_does_not_keep_what_is_too_little_to_start_with(cluster: PlayedCluster, tmp_path: Path) -> None:
    """Two of them would wait for each other for ever, each with a core of a machine that has two."""
    cluster.total, cluster.taken, free = {0: 2}, {0: 2}, []
    cluster.at(60, lambda: cluster.taken.update({0: 1}))
    cluster.at(62, lambda: free.append(cluster.free(0)))
    cluster.at(99, cluster.taken.clear)
    assert (workers(Parallel(workers=WorkerRange(min=2, max=3)), tmp_path), cluster.now) == (2, 1099)
    assert (free, cluster.ever[0], set(cluster.ever[1:]), cluster.groups) == ([1], 2, {1}, {})


def test_a_free_core_does_not_use_up_what_a_range_asks_for(cluster: PlayedCluster, tmp_path: Path) -> None:
    """It is given to one single worker after the other, before an autoscaler has looked."""
    cluster.total, cluster.grows_to, cluster.seconds_between_looks = {0: 0, 1: 1}, 9, 5.0
    assert workers(Parallel(workers=WorkerRange(min=2, max=8)), tmp_path) == 8
    assert cluster.groups == {}


def test_room_that_comes_while_it_is_counted_is_kept(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total, cluster.taken = {0: 2}, {0: 2}

    def placed_after_it_was_asked() -> dict[str, dict[str, float]]:
        if cluster.now == 1060:
            cluster.taken.clear()
            cluster._place()
        return PlayedCluster.available(cluster)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray._private.state, "available_resources_per_node", placed_after_it_was_asked)
        assert (workers(TWO, tmp_path), cluster.now) == (2, 1060.5)
    assert cluster.ever == [2]


def test_a_cluster_that_stays_too_small_is_told_and_nothing_stays_asked(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total = {0: 1}
    with pytest.raises(RuntimeError, match="there is room for 1 workers, 2 are needed"):
        workers(TWO, tmp_path)
    assert (cluster.ever, cluster.groups, list(tmp_path.iterdir())) == ([2], {}, [])
    assert cluster.now == pytest.approx(1000 + room._SECONDS_FOR_NODES, abs=1)


def test_a_run_that_is_stopped_asks_no_longer(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total = {0: 0}
    workers(TWO, tmp_path, lambda: cluster.now > 1100)
    assert (cluster.ever, cluster.groups) == ([2], {})


def test_what_a_killed_process_asked_for_is_given_back(cluster: PlayedCluster, tmp_path: Path) -> None:
    cluster.total = {0: 2}

    class KilledError(BaseException):
        pass

    def kill() -> None:
        raise KilledError

    cluster.taken = {0: 2}
    cluster.at(60, kill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room._Demand, "end", lambda demand: None)
        with pytest.raises(KilledError):
            workers(TWO, tmp_path)
    cluster.taken = {}
    cluster._place()
    assert (len(cluster.groups), cluster.free(0)) == (1, 0)  # held for nobody
    assert workers(TWO, tmp_path) == 2
    assert (cluster.groups, list(tmp_path.iterdir())) == ({}, [])
