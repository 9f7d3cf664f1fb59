"""Time and memory of a training step: every method beside MAP on the same network and batch."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bbh_dist.factored import backend
from bbh_dist.provenance import cores
from bbh_dist.speed import experiments, figure, options, plain
from bbh_dist.speed.bounds import bound
from bbh_dist.speed.device import STEPS_BEFORE_WAITING, Device
from bbh_dist.speed.machine import machine
from bbh_dist.speed.processes import Processes
from bbh_dist.speed.progress import Progress
from bbh_dist.speed.report import TIMES, column, number, size
from bbh_dist.speed.timing import STEPS_A_TURN, Turns, alternate, ratio, summary
from bbh_dist.speed.worker import Sharded
from bbh_dist.training import Trainer

COLUMNS = [
    ("contestant", lambda row: row["name"]),
    ("S", lambda row: str(row["likelihood_samples"])),
    *TIMES,
    column("x\nMAP", "ratio", number),
    column("x plain\nMAP", "plain_ratio", number),
    column("x\nbound", "bound_ratio", number),
    column("memory", "peak_memory", size),
]
GROUP = "likelihood_samples"
_STEPS_FOR_MEMORY = 3


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The measurement as JSON has it, with a title and notes."""
    threads = given.threads or cores()
    torch.set_num_threads(threads)
    device = Device(threads, given.gpu)
    device.check()
    facts = machine(threads, device.name)
    rows: list[dict[str, Any]] = []
    with Progress() as told:
        for likelihood_samples in given.likelihood_samples:
            rows += _rows(given, likelihood_samples, device, told)
    title = f"one training step, {given.network}, batch {given.batch_size}, {given.kl_samples} KL samples"
    notes = [
        "time: wall clock of Trainer.step, that is noise, weights, forward, divergence, backward, update; without "
        f"loading data; contestants in turns of {_turn(given.gpu)}; x MAP is the median of the ratios within rounds",
        f"memory: most that {_held(given.gpu, rows)} after {_STEPS_FOR_MEMORY} steps in a process of its own; "
        "S: weight samples in the likelihood, where a method may have several",
        "x bound: the larger of bytes moved and operations, counted, at this machine's own best rates",
        "x plain MAP: LeNet with Adam as one writes it in plain torch, in turns with the others; "
        "peers' multiples are of such a step" + "".join(_plain_times(row) for row in rows if row["name"] == "map"),
        f"layer-wise: RMSProp, as in the paper, the others Adam; updated by {backend(device.torch)}",
    ]
    if given.compile:
        notes.append("compiled by torch.compile, all but plain MAP")
    return {
        "command": "step",
        "machine": facts,
        "settings": options.settings(given),
        "rows": rows,
        "title": title,
        "notes": notes,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figure: a step's time, the machine's bound, and how many times MAP's it is."""
    groups = {row[GROUP]: f"{row[GROUP]} likelihood sample{'s' * (row[GROUP] > 1)}" for row in rows}

    def times(axes: Any) -> None:
        def text(row: Any) -> str:
            return f"{number(row['median'])} ms, {number(row['ratio'])} x MAP, {size(row['peak_memory'])}"

        label = "median time of a training step, line: least to most [ms]"
        bounds = [row["bound"] for row in rows]
        figure.bars(axes, rows, "median", label, text, group=GROUP, groups=groups, log=True, also=bounds)
        figure.marks(axes, rows, "bound", "lower bound of this machine", group=GROUP, groups=groups)

    figure.draw(path, [times], height=0.9 + 0.35 * len(rows))


def _rows(given: argparse.Namespace, likelihood_samples: int, device: Device, told: Progress) -> list[dict[str, Any]]:
    names = [*given.methods, *([experiments.LAYERWISE_PLAIN] if given.plain else [])]
    chosen = {
        name: experiments.experiment(
            name,
            network=given.network,
            hidden=given.hidden,
            batch_size=given.batch_size,
            kl_samples=given.kl_samples,
            likelihood_samples=likelihood_samples,
            divergence=given.divergence,
            compile=given.compile,
            gpu=given.gpu,
        )
        for name in names
    }
    runs = {}
    for name, experiment in chosen.items():
        told(f"{likelihood_samples} likelihood samples, building {name}")
        runs[name] = Sharded(Trainer(experiment, experiments.task(), device=device.torch))
    contestants = {name: partial(device.milliseconds, run.step) for name, run in runs.items()}
    if given.network == "lenet":
        contestants[plain.NAME] = partial(
            device.milliseconds, plain.PlainMap(experiments.task(), given.batch_size, device.torch).step
        )
    rounds = -(-given.repeats // STEPS_A_TURN)
    times: dict[str, Turns] = alternate(contestants, rounds, STEPS_A_TURN, warm_up=3, told=told)
    runs.clear()
    contestants.clear()
    device.free()  # of gigabytes, which the processes below need
    told(f"{likelihood_samples} likelihood samples, memory of each in a process of its own")
    with ThreadPoolExecutor(2) as pool:
        memory = dict(zip(chosen, pool.map(_memory, chosen.values()), strict=True))
    return [
        {
            "name": name,
            "likelihood_samples": likelihood_samples,
            "optimizer": experiment.optimizer.name,
            **summary(times[name]),
            "ratio": ratio(times[name], times["map"]),
            "plain_ratio": ratio(times[name], times[plain.NAME]) if plain.NAME in times else None,
            "plain": summary(times[plain.NAME]) if plain.NAME in times else None,
            **bound(experiment, summary(times[name])["median"], device),
            **memory[name],
        }
        for name, experiment in chosen.items()
    ]


def _turn(gpu: bool) -> str:
    if gpu:
        return f"{STEPS_A_TURN} times {STEPS_BEFORE_WAITING} steps, after which the host waits; a time is their mean"
    return f"{STEPS_A_TURN} steps"


def _held(gpu: bool, rows: list[dict[str, Any]]) -> str:
    if gpu:
        return "tensors, those of the data too, have taken on the GPU"
    return f"has been held, of which {size(rows[0]['memory_before'])} are the interpreter and torch,"


def _plain_times(row: dict[str, Any]) -> str:
    times, samples = row["plain"], row["likelihood_samples"]
    return (
        f"; S = {samples}: {number(times['median'])} ms ({number(times['min'])}-{number(times['max'])})"
        if times
        else ""
    )


def _memory(experiment: Any) -> dict[str, int]:
    with Processes("sharded", experiment) as process:
        before = process.ready()
        for _ in range(_STEPS_FOR_MEMORY):
            process.step()
        return {"peak_memory": process.peak_memory(), "memory_before": before}
