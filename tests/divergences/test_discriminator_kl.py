import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

from bbh_dist.divergences import Discriminator, pick

PRIOR = 1.7
TWO = [(-1.2, 0.6), (1.4, 0.9)]
"""Means and standard deviations of two weights."""


def built(hidden: tuple[int, ...] = (4, 3), lr: float = 0.01, clip: float = 5.0) -> Discriminator:
    return Discriminator(hidden, PRIOR, lr, clip, torch.Generator().manual_seed(1)).double()


def normal(*shape: int, scale: float = 1.0, mean: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + mean


def mixture(weights: list[tuple[float, float]]) -> Distribution:
    means, stddevs = torch.tensor(weights).double().T
    return MixtureSameFamily(Categorical(torch.ones(len(weights))), Normal(means, stddevs))


@pytest.mark.parametrize("weights", [[(0.8, 0.6)], TWO], ids=["one", "two"])
def test_logit_approaches_the_log_density_ratio(weights: list[tuple[float, float]]) -> None:
    """The paper's layers, 300 steps of 512 weights: mean error over q 0.04 to 0.06 nats in trials; tolerance 0.15.

    Of two weights with different marginals the ratio is that of their mean to the prior, whose divergence, integrated
    numerically, is below the mean of theirs.
    """
    discriminator = built((64, 64, 64), lr=3e-3).float()
    for step in range(300):
        parts = [normal(512 // len(weights), scale=s, mean=m, seed=10 * step + i) for i, (m, s) in enumerate(weights)]
        prior = normal(512, scale=PRIOR, seed=10 * step + 9)
        discriminator.fit(torch.cat(parts).float(), prior.float(), (512, 512))
    q, grid = mixture(weights), torch.linspace(-8, 8, 4001).double()
    ratio = q.log_prob(grid) - Normal(0.0, PRIOR).log_prob(grid)
    density = q.log_prob(grid).exp()
    density /= density.sum()
    logit = discriminator(grid.float()).double()
    assert (density * (logit - ratio).abs()).sum().item() < 0.15
    truth = (density * ratio).sum().item()
    assert (density * logit).sum().item() == pytest.approx(truth, abs=0.15)
    mean_kl = sum(torch.distributions.kl_divergence(Normal(m, s), Normal(0.0, PRIOR)).item() for m, s in weights)
    assert truth < mean_kl / len(weights) + 1e-3


@pytest.mark.parametrize("clip", [5.0, 0.01])
def test_steps_are_those_of_torch(clip: float) -> None:
    """Three layers, binary cross-entropy and Adam by torch, in double precision; a clip of 0.01 is in force."""
    discriminator = built(clip=clip)
    layers = [nn.Linear(inputs, outputs).double() for inputs, outputs in ((1, 4), (4, 3), (3, 1))]
    tensors = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    for tensor, part in zip(tensors, discriminator.flat.split([t.numel() for t in tensors]), strict=True):
        tensor.data.copy_(part.view_as(tensor))
    network = nn.Sequential(layers[0], nn.LeakyReLU(0.1), layers[1], nn.LeakyReLU(0.1), layers[2])
    optimizer, largest = torch.optim.Adam(tensors, lr=0.01), 0.0
    for step in range(4):
        posterior, prior = normal(5, 6, scale=0.4, mean=0.9, seed=step), normal(5, 8, scale=PRIOR, seed=99 + step)
        torch.testing.assert_close(discriminator(posterior), network(posterior[..., None] / PRIOR)[..., 0])
        discriminator.fit(posterior, prior, (30, 40))
        loss = sum(
            nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
            for logits, target in ((network(w[..., None] / PRIOR), t) for w, t in ((posterior, 1.0), (prior, 0.0)))
        )
        optimizer.zero_grad()
        loss.backward()
        largest = max(largest, *(tensor.grad.abs().max().item() for tensor in tensors))
        nn.utils.clip_grad_value_(tensors, clip)
        optimizer.step()
    assert (largest > clip) == (clip < 1)
    expected = torch.cat([tensor.detach().flatten() for tensor in tensors])
    torch.testing.assert_close(discriminator.flat, expected, rtol=1e-10, atol=1e-12)


def test_a_step_of_parts_whose_gradients_are_summed_is_that_of_the_whole() -> None:
    posterior, prior = normal(4, 9, mean=0.9), normal(4, 9, scale=PRIOR, seed=1)
    gradients: list[Tensor] = []
    for part in (slice(0, 4), slice(4, 9)):
        built().fit(posterior[:, part], prior[:, part], (36, 36), lambda tensor: gradients.append(tensor) or tensor)
    whole, sharded = built(clip=1e-3), built(clip=1e-3)
    whole.fit(posterior, prior, (36, 36))
    sharded.fit(posterior[:, :0], prior[:, :0], (36, 36), lambda tensor: tensor + sum(gradients))
    torch.testing.assert_close(sharded.flat, whole.flat, rtol=1e-10, atol=1e-12)


def test_only_weights_have_a_gradient() -> None:
    discriminator, weights = built(), normal(3, 4, seed=2).requires_grad_()
    assert not list(discriminator.parameters())
    assert torch.autograd.gradcheck(discriminator, weights)


def test_steps_are_kept_in_the_state() -> None:
    first, second = built(), built(hidden=(4, 3))
    draws = [(normal(20, mean=1.0, seed=i), normal(20, scale=PRIOR, seed=50 + i)) for i in range(5)]
    for posterior, prior in draws[:3]:
        first.fit(posterior, prior, (20, 20))
    second.load_state_dict(first.state_dict())
    for discriminator in (first, second):
        for posterior, prior in draws[3:]:
            discriminator.fit(posterior, prior, (20, 20))
    assert int(second.steps) == 5
    assert torch.equal(first.flat, second.flat)


@pytest.mark.parametrize("cuts", [[0, 7, 7], [3, 3, 7], [7, 0, 2]])
def test_shards_pick_what_lies_in_their_parts(cuts: list[int]) -> None:
    """Three tensors of 7, 3 and 8 weights, each cut in two: together the shards have what there is at the places."""
    sizes, places = [7, 3, 8], torch.tensor([0, 2, 6, 7, 9, 10, 11, 12, 17])
    whole = [normal(2, size, seed=size) for size in sizes]
    found = []
    for first in (True, False):
        ends = [min(cut, size) for cut, size in zip(cuts, sizes, strict=True)]
        parts = [range(0, end) if first else range(end, size) for end, size in zip(ends, sizes, strict=True)]
        own = [w[:, part.start : part.stop] for w, part in zip(whole, parts, strict=True)]
        found.append(pick(own, parts, sizes, places))
    expected = torch.cat(whole, dim=1)[:, places]
    assert sum(part.shape[1] for part in found) == len(places)
    assert torch.equal(torch.cat(found, dim=1).sort(1).values, expected.sort(1).values)
    assert math.isclose(float(torch.cat(found, dim=1).sum()), float(expected.sum()))


def test_all_weights_are_picked_in_order() -> None:
    parts = [range(3), range(2)]
    whole = [normal(2, 3), normal(2, 2, seed=1)]
    assert torch.equal(pick(whole, parts, [3, 2], torch.arange(5)), torch.cat(whole, dim=1))
