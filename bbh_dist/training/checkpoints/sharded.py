"""How torch.distributed.checkpoint writes and reads shards of safetensors. Imported where a checkpoint is used only.

Its own writer for safetensors needs two more copies of the tensors in memory, takes none that is not contiguous or
shares its memory with another, and flushes a file to disk before its last bytes are handed to the system.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from bbh_dist.sharding import Workers
from bbh_dist.training.checkpoints import files
from bbh_dist.training.checkpoints.files import CheckpointError, described


class Writer(HuggingFaceStorageWriter):
    """Each worker writes its shard; the first one makes the folder before and the checkpoint whole after."""

    def __init__(self, final: Path, state: dict[str, Any], rank: int) -> None:
        super().__init__(path=str(files.temporary_of(final)), save_distributed=True)
        self._final, self._state, self._file = final, state, files.shard_name(rank)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is: only the first worker makes the folder."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """The plans as they are. The first worker calls this before any one writes."""
        files.begin(Path(self.path))
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """What was written, each with the name and the sha256 of this worker's file."""
        results: list[WriteResult] = []
        if plan.items:
            with _told_to_all():
                digest = self._write(plan.items, planner)
            results = [WriteResult(item.index, 0, (self._file, digest)) for item in plan.items]
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Make the checkpoint whole. The first worker calls this after all have written."""
        sums = dict(result.storage_data for written in results for result in written)
        files.commit(Path(self.path), self._final, sums, self._state)

    def _write(self, items: list[WriteItem], planner: SavePlanner) -> str:
        tensors: dict[str, Tensor] = {}
        offsets: dict[str, dict[str, list[int]]] = {}
        memory: set[int] = set()
        for item in items:
            tensor: Any = planner.resolve_data(item)
            tensor = tensor.detach().cpu().contiguous()
            address = tensor.untyped_storage().data_ptr()
            tensors[item.index.fqn] = tensor.clone() if address in memory else tensor
            memory.add(address)
            offsets[item.index.fqn] = {"saved_offsets": list(item.index.offset or ())}
        path = Path(self.path) / self._file
        save_file(tensors, path, {"format": "pt", "DCP_SHARDING_INFO": json.dumps(offsets)})
        return files.sealed(path)


class Reader(HuggingFaceStorageReader):
    """Reads headers when it is made, and tensors later."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.metadata = super().read_metadata()

    def read_metadata(self) -> Metadata:
        """Of all shards."""
        return self.metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy what the plan asks for into its tensors."""
        with _told_to_all():
            return super().read_data(plan, planner)


class LoadInto(DefaultLoadPlanner):
    """Plans to fill tensors that have the shape and type of the stored ones."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> LoadPlan:
        """What this worker reads.

        Raises:
            CheckpointError: a tensor is not stored, or with another shape or type.
        """
        assert self.metadata is not None
        stored: dict[str, Any] = self.metadata.state_dict_metadata
        for name, tensor in self.state_dict.items():
            found = (stored[name].size, stored[name].properties.dtype) if name in stored else "absent"
            if found != (tensor.shape, tensor.dtype):
                raise CheckpointError(f"{name} is {found} in the checkpoint, asked for as {tensor.shape, tensor.dtype}")
        return super().create_local_plan()


def save_plain() -> DefaultSavePlanner:
    """Plans to save a flat mapping of tensors."""
    return DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)


@contextlib.contextmanager
def collective(failed: str, workers: Workers) -> Iterator[None]:
    """Turn the failure of any worker into a `CheckpointError` of every worker; keep torch's warnings to ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CheckpointException as error:
            causes = {rank: cause for rank, (cause, _) in sorted(error.failures.items())}
            own = causes.get(workers.rank)
            if own is not None and not isinstance(own, Exception):
                raise own from None  # Ctrl-C stays what it is
            rank, cause = next(iter(causes.items()))
            who = f"worker {rank}: " if workers.size > 1 else ""
            raise CheckpointError(f"{failed}: {who}{described(cause)}") from cause


@contextlib.contextmanager
def _told_to_all() -> Iterator[None]:
    """Turn errors into one that travels between processes: with others the other workers would wait for ever."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(described(error)) from error


def _done(results: list[WriteResult]) -> Future[list[WriteResult]]:
    future: Future[list[WriteResult]] = Future()
    future.set_result(results)
    return future
