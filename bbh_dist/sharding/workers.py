"""The workers of a run, seen from one of them: torch.distributed, or a lone process."""

from collections import Counter
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from bbh_dist.sharding.group import Group
from bbh_dist.sharding.parts import SampleShare
from bbh_dist.sharding.shards import Shards


@dataclass(frozen=True)
class Workers:
    """This worker's rank among `size` workers; collective calls have to be made by all of them.

    Rows of weight samples are split over the `shards` workers of consecutive ranks; the others are replicas.
    """

    rank: int = 0
    size: int = 1
    all: Group = field(default_factory=Group)
    shards: Shards = field(default_factory=Shards)
    mesh: DeviceMesh | None = None
    """Replicas x shards."""

    @classmethod
    def of_process_group(cls, shards: int = 1, device: str = "cpu") -> "Workers":
        """The workers of torch's default process group; every one of them has to ask.

        Raises:
            ValueError: `shards` does not divide them.
        """
        rank, size = dist.get_rank(), dist.get_world_size()
        if size % shards:
            raise ValueError(f"{size} workers do not divide into groups of {shards} shards")
        traffic: Counter[str] = Counter()
        mesh = init_device_mesh(device, (size // shards, shards), mesh_dim_names=("replicas", "shards"))
        groups = [
            Group(mesh.get_local_rank(name), mesh.size(axis), mesh.get_group(name), traffic)
            for axis, name in ((1, "shards"), (0, "replicas"))
        ]
        return cls(rank, size, Group(rank, size, None, traffic), Shards(*groups), mesh)

    @property
    def is_first(self) -> bool:
        """Whether this worker writes files and logs."""
        return self.rank == 0

    @property
    def traffic(self) -> Counter[str]:
        """Bytes that this worker has sent to others, by kind."""
        return self.all.traffic

    def samples(self, count: int, *, splittable: bool = True) -> SampleShare:
        """The worker's share of `count` weight samples; all of them where they may not be split."""
        workers = self.size if self.shards.count == 1 else self.shards.count
        return SampleShare.among(count, workers, self.rank) if splittable else SampleShare(count)

    def examples(self, count: int, samples: SampleShare) -> range:
        """This worker's share of `count` examples: contiguous parts whose lengths differ by at most one.

        Each example belongs to as many workers as there are groups of samples.
        """
        parts, index = self.size // samples.groups, self.rank // samples.groups
        length, longer = divmod(count, parts)
        start = index * length + min(index, longer)
        return range(start, start + length + (index < longer))

    def sum(self, tensor: Tensor, kind: str = "metrics") -> Tensor:
        """The sum over workers, the same on each; in place."""
        return self.all.sum(tensor, kind)

    def wait(self) -> None:
        """Return when all workers have called this."""
        self.all.wait()

    def sharded(self, rows: Tensor, total: int) -> Tensor:
        """A distributed tensor of `total` rows, of which `rows` are this shard's; itself where it has them all."""
        if self.shards.count == 1:
            return rows
        assert self.mesh is not None
        from torch.distributed.tensor import DTensor, Replicate, Shard  # imported here: it takes a second

        shape = torch.Size((total, *rows.shape[1:]))
        placements = [Replicate(), Shard(0)]
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(rows, self.mesh, placements, run_check=False, shape=shape, stride=stride)
