"""One of the processes of `Processes`: builds its part of a run, then steps, and says how long, or trains.

Usage: python -m bbh_dist.speed.worker, questions on standard input.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist

from bbh_dist.config import Experiment
from bbh_dist.speed import experiments
from bbh_dist.speed.ddp import DataParallel
from bbh_dist.speed.device import Device
from bbh_dist.speed.timing import milliseconds
from bbh_dist.tasks import data_directory, load_task
from bbh_dist.training import Trainer, Workers

Replies = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers to questions."""


class Loop:
    """Trainings one after another."""

    def __init__(self, experiment: Experiment, workers: Workers) -> None:
        self.workers, self.task = workers, load_task(experiment.task, data_directory(None))

    def train(self, experiment: Experiment) -> None:
        """One training run from its start to its end, as a trial does it."""
        trainer = Trainer(experiment, self.task, self.workers)
        while not trainer.done:
            trainer.run_epoch()


class Run(Protocol):
    """Something that trains, with a count of the bytes that it has sent."""

    @property
    def traffic(self) -> Mapping[str, int]:
        """Bytes by kind."""

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
    experiment = Experiment.model_validate_json(question["experiment"])
    device = Device(question["threads"], experiment.parallel.use_gpu)
    workers, before = joined(question, experiment), device.peak_memory()
    if question["kind"] == "loop":
        replies = _trainings(Loop(experiment, workers))
    else:
        replies = _steps(built(question["kind"], experiment, workers, device), workers, device)
    workers.wait()
    answer(before=before)
    for line in sys.stdin:
        answer(**replies(json.loads(line)))
    if workers.size > 1:
        dist.destroy_process_group()


def _steps(run: "Run", workers: Workers, device: Device) -> Replies:
    def reply(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "peak":
            return {"peak": device.peak_memory()}
        sent = dict(run.traffic)
        workers.wait()
        ms = milliseconds(run.step)
        return {"ms": ms, "traffic": {kind: count - sent.get(kind, 0) for kind, count in run.traffic.items()}}

    return reply


def _trainings(loop: "Loop") -> Replies:
    def reply(question: dict[str, Any]) -> dict[str, Any]:
        loop.train(Experiment.model_validate_json(question["experiment"]))
        return {}

    return reply


def joined(question: dict[str, Any], experiment: Experiment) -> Workers:
    """The workers of a run, when all have come."""
    if question["size"] == 1:
        return Workers()
    dist.init_process_group("gloo", init_method=question["meet"], rank=question["rank"], world_size=question["size"])
    return Workers.of_process_group(experiment.shards(question["size"]) if question["kind"] == "sharded" else 1)


def built(kind: str, experiment: Experiment, workers: Workers, device: Device) -> Run:
    """This worker's part of a run."""
    task = experiments.task()
    if kind == "sharded":
        return Sharded(Trainer(experiment, task, workers, device.torch))
    return DataParallel(experiment, task, workers)


if __name__ == "__main__":
    main()
