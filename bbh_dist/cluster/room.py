"""Room for a group of workers: how much a cluster has, and how one that can grow is asked for more."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from bbh_dist.config import Parallel

_POLL_SECONDS = 0.5
_SECONDS_TO_SETTLE = 5.0
"""What a lost group held is free again within these."""
_SECONDS_BETWEEN_NODES = 30.0
"""Nodes that were asked for together come within these of one another."""
_SECONDS_OF_DEMANDS, _SECONDS_OF_PAUSES = 6.0, 30.0
"""Ray's autoscaler looks every 5 s."""
_SECONDS_FOR_NODES = 600.0
"""How long a cluster that has become too small is waited for: a spot node's successor takes minutes."""
_FILE = "room"


def per_worker(parallel: Parallel) -> dict[str, float]:
    """What a worker holds, by Ray's names."""
    need: dict[str, float] = {"CPU": parallel.cpus_per_worker or 1}
    return need | {"GPU": 1} if parallel.use_gpu else need


def room(need: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """Workers for which nodes with these resources have room; none is split over two."""
    return sum(int(min(node.get(name, 0) // amount for name, amount in need.items())) for node in nodes)


def wait_for_room(parallel: Parallel, folder: Path, stopped: Callable[[], bool]) -> int:
    """How many workers can be started, once enough can; what other runs hold is waited for as long as it takes.

    While there are too few, a cluster that can grow is asked for all that a range may have; a range starts with those
    for which nodes came, and asks for none where it can start at once. Nothing is held any more on return.

    Raises:
        RuntimeError: the cluster has been too small for ten minutes.
    """
    with_all, with_fewest = parallel.max_workers, parallel.min_workers
    demand = _Demand(parallel, folder)
    began = large_enough = time.monotonic()
    came, before = -math.inf, 0
    try:
        while True:
            held = demand.held()
            there, free = _room_now(per_worker(parallel))
            free, now = free + held, time.monotonic()
            if demand.is_made and there > before:
                came = now
            before = there
            is_late = now - began > _SECONDS_TO_SETTLE
            settled = is_late and now - came > _SECONDS_BETWEEN_NODES
            if free >= with_all or stopped() or (settled and free >= with_fewest):
                return min(free, with_all)
            if there >= with_fewest:
                large_enough = now
            if now - large_enough > _SECONDS_FOR_NODES:
                raise RuntimeError(f"there is room for {there} workers, {with_fewest} are needed")
            if is_late and free < with_fewest:
                demand.insist()
            time.sleep(_POLL_SECONDS)
    finally:
        demand.end()


def withdraw(folder: Path) -> None:
    """End what a process that was killed asks and holds for a group of this folder."""
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    path = folder / _FILE
    for line in path.read_text(encoding="utf-8").split() if path.exists() else ():
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(line))))
    path.unlink(missing_ok=True)


def _room_now(need: Mapping[str, float]) -> tuple[int, int]:
    """Workers for which the cluster has room when it is idle, and now."""
    import ray
    from ray._private.state import available_resources_per_node  # ray.available_resources is their sum

    nodes = [node for node in ray.nodes() if node["Alive"]]
    available = cast(Any, available_resources_per_node)()
    there = room(need, (node["Resources"] for node in nodes))
    return there, min(there, room(need, (available.get(node["NodeID"], {}) for node in nodes)))


class _Demand:
    """Placement groups that wait for room: what an autoscaler goes by, as it sees nothing of a run that just waits.

    One is for the fewest workers, all or none, so that no two runs wait for each other with half of the room each. Of
    the others each has its own: no node is started for a group that would not fit as a whole. They are written down in
    the folder, for a successor: Ray removes them when their job ends, not when their actor is killed.
    """

    def __init__(self, parallel: Parallel, folder: Path) -> None:
        withdraw(folder)
        self._parallel, self._file = parallel, folder / _FILE
        self._fewest: Any = None
        self._others: list[Any] = []
        self._turned = -math.inf

    @property
    def is_made(self) -> bool:
        """Whether there was too little room once."""
        return self._fewest is not None

    def held(self) -> int:
        """Workers for which it holds room, which nobody else can take."""
        groups = [self._fewest, *self._others] if self.is_made else []
        return sum(len(group.bundle_specs) for group in groups if _is_placed(group))

    def insist(self) -> None:
        """Ask; where single workers hold room, with which the run cannot start and another may, ask for them in turns.

        They ask for some seconds, in which an autoscaler has looked, and then leave the room for longer.
        """
        from ray.util.placement_group import remove_placement_group

        seconds = time.monotonic() - self._turned
        if not self.is_made:
            self._fewest = self._made(self._parallel.min_workers)
        if not self._others and seconds > _SECONDS_OF_PAUSES:
            self._turned = time.monotonic()
            self._others = [self._made(1) for _ in range(self._parallel.max_workers - self._parallel.min_workers)]
        elif seconds > _SECONDS_OF_DEMANDS and any(map(_is_placed, self._others)):
            self._turned = time.monotonic()
            while self._others:
                remove_placement_group(self._others.pop())

    def end(self) -> None:
        """Give back what is held, and no longer ask."""
        from ray.util.placement_group import remove_placement_group

        for group in [self._fewest, *self._others] if self.is_made else []:
            remove_placement_group(group)
        self._file.unlink(missing_ok=True)

    def _made(self, workers: int) -> Any:
        from ray.util.placement_group import placement_group

        group = placement_group([per_worker(self._parallel)] * workers)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(group.id.hex() + "\n")
        return group


def _is_placed(group: Any) -> bool:
    from ray.util.placement_group import placement_group_table

    return bool(placement_group_table(group).get("state") == "CREATED")
