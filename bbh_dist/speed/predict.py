"""Predictions with sampled weights beside the bare network's forward pass on as many examples and samples."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bbh_dist.evaluation import predict
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import LeNet, build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.provenance import cores
from bbh_dist.speed import bare, experiments, figure, options
from bbh_dist.speed.machine import machine
from bbh_dist.speed.progress import Progress
from bbh_dist.speed.report import TIMES, column, number
from bbh_dist.speed.timing import Turns, alternate, milliseconds, ratio, summary

COLUMNS = [
    ("contestant", lambda row: row["name"]),
    ("samples", lambda row: str(row["samples"])),
    *TIMES,
    column("examples x samples/s", "rate", number),
    column("share of bare", "share", lambda share: f"{share:.0%}"),
]
GROUP = ""
_NAMES = ("map", "bbh-single", "bbh-layerwise")
_BARE, _TRIES, _SAMPLES_PER_PASS = "bare network", 5, 5


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The measurement as JSON has it, with a title and notes."""
    threads = given.threads or cores()
    torch.set_num_threads(threads)
    facts = machine(threads)
    with Progress() as told:
        told("looking for the fastest way through the bare network")
        images = experiments.images(given.examples)
        weights = bare.random_weights(LeNet(experiments.SHAPE, experiments.CLASSES))
        batch, channels_last = bare.fastest(weights, images, _TRIES)
        runs: dict[str, Callable[[], Any]] = {
            _BARE: lambda: [bare.logits(weights, images, batch, channels_last) for _ in range(_passes(given))]
        }
        noise = Noise(0, "test", 0, range(given.samples))
        for name in _NAMES:
            told(f"building {name}")
            runs[name] = partial(predict, _method(name, given.hidden), images, noise)
        contestants = {name: partial(milliseconds, run) for name, run in runs.items()}
        times = alternate(contestants, given.repeats, told=told)
    layout = "channels last" if channels_last else "channels first"
    notes = [
        f"bare: LeNet in plain torch, weights given, no gradients, batches of {batch}, {layout}: the fastest of "
        f"{len(bare.BATCHES)} batch sizes and two layouts",
        "above 100 %: images of one channel are kept in the order that pooling likes, and oneDNN computes dense layers "
        "where MKL is slow, which plain torch does not do",
        "time: noise, weights, forward, softmax, means and entropies; share: median of the ratios within rounds; a "
        "point estimate has one sample",
    ]
    return {
        "command": "predict",
        "machine": facts,
        "settings": options.settings(given) | {"bare_batch": batch, "bare_channels_last": channels_last},
        "rows": [_row(name, times, given) for name in times],
        "title": f"predictions for {given.examples} examples, lenet",
        "notes": notes,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figure: the share of the bare network's speed that each method's predictions have."""
    percent = [row | {"percent": 100 * row["share"], "all": True} for row in rows if row["name"] != _BARE]

    def shares(axes: Any) -> None:
        from bbh_dist.report import style

        def text(row: Any) -> str:
            return f"{row['percent']:.0f} %, {number(row['rate'])} examples x samples/s"

        label = "speed of predictions, as a share of the bare network's forward pass [%]"
        looks: dict[str, Any] = {"group": "all", "groups": {True: "median"}, "low": "", "high": "", "text_from": 102}
        figure.bars(axes, percent, "percent", label, text, **looks)
        axes.axvline(100, color=style.INK, linewidth=1.2, label="bare network")
        most = max(100, *(row["percent"] for row in percent))
        axes.set_xlim(0, 1.9 * most)
        axes.set_xticks(range(0, int(most) + 1, 20 if most < 120 else 50))

    figure.draw(path, [shares], height=1.4 + 0.5 * len(percent))


def _row(name: str, times: dict[str, Turns], given: argparse.Namespace) -> dict[str, Any]:
    samples = {"map": 1, _BARE: _passes(given)}.get(name, given.samples)
    found = summary(times[name])
    slower = ratio(times[name], times[_BARE]) * _passes(given) / samples
    rate = 1000 * given.examples * samples / found["median"]
    return {"name": name, "samples": samples, **found, "ratio": slower, "share": 1 / slower, "rate": rate}


def _passes(given: argparse.Namespace) -> int:
    """Times that the bare network sees all examples: fewer than there are samples, they are all alike."""
    return -(-given.samples // _SAMPLES_PER_PASS)


def _method(name: str, hidden: str) -> Method:
    experiment = experiments.experiment(name, hidden=hidden)
    network = build_network(experiment.network, experiments.SHAPE, experiments.CLASSES)
    return build_method(experiment.method, network, keyed_generator("initial", 0))
