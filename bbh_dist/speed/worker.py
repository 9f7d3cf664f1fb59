"""One of the processes of `Processes`: builds its part of a run, then takes steps and says how long they took.

Usage: python -m bbh_dist.speed.worker, questions on standard input.
"""

import json
import os
import sys
from typing import Any, Protocol

import torch
import torch.distributed as dist

from bbh_dist.config import Experiment
from bbh_dist.speed import experiments
from bbh_dist.speed.ddp import DataParallel
from bbh_dist.speed.machine import peak_memory
from bbh_dist.speed.timing import milliseconds
from bbh_dist.training import Trainer, Workers


class Run(Protocol):
    """Something that trains, with a count of the bytes that it has sent."""

    traffic: dict[str, int]

    def step(self) -> None:
        """Take the next step."""


class Sharded:
    """A trainer's steps over random batches."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.traffic, self.number = trainer, trainer.workers.traffic, 0

    def step(self) -> None:
        """Take the next step."""
        self.trainer.step(self.number, experiments.batch(self.trainer, self.number))
        self.number += 1


def main() -> None:
    """Answer questions until there are no more."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**entries: Any) -> None:
        print(json.dumps(entries), file=answers, flush=True)

    question = json.loads(sys.stdin.readline())
    torch.set_num_threads(question["threads"])
    workers, before = joined(question), peak_memory()
    run = built(question["kind"], Experiment.model_validate_json(question["experiment"]), workers)
    workers.wait()
    answer(before=before)
    for line in sys.stdin:
        if json.loads(line)["do"] == "peak":
            answer(peak=peak_memory())
            continue
        sent = dict(run.traffic)
        workers.wait()
        ms = milliseconds(run.step)
        answer(ms=ms, traffic={kind: count - sent.get(kind, 0) for kind, count in run.traffic.items()})
    if workers.size > 1:
        dist.destroy_process_group()


def joined(question: dict[str, Any]) -> Workers:
    """The workers of a run, when all have come."""
    if question["size"] == 1:
        return Workers()
    dist.init_process_group(
        "gloo", init_method=question["meet"], rank=question["rank"], world_size=question["size"]
    )
    return Workers.of_process_group(question["size"] if question["kind"] == "sharded" else 1)


def built(kind: str, experiment: Experiment, workers: Workers) -> Run:
    """This worker's part of a run."""
    task = experiments.task()
    return Sharded(Trainer(experiment, task, workers)) if kind == "sharded" else DataParallel(experiment, task, workers)


if __name__ == "__main__":
    main()
