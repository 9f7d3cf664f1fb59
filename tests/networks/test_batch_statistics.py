"""Batch statistics against torch, over the parts of a batch, and fixed by a reference batch."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks import BatchNormalisation, ReferenceNormalisation
from bbh_dist.networks.batch_statistics import batch_norm, whole_statistics


def activations(samples: int = 3, examples: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, examples, 5, 3, 4, generator=generator, dtype=torch.float64) * 2 + 3


def expected(x: Tensor) -> Tensor:
    return torch.stack([F.batch_norm(sample, None, None, training=True) for sample in x])


@pytest.mark.parametrize("samples", [1, 3])
def test_every_weight_sample_is_normalised_as_torch_does(samples: int) -> None:
    x = activations(samples).requires_grad_()
    cotangent = activations(samples, seed=1)
    results = [batch_norm(x), expected(x)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*[torch.autograd.grad(y, x, cotangent)[0] for y in results], rtol=1e-9, atol=1e-9)


def test_a_single_number_per_channel_becomes_zero() -> None:
    assert torch.equal(batch_norm(torch.ones(2, 1, 5, 1, 1)), torch.zeros(2, 1, 5, 1, 1))


def parts_of(x: Tensor, sizes: list[int]) -> tuple[list[Tensor], Callable[[int], Callable[[Tensor], Tensor]]]:
    """Parts of a batch, and for each the sum that its worker would get: the others' terms are taken as they are."""
    parts = list(x.split(sizes, dim=1))
    terms: list[Tensor] = []
    for part in parts:
        whole_statistics(part, lambda term: terms.append(term) or torch.ones_like(term))

    def total_for(index: int) -> Callable[[Tensor], Tensor]:
        others = torch.stack([term for at, term in enumerate(terms) if at != index]).sum(0)
        return lambda term: term + others

    return parts, total_for


@pytest.mark.parametrize("sizes", [[8], [3, 5], [1, 0, 7]])
def test_parts_are_normalised_by_the_statistics_of_the_whole(sizes: list[int]) -> None:
    x = activations()
    parts, total_for = parts_of(x, sizes)
    normalisation, results = BatchNormalisation(8), []
    for index, part in enumerate(parts):
        total = total_for(index) if len(sizes) > 1 else lambda term: term
        with normalisation.training(total):
            results.append(normalisation(part))
    torch.testing.assert_close(torch.cat(results, dim=1), expected(x), rtol=1e-10, atol=1e-10)
    assert torch.equal(normalisation(x), batch_norm(x))  # after the step a batch is a whole one again


def test_gradients_pass_through_the_sums() -> None:
    """All parts in one graph: its gradient is that of the whole batch."""
    x, cotangent = activations().requires_grad_(), activations(seed=1)
    parts = x.split([3, 5], dim=1)
    terms: list[Tensor] = []
    for part in parts:
        whole_statistics(part, lambda term: terms.append(term) or torch.ones_like(term))
    sums = torch.stack(terms).sum(0)
    normalisation = BatchNormalisation(8)
    with normalisation.training(lambda term: sums):
        result = torch.cat([normalisation(part) for part in parts], dim=1)
    found, wanted = (torch.autograd.grad(y, x, cotangent)[0] for y in (result, expected(x)))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_reference_batch_fixes_the_statistics_of_every_layer() -> None:
    reference, normalisation = activations(1, 6, seed=2)[0], ReferenceNormalisation(activations(1, 6, seed=2)[0])

    def network(inputs: Tensor) -> Tensor:
        return normalisation(3 * torch.relu(normalisation(2 * inputs[None] - 1)) + 5)

    def by_hand(inputs: Tensor) -> Tensor:
        x, r = 2 * inputs[None] - 1, 2 * reference[None] - 1
        for step in (lambda a: 3 * torch.relu(a) + 5, lambda a: a):
            mean, variance = r.mean((1, 3, 4), keepdim=True), r.var((1, 3, 4), correction=0, keepdim=True)
            x, r = (step((a - mean) / (variance + 1e-5).sqrt()) for a in (x, r))
        return x

    x = activations(1)[0]
    with normalisation.evaluating(network):
        for inputs in (x, x[2:3], x[:5]):
            torch.testing.assert_close(network(inputs), by_hand(inputs), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network(x), expected(expected(2 * x[None] - 1).relu() * 3 + 5), rtol=1e-10, atol=1e-10)


def test_predictions_without_a_reference_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="needs one"), ReferenceNormalisation(None).evaluating(lambda x: x):
        pass
