"""Groups of gloo workers, one after another, that write and read each other's checkpoints.

Usage: checkpoint_workers.py FOLDER. Workers are forked, so that torch is imported once. Each writes what became of its
part to FOLDER/PART-RANK.txt: "ok", or how it failed.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    files,
    newest_checkpoint,
    save_checkpoint,
    sharded,
)

STATE = {"epoch": 1, "history": [{"val/nll": 0.1 + 0.2}]}


def whole() -> dict[str, Tensor]:
    """The whole tensors. Those named `rows.` are spread over workers, and some have fewer rows than workers."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(5, generator=generator)
    return {
        "rows.even": torch.randn(8, 3, generator=generator),
        "rows.uneven": torch.randn(7, 3, 2, generator=generator, dtype=torch.float64),
        "rows.five": torch.randn(5, generator=generator).bfloat16(),
        "rows.one": torch.randn(1, 2, generator=generator),
        "rows.none": torch.empty(0, 3),
        "rows.odd": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "plain": torch.randn(3, 4, generator=generator, dtype=torch.float64).mT,
        "plain.shared": shared,
        "plain.shared.again": shared,
        "plain.half": torch.randn(2, generator=generator).bfloat16(),
        "plain.count": torch.tensor(2**53 + 1),
    }


def spread(tensors: dict[str, Tensor], mesh: DeviceMesh) -> dict[str, Tensor]:
    """This worker's view of whole tensors: rows over the last dimension of the mesh, replicas over the others."""
    places = [Replicate()] * (mesh.ndim - 1) + [Shard(0)]
    return {
        name: distribute_tensor(tensor, mesh, places, src_data_rank=None) if name.startswith("rows.") else tensor
        for name, tensor in tensors.items()
    }


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def check_reads(checkpoint: Checkpoint | None, mesh: DeviceMesh) -> None:
    """See that a checkpoint fills this worker's tensors with the bits of the whole ones."""
    assert checkpoint is not None
    assert checkpoint.state == STATE
    assert checkpoint.shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in whole().items()}
    expected, into = spread(whole(), mesh), spread({name: torch.zeros_like(t) for name, t in whole().items()}, mesh)
    checkpoint.read(into)
    for name, tensor in expected.items():
        bits = [local(value).reshape(-1).contiguous().view(torch.uint8) for value in (into[name], tensor)]
        assert torch.equal(*bits), name


def two_write(folder: Path, workers: Workers) -> None:
    save_checkpoint(folder / "two", 1, spread(whole(), init_device_mesh("cpu", (2,))), STATE, workers)


def a_worker_fails(folder: Path, workers: Workers) -> None:
    """The second worker's disk is full, then the first one's."""
    tensors = spread(whole(), init_device_mesh("cpu", (2,)))
    kept = sharded.save_file
    for failing in (1, 0):

        def refuse(*arguments: object, failing: int = failing) -> None:
            kept(*arguments)
            if workers.rank == failing:
                raise OSError(28, "No space left on device")

        sharded.save_file = refuse
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharded, "save_file", refuse)
            with pytest.raises(CheckpointError, match=rf"worker {failing}: OSError: .* No space left on device"):
                save_checkpoint(folder / "two", 2, tensors, STATE, workers)
    dist.barrier()
    assert os.listdir(folder / "two") == ["epoch-000001"]


def one_asks_for_another_type(folder: Path, workers: Workers) -> None:
    found = newest_checkpoint(folder / "two", workers)
    assert found is not None
    dtype = torch.float32 if workers.rank == 1 else torch.float64
    with pytest.raises(CheckpointError, match=r"worker 1: plain is \(.*torch.float64\) in the checkpoint"):
        found.read({"plain": torch.zeros(4, 3, dtype=dtype)})


def a_damaged_one(folder: Path, workers: Workers) -> None:
    """The last worker's shard of the newest is damaged; the last worker is also the one who checks it."""
    mesh = init_device_mesh("cpu", (2,))
    path = save_checkpoint(folder / "two", 3, spread(whole(), mesh), STATE, workers)
    if workers.is_first:
        content = bytearray((path / "shard-00001.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "shard-00001.safetensors").write_bytes(content)
    dist.barrier()
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        found = newest_checkpoint(folder / "two", workers)
    assert found is not None
    assert found.epoch == 1
    line = f"{path}: damaged checkpoint passed over: shard-00001.safetensors does not have the sha256"
    assert errors.getvalue().startswith(line) if workers.is_first else not errors.getvalue()


def the_first_is_killed(folder: Path, workers: Workers) -> None:
    """Killed between the writing and the renaming; the other one does not wait for ever."""
    if workers.is_first:
        files.flush = lambda path: os.kill(os.getpid(), signal.SIGKILL) if path.suffix == ".json" else None
    with pytest.raises(RuntimeError):
        save_checkpoint(folder / "two", 4, spread(whole(), init_device_mesh("cpu", (2,))), STATE, workers)
    assert "state.json" in os.listdir(folder / "two" / ".epoch-000004")


def four_read_and_write(folder: Path, workers: Workers) -> None:
    mesh = init_device_mesh("cpu", (4,))
    check_reads(newest_checkpoint(folder / "two", workers), mesh)
    save_checkpoint(folder / "four", 1, spread(whole(), mesh), STATE, workers)


def four_of_two_by_two(folder: Path, workers: Workers) -> None:
    """Two replicas of rows over two workers each."""
    mesh = init_device_mesh("cpu", (2, 2))
    check_reads(newest_checkpoint(folder / "two", workers), mesh)
    save_checkpoint(folder / "two-by-two", 1, spread(whole(), mesh), STATE, workers)


def two_read(folder: Path, workers: Workers) -> None:
    for written in ("alone", "two", "four", "two-by-two"):
        check_reads(newest_checkpoint(folder / written, workers), init_device_mesh("cpu", (2,)))


def alone_writes(folder: Path, workers: Workers) -> None:
    assert not dist.is_initialized()
    save_checkpoint(folder / "alone", 1, whole(), STATE, workers)


Part = Callable[[Path, Workers], None]
GROUPS: list[tuple[int, list[Part]]] = [
    (1, [alone_writes]),
    (2, [two_write, a_worker_fails, one_asks_for_another_type]),
    (4, [four_read_and_write, four_of_two_by_two]),
    (2, [two_read, a_damaged_one, the_first_is_killed]),
]


def work(parts: list[Part], rank: int, size: int, folder: Path) -> None:
    if size > 1:
        meeting = (folder / f"meet-{parts[0].__name__}").as_uri()
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    for part in parts:
        outcome = "ok"
        try:
            part(folder, Workers(rank, size))
        except BaseException:
            outcome = traceback.format_exc()
        (folder / f"{part.__name__}-{rank}.txt").write_text(outcome)
        if outcome != "ok":
            return


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # torch does at first use, which would be in every worker
    for size, parts in GROUPS:
        for rank in range(size):
            if os.fork() == 0:
                work(parts, rank, size, folder)
                os._exit(0)
        for _ in range(size):
            os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
