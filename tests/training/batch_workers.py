"""Two gloo workers train and predict with batch statistics; each writes what it got and what it has sent.

Usage: batch_workers.py FOLDER. Workers are forked, so that torch is imported once.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import fork_workers

from bbh_dist.config import Experiment
from bbh_dist.noise import keyed_generator
from bbh_dist.tasks import Augmentation, Categorical, Split, Task
from bbh_dist.training import Trainer, Workers

CASES: dict[str, dict[str, Any]] = {
    "map": {"method": {"name": "map"}},
    # One sample each, so every worker has whole batches and the statistics need no sum.
    "samples": {
        "method": {
            "name": "bbh",
            "generator": {"kind": "single", "hidden": [4], "noise_dim": 2},
            "likelihood_samples": 2,
            "kl_samples": 2,
        }
    },
}
EXAMPLES, BATCH, STEPS = 11, 5, 3
"""The last batch has one example, so one of the workers has none of it."""


def experiment(case: str, workers: int = 1) -> Experiment:
    """An epoch of three steps by plain SGD, whose state is the gradient."""
    settings = {
        "task": "cifar5",
        "network": "preact-resnet",
        "batch_size": BATCH,
        "epochs": 1,
        "precision": "float64",
        "optimizer": {"name": "sgd", "lr": 1e-5},
        "evaluation": {"samples": 2, "epoch_samples": 2},
        "parallel": {"workers": workers, "shards": 1},
    }
    return Experiment.model_validate(settings | CASES[case])


def image_task() -> Task:
    """Two classes of small images, augmented."""
    random = keyed_generator("image task")
    augmentation = Augmentation(channels=2, side=16, padded=20)
    labels = torch.arange(EXAMPLES) % 2
    images = torch.randint(0, 256, (EXAMPLES, 2, 18, 18), generator=random, dtype=torch.uint8)
    plain = Split(augmentation.plain(images, torch.float64), labels)
    return Task("images", Categorical(2), Split(images, labels), plain, plain, augmentation=augmentation)


def trained(case: str, workers: Workers) -> dict[str, Any]:
    """Metrics of an epoch, the sum of all parameters times fixed numbers, and what a step sent."""
    trainer = Trainer(experiment(case, workers.size), image_task(), workers)
    trainer.step(0, torch.arange(BATCH))
    sent = dict(workers.traffic)
    metrics = trainer.run_epoch()
    flat = torch.cat([parameter.detach().flatten() for parameter in trainer.method.parameters()])
    weights = torch.randn(len(flat), generator=keyed_generator("weights"), dtype=flat.dtype)
    numbers = {name: value for name, value in metrics.items() if name.startswith(("train/", "val/"))}
    return {"metrics": numbers, "parameters": float(flat @ weights), "norm": float(flat.norm()), "sent": sent}


def main(folder: Path, rank: int) -> None:
    """What one of the workers does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=2)
    found = {}
    for case in CASES:
        workers = Workers.of_process_group(1)
        found[case] = trained(case, workers)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(fork_workers(2, partial(main, Path(sys.argv[1]))))
