"""Save, find, read and export checkpoints."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bbh_dist.sharding import Workers
from bbh_dist.training.checkpoints import files
from bbh_dist.training.checkpoints.files import CheckpointError, described

# The modules that need safetensors are imported in functions: the core needs torch, numpy, pydantic and YAML only.
if TYPE_CHECKING:
    from bbh_dist.training.checkpoints.sharded import Reader

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    path: Path
    state: dict[str, Any]
    shapes: dict[str, tuple[torch.Size, torch.dtype]]
    """Of the whole tensors, however they lie on workers."""
    workers: Workers
    _reader: "Reader" = field(repr=False, compare=False)

    @property
    def epoch(self) -> int:
        """The epoch after which it was written, whatever its folder is called now."""
        return int(self.state["epoch"])

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill tensors in place, DTensors with this worker's part. All workers call this with the same names.

        Raises:
            CheckpointError: on every worker, where one asks for what is not stored or cannot read.
        """
        from torch.distributed.checkpoint.state_dict_loader import load

        from bbh_dist.training.checkpoints.sharded import LoadInto, collective

        with collective(f"{self.path} cannot be read", self.workers):
            load(dict(into), storage_reader=self._reader, planner=LoadInto(), no_dist=self.workers.size == 1)


def save_checkpoint(
    folder: Path, epoch: int, tensors: Mapping[str, Tensor], state: dict[str, Any], workers: Workers
) -> Path:
    """Write a checkpoint atomically, keep it and the one before, and return its path. All workers call this.

    `state` has to say the epoch too.

    A plain tensor is the same on every worker and is written by one of them; of a DTensor each writes its own part,
    and one of them those that several have.

    Raises:
        CheckpointError: on every worker, where one could not write.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    from bbh_dist.training.checkpoints.sharded import Writer, collective, save_plain

    final = files.folder_of(folder, epoch)
    writer = Writer(final, state, workers.rank)
    try:
        with collective(f"{final} cannot be written", workers):
            save(dict(tensors), storage_writer=writer, planner=save_plain(), no_dist=workers.size == 1)
    except BaseException:
        if workers.is_first:
            shutil.rmtree(files.temporary_of(final), ignore_errors=True)
        raise
    return final


def newest_checkpoint(folder: Path, workers: Workers) -> Checkpoint | None:
    """The newest whole checkpoint, the same on all workers, who all call this; damaged ones are named on stderr."""
    for path in _of_first(workers, lambda: files.checkpoint_folders(folder)):
        try:
            return open_checkpoint(path, workers)
        except CheckpointError as error:
            if workers.is_first:
                print(f"{path}: damaged checkpoint passed over: {error}", file=sys.stderr)
    return None


def open_checkpoint(path: Path, workers: Workers) -> Checkpoint:
    """A checkpoint, once its files are checked; each worker checks a share of them. All workers call this.

    Raises:
        CheckpointError: on every worker, where one finds it damaged.
    """
    return _on_all(workers, lambda: _open(path, workers))


def export_checkpoint(checkpoint: Checkpoint, output: Path, prefix: str = "") -> None:
    """Write whole tensors to one file of safetensors, atomically, with the state as JSON values in its header.

    Of tensors whose names begin with `prefix`, which is left out. One worker calls this, not all.

    Raises:
        CheckpointError: the checkpoint cannot be read or the file not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    shapes = {name: shape for name, shape in checkpoint.shapes.items() if name.startswith(prefix)}
    tensors = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in shapes.items()}
    replace(checkpoint, workers=Workers()).read(tensors)
    header = {"format": "pt"} | {key: json.dumps(value) for key, value in checkpoint.state.items()}
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        save_file({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, temporary, header)
        files.flush(temporary)
        temporary.rename(output)
        files.flush(output.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{output} cannot be written: {described(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path, workers: Workers) -> Checkpoint:
    from bbh_dist.training.checkpoints.sharded import Reader

    state = files.checked_state(path, workers.rank, workers.size)
    reader = Reader(path)
    stored: dict[str, Any] = reader.metadata.state_dict_metadata
    shapes = {name: (tensor.size, tensor.properties.dtype) for name, tensor in stored.items()}
    return Checkpoint(path, state, shapes, workers, reader)


def _on_all(workers: Workers, function: Callable[[], T]) -> T:
    """What a function gives on this worker, unless it fails on one: then every worker raises."""
    result: list[T] = []
    fault = ""
    try:
        result.append(function())
    except Exception as error:
        fault = described(error)
    faults = [fault] * workers.size
    if workers.size > 1:
        dist.all_gather_object(faults, fault)
    for found in filter(None, faults):
        raise CheckpointError(found)
    return result[0]


def _of_first(workers: Workers, function: Callable[[], T]) -> T:
    """What a function gives on the first worker."""
    box = [_on_all(workers, function)]
    if workers.size > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
