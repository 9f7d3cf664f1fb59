"""Workers that count what they would send, and send nothing."""

from collections import Counter

from torch import Tensor

from bbh_dist.sharding import Group, Shards, Workers


class CountedGroup(Group):
    """A group of which this process plays one worker; on the meta device nothing needs to arrive."""

    def _add_up(self, tensor: Tensor) -> None:
        return None

    def _swap(self, received: Tensor, sent: Tensor, incoming: list[int], outgoing: list[int]) -> None:
        return None

    def wait(self) -> None:
        """Return at once."""


def counted_workers(size: int, shards: int, rank: int = 0) -> Workers:
    """A worker among `size`, laid out as `Workers.of_process_group` does."""
    traffic: Counter[str] = Counter()
    replica, shard = divmod(rank, shards)
    groups = [
        CountedGroup(shard, shards, traffic=traffic),
        CountedGroup(replica, size // shards, traffic=traffic),
    ]
    return Workers(rank, size, CountedGroup(rank, size, traffic=traffic), Shards(*groups))
