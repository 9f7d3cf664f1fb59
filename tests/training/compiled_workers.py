"""Two gloo workers, and one alone, that train by compiled steps and by plain ones.

Usage: compiled_workers.py FOLDER. The workers' numbers are written to FOLDER/SIZE.json.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import fork_workers
from small_runs import experiment, small_task

from bbh_dist.noise import keyed_generator
from bbh_dist.training import Trainer, Workers

NAMES = ("map", "layerwise")


def main(folder: Path) -> int:
    """Train with each number of workers."""
    torch.set_num_threads(1)
    torch.compiler.set_default_backend("aot_eager")
    return fork_workers(1, partial(work, folder, 1)) or fork_workers(2, partial(work, folder, 2))


def work(folder: Path, size: int, rank: int) -> None:
    """What one of the workers does."""
    dist.init_process_group("gloo", init_method=(folder / f"meet-{size}").as_uri(), rank=rank, world_size=size)
    found = {f"{name}-{compile}": trained(name, size, compile) for name in NAMES for compile in (False, True)}
    if rank == 0:
        (folder / f"{size}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def trained(name: str, size: int, compile: bool) -> dict[str, Any]:
    """Loss of two steps, the sum of all parameters held here times fixed numbers, and whether anything fell back."""
    torch.compiler.reset()
    chosen = experiment(name, parallel={"workers": size, "compile": compile})
    trainer = Trainer(chosen, small_task(), Workers.of_process_group(chosen.shards(size)))
    losses = [float(trainer.workers.sum(trainer.step(step, torch.arange(5) + 5 * step)[0])) for step in range(2)]
    flat = torch.cat([parameter.detach().flatten() for parameter in trainer.method.parameters()])
    weights = torch.randn(len(flat), generator=keyed_generator("weights"), dtype=flat.dtype)
    return {
        "losses": losses,
        "parameters": float(flat @ weights),
        "fell back": compile and trainer._for_steps[0].failed,
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
