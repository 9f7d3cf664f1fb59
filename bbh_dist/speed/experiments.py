"""What is measured: experiments on random images of MNIST's shape."""

from typing import Any

import torch
from torch import Tensor

from bbh_dist.config import ConfigError, Experiment, Mistake
from bbh_dist.config.methods import METHODS
from bbh_dist.networks import build_network
from bbh_dist.noise import keyed_generator
from bbh_dist.speed.options import LAYERWISE_ADAM, numbers
from bbh_dist.tasks import Categorical, Split, Task
from bbh_dist.training import Trainer

SHAPE, CLASSES = (1, 28, 28), 10
_TRAINING_EXAMPLES = 6_000
"""More than a cache holds; a step sees `batch_size` of them."""

LAYERWISE_PLAIN = "bbh-layerwise-plain"


def images(count: int) -> Tensor:
    """Random images (N, 1, 28, 28)."""
    return torch.rand(count, *SHAPE, generator=keyed_generator("images"))


def task() -> Task:
    """A task of random images."""

    def split(count: int) -> Split:
        return Split(images(count), torch.arange(count) % CLASSES)

    return Task("random images", Categorical(CLASSES), split(_TRAINING_EXAMPLES), split(100), split(100))


def batch(trainer: Trainer, number: int) -> Tensor:
    """Indices (B,) of a step's global batch; (S, B), other examples for each, where weight samples are independent."""
    size, examples = trainer.experiment.batch_size, len(trainer.task.train)
    samples = trainer.experiment.method.likelihood_samples if trainer.method.independent else 1
    indices = torch.arange(number * samples * size, (number + 1) * samples * size, device=trainer.device) % examples
    return indices.view(samples, size) if trainer.method.independent else indices


def experiment(
    name: str,
    *,
    network: str = "lenet",
    hidden: str = "64,256,512",
    batch_size: int = 100,
    bfloat16: bool = False,
    compile: bool = False,
    gpu: bool = False,
    **method: Any,
) -> Experiment:
    """The experiment of a row's name: a method's with its defaults, or BbH's with one of its generators.

    `method` has settings of BbH; other methods take those that they have, too. Every method has its own default
    optimiser: the paper's BbH used RMSProp, here the layer-wise one does, whose heads and second moments may be
    bfloat16.

    Raises:
        ConfigError: the network is unknown or does not take such images.
    """
    kind = name.removeprefix("bbh-").partition("-")[0]
    optimizer: dict[str, Any] = {"name": "adam"}
    precision = "bfloat16" if bfloat16 else "float32"
    if kind == "layerwise":
        optimizer = {"name": "adam" if name == LAYERWISE_ADAM else "rmsprop", "lr": 1e-4}
        optimizer["factored"] = name != LAYERWISE_PLAIN
        optimizer["second_moment"] = precision
    if name in METHODS:
        chosen = {"name": name} | {key: value for key, value in method.items() if key in METHODS[name].model_fields}
    else:
        generator = {"kind": kind, "hidden": numbers(hidden), "head_precision": precision}
        chosen = {"name": "bbh", "generator": generator, **method}
    settings = {
        "task": "mnist",
        "network": network,
        "method": chosen,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "parallel": {"compile": compile, "use_gpu": gpu},
    }
    try:
        build_network(network, SHAPE, CLASSES)
        return Experiment.model_validate(settings)
    except ValueError as error:
        raise ConfigError(Mistake("command line", " ".join(str(error).split())[:300])) from error
