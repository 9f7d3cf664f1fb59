"""What a training step costs one worker, from shapes alone: on the meta device nothing is computed and no data read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bbh_dist.config import Experiment
from bbh_dist.costs.noise import META, CountedNoise
from bbh_dist.costs.trace import Operation, Trace
from bbh_dist.costs.workers import counted_workers
from bbh_dist.factored import Rule
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network, build_normalisation
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers, batch_total
from bbh_dist.tasks import Categorical, Gaussian, Likelihood
from bbh_dist.training.objective import objective
from bbh_dist.training.optimizers import factored_rule
from bbh_dist.training.update import Gradients

_CALLS = {"adam": 2, "rmsprop": 5, "sgd": 2}
"""Passes of torch's optimisers over a parameter; one of fused Adam touches five tensors, which is two of three."""


@dataclass(frozen=True)
class StepCosts:
    """Costs of one worker in one training step; bytes but where a name says otherwise."""

    parameters: int
    """Numbers that are trained, over all shards."""
    parameter_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    """Gradients that are stored; those of factored heads are not."""
    activation_bytes: int
    """What autograd keeps for the backward pass."""
    best_bytes: int
    """The best epoch's weights, kept where a run may stop early."""
    working_bytes: int
    """Most that the tensors of a step take together: activations, gradients and what is between them."""
    wire: dict[str, int]
    """What the worker sends to others, by kind."""
    bytes_moved: int
    """Least traffic with memory: parameters read, then read and written with their state; activations both ways."""
    operations: tuple[Operation, ...]
    element_bytes: int
    """Of a number in activations."""

    @property
    def peak_bytes(self) -> int:
        """Most memory that tensors take."""
        return self.parameter_bytes + self.optimizer_bytes + self.best_bytes + self.working_bytes

    @property
    def flops(self) -> int:
        """Floating-point operations of matrix products and convolutions."""
        return sum(operation.flops for operation in self.operations)


def step_costs(
    experiment: Experiment, input_shape: Sequence[int], outputs: int, workers: int, *, rank: int = 0
) -> StepCosts:
    """Costs of a full batch's step for one of several workers, by default the first, which has the largest share.

    A network of one output has the likelihood of numbers, another that of classes.

    Raises:
        ValueError: the network does not take the inputs.
    """
    shards = experiment.shards(workers)
    group = counted_workers(workers, shards, rank)
    normalisation = build_normalisation(experiment.normalisation_kind, experiment.batch_size)
    network = build_network(experiment.network, input_shape, outputs, normalisation)
    likelihood = Gaussian(1.0) if outputs == 1 else Categorical(outputs)
    random = torch.Generator()
    with META:
        method = build_method(experiment.method, network, random, group.shards)
        whole = method if shards == 1 else build_method(experiment.method, network, random)
    dtype = torch.float64 if experiment.precision == "float64" else torch.float32
    method = method.double() if dtype == torch.float64 else method
    gradients = Gradients(experiment.optimizer, method, group.shards)
    noise = CountedNoise(0, "train", 0, range(experiment.method.samples_per_step), META, dtype)
    trace = Trace()
    with trace:
        _differentiate(experiment, gradients, group, input_shape, likelihood, noise)
    trace.operations += noise.operations
    return _costs(experiment, whole, gradients, trace, dict(group.traffic), dtype.itemsize)


def _differentiate(
    experiment: Experiment,
    gradients: Gradients,
    workers: Workers,
    input_shape: Sequence[int],
    likelihood: Likelihood,
    noise: Noise,
) -> None:
    """The forward and backward passes as `Trainer.step` has them."""
    config, method = experiment.method, gradients.method
    batch = experiment.batch_size
    samples = workers.samples(config.likelihood_samples, splittable=config.likelihood == "mean_log")
    shape = (*((len(samples.own),) if method.independent else ()), len(workers.examples(batch, samples)))
    inputs = torch.empty(*shape, *input_shape, dtype=noise.dtype, device=META)
    labels = inputs.new_empty(shape, dtype=torch.int64 if likelihood.kind == "classification" else noise.dtype)
    sizes: dict[str, Any] = {"batch": batch, "examples": 1, "kl_weight": config.kl_weight}
    with gradients.collecting(), method.network.normalisation.training(batch_total(workers, samples)):
        drawn = method.draw(noise)
        method.adapt(drawn)
        loss = objective(method, config, inputs, labels, drawn, samples, likelihood=likelihood, **sizes)
        used = gradients.differentiate(loss.part, lambda name, call: torch.empty_like(call.features))
        if experiment.optimizer.gradient_clip is not None:
            gradients.squared_norm(used)


def _costs(
    experiment: Experiment, whole: Method, gradients: Gradients, trace: Trace, wire: dict[str, int], element_bytes: int
) -> StepCosts:
    parameters = list(gradients.method.parameters())
    updates = _updates(experiment, gradients)
    parameter_bytes = sum(parameter.nbytes for parameter in parameters)
    return StepCosts(
        parameters=sum(parameter.numel() for parameter in whole.parameters()),
        parameter_bytes=parameter_bytes,
        optimizer_bytes=sum(_state_bytes(experiment, gradients, parameter) for parameter in parameters),
        gradient_bytes=sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None),
        activation_bytes=trace.saved_bytes,
        best_bytes=_state_dict_bytes(gradients.method) if experiment.early_stop.patience else 0,
        working_bytes=max(trace.peak_bytes, trace.live_bytes + _temporary_bytes(experiment, gradients)),
        wire=wire,
        bytes_moved=_bytes_moved(experiment, gradients) + 2 * trace.saved_bytes,
        operations=(*trace.operations, *updates),
        element_bytes=element_bytes,
    )


def _state_dict_bytes(method: Method) -> int:
    return sum(tensor.nbytes for tensor in method.state_dict().values())


def _rule(experiment: Experiment) -> Rule:
    return factored_rule(experiment.optimizer, experiment.optimizer.lr, 1)


def _state_bytes(experiment: Experiment, gradients: Gradients, parameter: nn.Parameter) -> int:
    """What the optimiser remembers of a parameter."""
    rule, swept = _rule(experiment), parameter.dim() and _is_swept(gradients, parameter)
    # Of bfloat16 weights the moments are float32, unless the second ones are asked for otherwise.
    wide = parameter.numel() * max(parameter.element_size(), 4)
    narrow = parameter.numel() * 2 if swept and experiment.optimizer.second_moment == "bfloat16" else wide
    return len(rule.first_moments) * wide + len(rule.second_moments) * narrow


def _is_swept(gradients: Gradients, parameter: Tensor) -> bool:
    return any(parameter is head.weight for head in gradients.heads.values())


def _bytes_moved(experiment: Experiment, gradients: Gradients) -> int:
    """By parameters and their state. To clip a swept weight's gradient it has to be read once more."""
    clipped = experiment.optimizer.gradient_clip is not None
    return sum(
        (4 if clipped and _is_swept(gradients, parameter) else 3) * parameter.nbytes
        + 2 * _state_bytes(experiment, gradients, parameter)
        for parameter in gradients.method.parameters()
    )


def _updates(experiment: Experiment, gradients: Gradients) -> list[Operation]:
    """The optimiser's operations: a sweep for each head, passes over each of the others."""
    clipped = experiment.optimizer.gradient_clip is not None
    operations = []
    for parameter in gradients.method.parameters():
        state = _state_bytes(experiment, gradients, parameter)
        if _is_swept(gradients, parameter):
            touched = (3 if clipped else 2) * parameter.nbytes + 2 * state
            operations.append(Operation("update", 0, touched, name="sweep"))
        elif parameter.grad is not None:
            calls = _CALLS[experiment.optimizer.name]
            operations.append(Operation("update", 0, calls * 3 * parameter.nbytes, calls=calls, name="step"))
    return operations


def _temporary_bytes(experiment: Experiment, gradients: Gradients) -> int:
    """Of torch's optimiser: RMSProp makes roots of the squares, of one parameter after the other."""
    sizes = [parameter.grad.nbytes for parameter in gradients.dense.values() if parameter.grad is not None]
    return max(sizes, default=0) if experiment.optimizer.name == "rmsprop" else 0
