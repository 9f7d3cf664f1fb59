"""Two gloo workers, forked so that torch is imported once: take a step of every case and write what they sent.

Usage: one_step.py FOLDER
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from forked import fork_workers
from small_costs import CASES, CLASSES, INPUT_SHAPE, experiment

from bbh_dist.tasks import Categorical, Split, Task
from bbh_dist.training import Trainer, Workers


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=2)
    split = Split(torch.rand(22, *INPUT_SHAPE), torch.arange(22) % CLASSES)
    traffic = {}
    for case in CASES:
        settings = experiment(case, workers=2)
        workers = Workers.of_process_group(settings.shards(2))
        Trainer(settings, Task("small", Categorical(CLASSES), split, split, split), workers).step(0, torch.arange(11))
        traffic[case] = dict(workers.traffic)
    (folder / f"{rank}.json").write_text(json.dumps(traffic))
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(fork_workers(2, partial(main, Path(sys.argv[1]))))
