"""The options of each measurement, and the rules for their values."""

import argparse
import re
from typing import Any

from bbh_dist.command_line import path
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.config.errors import shown

DIVERGENCES = ("semi_implicit", "knn", "knn_marginal", "gaussian", "discriminator")
GENERATORS = ("layerwise", "sliced", "single")
LAYERWISE_ADAM = "bbh-layerwise-adam"
CONTESTANTS = ("map", "dropout", "bbb", "mnf", "ensemble", "bbh-single", "bbh-sliced", "bbh-layerwise", LAYERWISE_ADAM)
"""Rows of a step's measurement."""
_MOST_UNITS = 65_536


def add(parser: argparse.ArgumentParser, command: str) -> None:
    """Add a measurement's options to its parser."""
    _common(parser, command)
    {"step": _step, "shard": _shard, "predict": _predict, "search": _search}[command](parser)


def check(given: argparse.Namespace) -> None:
    """See that all numbers are in their ranges; `workers` and `likelihood_samples` become lists.

    Raises:
        ConfigError: one is not.
    """
    for name in ("workers", "likelihood_samples"):
        if isinstance(text := getattr(given, name, None), str):
            setattr(given, name, _numbers(f"--{name.replace('_', '-')}", text))
    if getattr(given, "hidden", None) is not None:
        _numbers("--hidden", given.hidden, most=_MOST_UNITS)
    if getattr(given, "methods", None):
        given.methods = _contestants(given.methods)
    if getattr(given, "workers", None) and given.workers[0] != 1:
        _wrong("--workers", "must begin with 1, which the others are compared with", ",".join(map(str, given.workers)))
    if getattr(given, "bfloat16", False) and given.generator != "layerwise":
        _wrong("--bfloat16", "is for the layer-wise generator", f"--generator {given.generator}")
    largest = {"threads": 1024, "repeats": 10_000, "batch_size": 60_000, "examples": 60_000, "samples": 10_000}
    largest |= {"trials": 1000, "pair_trials": 1000, "epochs": 1000, "kl_samples": 4096}
    for name, most in largest.items():
        least = 0 if name == "pair_trials" else 2 if name == "kl_samples" else 1
        value = getattr(given, name, None)
        if value is not None and not least <= value <= most:
            _wrong(f"--{name.replace('_', '-')}", f"must be from {least} to {most}", str(value))


def _common(parser: argparse.ArgumentParser, command: str) -> None:
    add = parser.add_argument
    add("--json", type=path, metavar="FILE", help="also write the results to FILE")
    add(
        "--figure",
        type=path,
        metavar="FILE.png",
        help=f"where to draw (default: runs/speed/speed-{command}.png)",
    )


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch (default: all cores)")


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", default="lenet", metavar="NAME", help="main network (default: lenet)")
    _hidden(parser)


def _hidden(parser: argparse.ArgumentParser) -> None:
    help_ = "units of the weight generators' hidden layers (default: 64,256,512, the paper's)"
    parser.add_argument("--hidden", default="64,256,512", metavar="N,N,...", help=help_)


def _step(parser: argparse.ArgumentParser) -> None:
    _network(parser)
    _threads(parser)
    add = parser.add_argument
    help_ = "timed steps of each contestant, in turns of 3; on a GPU times of 30 steps each (default: 30)"
    add("--repeats", type=int, default=30, metavar="N", help=help_)
    add("--batch-size", type=int, default=100, metavar="N", help="examples per step (default: 100)")
    add("--kl-samples", type=int, default=5, metavar="N", help="weight samples in the KL estimate (default: 5)")
    add("--likelihood-samples", default="1,5", metavar="N,N", help="settings to measure (default: 1,5)")
    add("--divergence", choices=DIVERGENCES, default="semi_implicit", help="(default: semi_implicit)")
    help_ = f"rows to measure beside map (default: {','.join(CONTESTANTS[1:])})"
    add("--methods", default=",".join(CONTESTANTS[1:]), metavar="NAME,...", help=help_)
    add("--plain", action="store_true", help="also layer-wise without factored updates (4 GB)")
    add("--gpu", action="store_true", help="on this machine's first CUDA GPU")
    add("--compile", action="store_true", help="steps as parallel.compile has them, which takes a minute for each row")


def _shard(parser: argparse.ArgumentParser) -> None:
    _network(parser)
    add = parser.add_argument
    add("--workers", default="1,2", metavar="1,N,...", help="numbers of workers, one thread each (default: 1,2)")
    help_ = "timed steps of each contestant, in turns of 3 (default: 6)"
    add("--repeats", type=int, default=6, metavar="N", help=help_)
    add("--batch-size", type=int, default=100, metavar="N", help="global batch of one worker (default: 100)")
    add("--kl-samples", type=int, default=5, metavar="N", help="weight samples of one worker (default: 5)")
    add("--generator", choices=GENERATORS, default="layerwise", help="(default: layerwise)")
    help_ = "sharded heads and second moments in bfloat16, of the layer-wise generator"
    add("--bfloat16", action="store_true", help=help_)
    add("--no-ddp", action="store_true", help="leave out DistributedDataParallel, which needs 4 GB a worker")


def _predict(parser: argparse.ArgumentParser) -> None:
    _hidden(parser)
    _threads(parser)
    add = parser.add_argument
    add("--repeats", type=int, default=5, metavar="N", help="timed predictions of each contestant (default: 5)")
    add("--examples", type=int, default=1000, metavar="N", help="inputs (default: 1000)")
    add("--samples", type=int, default=100, metavar="N", help="weight samples (default: 100)")


def _search(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--repeats", type=int, default=1, metavar="N", help="studies, each with its plain loop (default: 1)")
    add("--trials", type=int, default=24, metavar="N", help="trials with one worker (default: 24, as bbh.yaml has)")
    add("--pair-trials", type=int, default=6, metavar="N", help="trials with two workers, 0 for none (default: 6)")
    add("--epochs", type=int, default=30, metavar="N", help="epochs of a trial (default: 30)")


def numbers(text: str) -> list[int]:
    """The numbers of a list with commas."""
    return [int(part) for part in text.split(",")]


def _numbers(flag: str, text: str, most: int = 64) -> list[int]:
    # Of up to 9 digits: int() takes no more than 4,300.
    if not all(re.fullmatch("[0-9]{1,9}", part) and 1 <= int(part) <= most for part in text.split(",")):
        _wrong(flag, f"must be numbers from 1 to {most} with commas between", shown(text))
    return numbers(text)


def _contestants(text: str) -> list[str]:
    """The chosen rows in the order of all, behind the one that they are compared with."""
    chosen = text.split(",")
    for name in chosen:
        if name not in CONTESTANTS:
            _wrong("--methods", f"must be of {', '.join(CONTESTANTS)} with commas between", name)
    return [name for name in CONTESTANTS if name in ("map", *chosen)]


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What was measured, for the JSON."""
    return {name: value for name, value in vars(given).items() if name not in ("command", "json", "figure")}


def _wrong(flag: str, rule: str, got: str) -> None:
    raise ConfigError(Mistake(flag, rule, got=got))
