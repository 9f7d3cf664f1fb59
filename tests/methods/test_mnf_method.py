"""Multiplicative normalizing flows: samples, the bound on the divergence, and what it is where the truth is known."""

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from bbh_dist.config import MnfMethod
from bbh_dist.methods import MultiplicativeNormalizingFlows
from bbh_dist.networks import Conv2d, Dense, Layer, LayerSpec, Network
from bbh_dist.networks.mlp import MLP
from bbh_dist.noise import ExampleNoise, Noise
from bbh_dist.sharding import SampleShare

PRIOR = 0.7
P, STANDARD = (Normal(*torch.tensor([0.0, stddev], dtype=torch.float64)) for stddev in (PRIOR, 1.0))
NOISE = Noise(3, "train", 5, range(4), dtype=torch.float64)


class Convolutional(Network):
    """On images (1, 6, 6): 4 filters without biases, one filter, which has planar flows, and a dense layer."""

    layers: ClassVar[dict[str, LayerSpec]] = {
        "conv1": Conv2d(1, 4, 3, bias=False),
        "conv2": Conv2d(4, 1, 2),
        "dense": Dense(9, 2),
    }

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        return layer("dense", layer("conv2", torch.relu(layer("conv1", x))).flatten(2))


DENSE = MLP((5,), 2, (1, 4))  # the second layer has one input: planar flows
CONVOLUTIONAL = Convolutional()
NETWORKS = pytest.mark.parametrize("network", [DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])


def built(network: Network = DENSE, *, scrambled: bool = True, **settings: Any) -> MultiplicativeNormalizingFlows:
    """In double precision; `scrambled` moves all parameters from where they start, so that no term is neutral."""
    sizes = {"posterior_hidden": 6, "auxiliary_hidden": 7, "initial_log_variance": -3.0}
    config = MnfMethod.model_validate({"name": "mnf", "prior_stddev": PRIOR, **sizes, **settings})
    method = MultiplicativeNormalizingFlows(config, network, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in method.parameters() if scrambled else ():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return method


def with_identity_flows(method: MultiplicativeNormalizingFlows) -> MultiplicativeNormalizingFlows:
    """Gates of 1 and planar steps of 0; z_0 and the auxiliary posterior N(0, 1), so that q(z) = r(z | w)."""
    for name, parameter in method.named_parameters():
        if name.endswith("outward"):
            parameter.data.zero_()
        elif name.endswith("outward_bias"):
            parameter.data.fill_(50.0)
        elif name.endswith(".u"):
            parameter.data.fill_(math.log(math.e - 1))
        elif name.endswith(".w"):
            parameter.data.fill_(1.0)
    method.auxiliary.b.data.zero_()
    method.start_means.data.zero_()
    method.start_log_stddevs.data.zero_()
    return method


def by_tensor(method: MultiplicativeNormalizingFlows, z_Z: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation of every tensor given multipliers: by input of dense kernels, by filter of others."""
    moments, position, unit = [], 0, 0
    for tensor in method.network.tensors:
        part = slice(position, position := position + tensor.size)
        mean = method.means[part].view(tensor.shape)
        if tensor.is_kernel:
            units = tensor.shape[1 if len(tensor.shape) == 2 else 0]
            own = z_Z[unit : (unit := unit + units)]
            mean = mean * (own if len(tensor.shape) == 2 else own[:, None, None, None])
        moments.append((mean, method.log_stddevs[part].view(tensor.shape).exp().clamp_max(0.5)))
    return moments


@NETWORKS
@pytest.mark.parametrize("estimator", ["reparameterised", "local"])
def test_predictions_are_of_coherent_weights(network: Network, estimator: str) -> None:
    """w = z mu + sigma eps with one z and one eps a sample, by hand, for all examples; whatever the estimator."""
    method, noise = built(network, estimator=estimator), Noise(3, "test", 5, range(3), dtype=torch.float64)
    x = torch.randn(6, *((5,) if network is DENSE else (1, 6, 6)), dtype=torch.float64)
    drawn = method.draw(noise)
    eps = noise.normal("eps", network.size)
    for sample in range(3):
        named, position = {}, 0
        for tensor, (mean, stddev) in zip(network.tensors, by_tensor(method, drawn.z[sample]), strict=True):
            part = eps[sample, position : (position := position + tensor.size)].view(tensor.shape)
            named[tensor.name] = mean + stddev * part

        def layer(name: str, h: Tensor, named: dict[str, Tensor] = named) -> Tensor:
            kernel, bias = named[f"{name}.weight"], named.get(f"{name}.bias")
            if kernel.dim() == 2:
                return torch.nn.functional.linear(h, kernel, bias)
            return torch.nn.functional.conv2d(h[0], kernel, bias)[None]

        expected = network(layer, x[None])[0]
        torch.testing.assert_close(method(x, drawn)[sample], expected)
        torch.testing.assert_close(method(x[2:4], drawn, SampleShare(3, 3, sample), 2)[0], expected[2:4])


def test_local_training_draws_each_examples_activations() -> None:
    """Of a network of one layer: mean x z mu, variance x^2 sigma^2, with noise by the example's place."""
    method = built(MLP((5,), 3, ()), estimator="local")
    x, drawn = torch.randn(6, 5, dtype=torch.float64), method.draw(NOISE)
    eps = ExampleNoise(NOISE, 10).normal("dense1", 6, 3)
    for sample in range(4):
        (kernel, spread), (bias, bias_spread) = by_tensor(method, drawn.z[sample])
        expected = x @ kernel.mT + bias + (x.square() @ spread.square().mT + bias_spread.square()).sqrt() * eps[sample]
        torch.testing.assert_close(method(x, drawn, None, 10)[sample], expected)
    part = method(x[3:5], drawn, SampleShare(4, 2, 1), 13)
    torch.testing.assert_close(part, method(x, drawn, None, 10)[2:, 3:5], rtol=1e-12, atol=1e-12)


@NETWORKS
def test_identity_flows_are_mean_field(network: Network) -> None:
    """With q(z) = r(z | w) the bound is KL(q(w | z) || p), for every sample, to 1e-10."""
    method = with_identity_flows(built(network))
    drawn = method.draw(NOISE)
    torch.testing.assert_close(drawn.z, NOISE.normal("z", drawn.z.shape[1]))
    expected = [sum(kl_divergence(Normal(*moments), P).sum() for moments in by_tensor(method, z)) for z in drawn.z]
    assert method.divergence(drawn).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-10)


def test_a_multiplier_that_stands_still_is_a_gaussian_posterior() -> None:
    """z = 1: weights are mu + sigma eps, and the bound is their KL plus a constant of q(z) and r(z | w) alone."""
    network = MLP((5,), 3, (4,))
    method = with_identity_flows(built(network))
    method.start_means.data.fill_(1.0)
    method.start_log_stddevs.data.fill_(math.log(1e-9))
    drawn, count = method.draw(NOISE), method.start_means.numel()
    gaussian = [Normal(*moments) for moments in by_tensor(method, torch.ones(count, dtype=torch.float64))]
    z_0 = Normal(torch.ones(count, dtype=torch.float64), 1e-9)
    constant = (z_0.log_prob(drawn.z) - STANDARD.log_prob(drawn.z)).sum(1).mean()
    expected = sum(kl_divergence(q, P).sum() for q in gaussian) + constant
    assert method.divergence(drawn).item() == pytest.approx(expected.item(), rel=1e-6)
    method(torch.ones(1, 5, dtype=torch.float64), drawn)
    (weights,) = drawn.weights.values()
    eps = NOISE.normal("eps", network.size)
    torch.testing.assert_close(
        weights["dense1.weight"].flatten(1), gaussian[0].mean.flatten() + gaussian[0].stddev.flatten() * eps[:, :20]
    )


@NETWORKS
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_divergence_is_the_papers_bound(network: Network, steps: int) -> None:
    """Every term apart, by torch.distributions, Jacobians of the flows, and sums over units one by one."""
    method = built(network, posterior_flows=steps, auxiliary_flows=steps)
    z_0 = Normal(method.start_means, method.start_log_stddevs.exp())
    starts = z_0.mean + z_0.stddev * NOISE.normal("z", len(method.start_means))
    told = NOISE.normal("told", sum(kernel.weights_per_unit for kernel in method.kernels))
    totals = []
    for start, eps in zip(starts, told, strict=True):
        z, end = method.flows(start[None])[0][0], method.auxiliary.flows(method.flows(start[None])[0])[0][0]
        log_q = z_0.log_prob(start).sum() - log_determinant(method.flows, start)
        kl, position, unit, log_r = torch.zeros(()), 0, 0, log_determinant(method.auxiliary.flows, z)
        for tensor, (mean, stddev) in zip(network.tensors, by_tensor(method, z), strict=True):
            kl = kl + kl_divergence(Normal(mean, stddev), P).sum()
            if not tensor.is_kernel:
                continue
            rows = (
                mean.mT if mean.dim() == 2 else mean.flatten(1),
                stddev.mT if mean.dim() == 2 else stddev.flatten(1),
            )
            units, places = rows[0].shape
            own = slice(unit, unit := unit + units)
            c = method.auxiliary.c[own, None]
            read = Normal((c * rows[0]).sum(0), (c * rows[1]).square().sum(0).sqrt())
            t = torch.tanh(read.mean + read.stddev * eps[position : (position := position + places)]).mean()
            b_1, b_2 = method.auxiliary.b[:, own]
            log_r = log_r + Normal(b_1 * t, (0.5 * b_2 * t).exp()).log_prob(end[own]).sum()
        totals.append(kl + log_q - log_r)
    found = method.divergence(method.draw(NOISE))
    assert found.item() == pytest.approx(torch.stack(totals).mean().item(), rel=1e-10)


def log_determinant(flows: torch.nn.Module, z: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(lambda x: flows(x[None])[0][0], z)
    return torch.linalg.slogdet(jacobian).logabsdet


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_the_bound_lies_above_the_divergence(scale: float) -> None:
    """One kernel of one weight, w = z mu + sigma eps, with log q(w) by 400 nodes over z_0 in [-9, 9] deviations.

    n = 4,000 weights; the bias' closed form counts in both. Where mu is 0 they tell nothing of z, and with
    r(z | w) = q(z) the bound is the divergence, within 5 standard errors; where mu is 2 it is above it by more.
    """
    method = built(MLP((1,), 1, ()), initial_log_variance=-2.0)
    method = with_identity_flows(method) if scale == 0 else method
    method.means.data[0] = scale
    noise = Noise(1, "train", 0, range(4_000), dtype=torch.float64)
    with torch.no_grad():
        drawn = method.draw(noise)
        (_, stddev), bias = by_tensor(method, torch.ones(1, dtype=torch.float64))
        w = scale * drawn.z + stddev * noise.normal("weight", 1)
        nodes = torch.linspace(-9, 9, 400, dtype=torch.float64)
        z = method.flows(method.start_means + nodes[:, None] * method.start_log_stddevs.exp())[0]
        log_weight = STANDARD.log_prob(nodes) + math.log(18 / 399)
        log_q = (log_weight + Normal(scale * z[:, 0], stddev[0]).log_prob(w)).logsumexp(1)
        terms = log_q - P.log_prob(w)[:, 0]
        truth = terms.mean() + kl_divergence(Normal(*bias), P).sum()
        error = (terms.std() / len(terms) ** 0.5).item()
        gap = (method.divergence(drawn) - truth).item()
    if scale == 0:
        assert abs(gap) < 5 * error
    else:
        assert gap > 5 * error


def test_standard_deviations_are_clipped() -> None:
    method = built(largest_stddev=0.3)
    method.log_stddevs.data[:3] = 2.0
    drawn = method.draw(NOISE)
    assert drawn.stddevs[:3].tolist() == pytest.approx([0.3] * 3)
    assert drawn.stddevs.max().item() == pytest.approx(0.3)
    assert drawn.stddevs[3:].min().item() == pytest.approx(method.log_stddevs[3:].min().exp().item())


def test_what_a_step_took_beyond_the_clip_can_come_back() -> None:
    method = built(MLP((5,), 3, ()), largest_stddev=0.3)
    method.log_stddevs.data.fill_(math.log(0.3) + 0.1)
    method.divergence(method.draw(NOISE)).backward()
    assert method.log_stddevs.grad is not None
    assert method.log_stddevs.grad.all()
    torch.testing.assert_close(method.log_stddevs.detach(), torch.full_like(method.log_stddevs, math.log(0.3)))


def test_start() -> None:
    """n = 700 weights in the kernel: error of the standard deviation 2.7 %, tolerance 10 %."""
    method = built(MLP((7,), 3, (100,)), scrambled=False, initial_multiplier_stddev=0.02)
    assert method.means[:700].std().item() == pytest.approx((2 / 7) ** 0.5, rel=0.1)
    assert not method.means[700:800].any()
    assert method.log_stddevs.unique().tolist() == [-1.5]
    assert method.start_means.unique().tolist() == [1.0]
    assert method.start_log_stddevs.exp().mean().item() == pytest.approx(0.02)
    assert method.start_means.numel() == 107
