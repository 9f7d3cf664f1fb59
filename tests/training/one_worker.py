"""One of several gloo workers: trains every method of `small_runs` and writes what came out.

Usage: one_worker.py RANK SIZE FOLDER
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small_runs import METHODS, experiment, small_task

from bbh_dist.training import Diverged, Trainer, Workers


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=size)
    for name in METHODS:
        trainer = Trainer(experiment(name, optimizer={"gradient_clip": 1.0}), small_task(), Workers.of_process_group(1 if name == "map" else 2))
        while not trainer.done:
            trainer.run_epoch()
            trainer.save(folder / f"{name}-checkpoints")
        save_file(dict(trainer.method.state_dict()), folder / f"{name}-{rank}.safetensors")
        (folder / f"{name}-{rank}.json").write_text(json.dumps([trainer.history, trainer.test()]))
    (folder / f"poisoned-{rank}.txt").write_text(poisoned(Workers.of_process_group()))
    dist.destroy_process_group()


def poisoned(workers: Workers) -> str:
    """What a worker says where only the first one's share of the first batch is poisoned."""
    trainer = Trainer(experiment("map"), small_task(), workers)
    step, inputs = trainer._step, trainer.task.train.inputs

    def poisoning(number: int, batch: torch.Tensor) -> torch.Tensor:
        inputs[batch[0]] = torch.nan
        return step(number, batch)

    trainer._step = poisoning  # type: ignore[method-assign]
    try:
        trainer.run_epoch()
    except Diverged as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
