"""An experiment: one training run, fully described. Fields say their unit, range and where their default is from."""

import os
import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bbh_dist.config.errors import RuleError, nearest
from bbh_dist.config.evaluation import Evaluation
from bbh_dist.config.methods import MethodConfig
from bbh_dist.config.model import Frozen, PositiveInt, Seed
from bbh_dist.config.parallel import Parallel
from bbh_dist.config.paths import path_rule

TASKS = ("toy", "digits5", "mnist", "cifar5")
NETWORKS = ("mlp", "lenet", "preact-resnet", "resnet18", "wrn-28-10")


class Optimizer(Frozen):
    """How parameters move."""

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    """Default: Adam, as the paper's baselines; its BbH used RMSProp, here with its decay 0.9 and epsilon 1e-5. SGD has
    momentum 0.9."""
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    """Learning rate, the peak of a schedule. Default: Adam's usual one; the paper's BbH took 1e-4."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Per step over the whole run; one_cycle rises over the first 30 %, then falls to almost 0. Default: the paper."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the gradient; none by default. Costs the layer-wise generator one more sweep."""
    factored: bool = True
    """Whether the heads of the layer-wise generator are updated from the factors of their gradient, which is then never
    stored. False is the plain way, for comparison."""
    second_moment: Literal["float32", "bfloat16"] = "float32"
    """How factored updates store squared gradients; bfloat16 is rounded stochastically and halves their bytes."""

    @model_validator(mode="after")
    def _second_moment_can_be_rounded(self) -> Self:
        if self.second_moment == "bfloat16" and (self.name == "sgd" or not self.factored):
            rule = "must be float32 without factored updates by adam or rmsprop"
            raise RuleError(rule, key="second_moment", got=self.second_moment)
        return self


class EarlyStop(Frozen):
    """Stop when validation NLL no longer falls, and keep the best epoch's weights."""

    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a lower validation NLL before the run ends; 0 never stops and keeps the last weights."""


class Experiment(Frozen):
    """One training run: task, network, method, optimiser, schedule, parallelism and seed."""

    task: str
    """toy (regression), digits5, mnist, cifar5, or npz:FILE."""
    network: str = "mlp"
    """lenet, preact-resnet (the paper's on CIFAR5), resnet18, wrn-DEPTH-WIDTH such as wrn-28-10 or wrn-16-4, mlp (one
    hidden layer of 100 units), or mlp:64-32 for other hidden layers."""
    normalisation: Literal["batch", "reference", "group"] | None = None
    """How residual networks normalise. `batch`: by the statistics of the batch, in evaluation too, of fixed blocks of
    `batch_size` inputs, so a prediction depends on its block. `reference`: the same in training, but predictions by the
    statistics of 200 training images, which every weight sample sees first; this serves single inputs. `group`: each
    image by itself. Workers share the statistics of the global batch, so results do not depend on their number; only
    the traffic does, where a batch is split. Default: batch for preact-resnet, as the original; group for others."""
    method: Annotated[MethodConfig, Field(discriminator="name")]
    """The approximate posterior and its settings."""
    optimizer: Optimizer = Optimizer()
    """How its parameters are trained."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Passes over the training data. Default: enough for digits5; the paper 100 (MNIST), 200 (CIFAR5)."""
    batch_size: PositiveInt = 100
    """Examples per step over all workers: the global batch. Default: the paper."""
    seed: Seed = 0
    """Decides initial parameters, order of data and all noise."""
    precision: Literal["float32", "float64"] = "float32"
    """Of parameters and inputs; predictions are averaged in float64 either way."""
    checkpoint_every_epochs: PositiveInt = 1
    """Epochs between checkpoints; the last epoch always writes one."""
    early_stop: EarlyStop = EarlyStop()
    """When to end before `epochs`. Default: never."""
    evaluation: Evaluation = Evaluation()
    """Weight samples of predictions, attacks and shifts."""
    parallel: Parallel = Parallel()
    """Workers and their resources."""

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, task: str) -> str:
        if task in TASKS:
            return task
        if task.startswith("npz:") and task != "npz:":
            rule = path_rule(task.removeprefix("npz:"))
            if rule is not None:
                raise RuleError(f"the file {rule}", got=task)
            # Absolute, because workers run elsewhere and a resolved configuration may.
            return f"npz:{os.path.abspath(task.removeprefix('npz:'))}"
        raise RuleError(f"must be one of {', '.join(TASKS)}, npz:FILE", got=task, suggestion=nearest(task, TASKS))

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, network: str) -> str:
        if wide := re.fullmatch(r"wrn-([1-9][0-9]{0,3})-([1-9][0-9]{0,3})", network):
            return _with_whole_blocks(network, depth=int(wide[1]), width=int(wide[2]))
        hidden = network.removeprefix("mlp:").split("-")
        if network in NETWORKS or (network.startswith("mlp:") and all(_is_width(units) for units in hidden)):
            return network
        raise RuleError(
            f"must be one of {', '.join(NETWORKS)}, mlp:64-32, wrn-DEPTH-WIDTH",
            got=network,
            suggestion=nearest(network, NETWORKS),
        )

    @model_validator(mode="after")
    def _normalisation_is_for_residual_networks(self) -> Self:
        if self.normalisation is not None and self.network.startswith(("mlp", "lenet")):
            rule = f"must be left out: {self.network} does not normalise"
            raise RuleError(rule, key="normalisation", got=self.normalisation)
        return self

    @model_validator(mode="after")
    def _every_worker_has_an_example(self) -> Self:
        if self.parallel.max_workers > self.batch_size:
            rule = f"must be at most batch_size, {self.batch_size}"
            key = "parallel.workers" if isinstance(self.parallel.workers, int) else "parallel.workers.max"
            raise RuleError(rule, key=key, got=self.parallel.max_workers)
        return self

    @model_validator(mode="after")
    def _shards_suit_workers_and_method(self) -> Self:
        shards, workers = self.parallel.shards, self.parallel.max_workers
        if shards not in (None, 1) and self.parallel.is_elastic:
            rule = "must be 1 or left out where parallel.workers is a range"
            raise RuleError(rule, key="parallel.shards", got=shards)
        if shards is not None and workers % shards:
            raise RuleError(f"must divide parallel.workers, {workers}", key="parallel.shards", got=shards)
        if shards not in (None, 1) and not self.method.splits_samples:
            rule = f"must be 1 for {self.method.name}, which splits no weight samples"
            raise RuleError(rule, key="parallel.shards", got=shards)
        if self.method.name == "ensemble" and self.method.members % (shards or 1):
            rule = f"must divide method.members, {self.method.members}"
            raise RuleError(rule, key="parallel.shards", got=shards)
        return self

    @model_validator(mode="after")
    def _rounding_needs_single_precision(self) -> Self:
        heads = self.method.name == "bbh" and self.method.generator.head_precision == "bfloat16"
        if self.precision == "float64" and (heads or self.optimizer.second_moment == "bfloat16"):
            raise RuleError(
                "must be float32 beside heads or second moments in bfloat16", key="precision", got="float64"
            )
        return self

    @model_validator(mode="after")
    def _plain_updates_suit_the_generator(self) -> Self:
        method = self.method
        if self.optimizer.factored or method.name != "bbh" or method.generator.kind != "layerwise":
            return self
        if self.shards(self.parallel.max_workers) > 1 or method.generator.head_precision == "bfloat16":
            rule = "must be true for a layerwise generator with shards or bfloat16 heads"
            raise RuleError(rule, key="optimizer.factored", got="false")
        return self

    @property
    def normalisation_kind(self) -> str:
        """How the network normalises."""
        return self.normalisation or ("batch" if self.network == "preact-resnet" else "group")

    def shards(self, workers: int) -> int:
        """Workers over which the sampling of weights is split, of so many that there are."""
        return self.parallel.shards or self.method.default_shards(workers)


def _with_whole_blocks(network: str, depth: int, width: int) -> str:
    blocks, rest = divmod(depth - 4, 6)
    if blocks >= 1 and rest == 0:
        return network
    nearest_depth = 4 + 6 * max(1, round((depth - 4) / 6))
    rule = "must have a depth of 10, 16, 22, 28 or another 6 n + 4"
    raise RuleError(rule, got=network, suggestion=f"wrn-{nearest_depth}-{width}")


def _is_width(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text[:7]) >= 1 and len(text) <= 6
