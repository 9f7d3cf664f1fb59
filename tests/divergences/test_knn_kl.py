import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from bbh_dist.divergences import knn_kl, knn_kl_of_distances, knn_marginal_kl, squared_distances

BOTH = pytest.mark.parametrize("estimate", [knn_kl, knn_marginal_kl])
POSTERIOR = [torch.tensor([[0.0], [3.0]]).double(), torch.tensor([[0.0], [4.0]]).double()]
PRIOR = [torch.tensor([[0.5], [4.0], [9.0]]).double(), torch.tensor([[1.0], [2.0], [9.0]]).double()]


def normal(samples: int, weights: int, scale: float = 1.0, mean: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, weights, generator=generator, dtype=torch.float64) * scale + mean


def test_joint_estimate_by_hand() -> None:
    """Two weights in two tensors. (0, 0) is nearest to (0.5, 1), (3, 4) to (4, 2); the two are 5 apart."""
    ratios = math.log(math.sqrt(1.25) / 5) + math.log(math.sqrt(5) / 5)
    expected = 2 * ratios / 2 + math.log(3 / (2 - 1))  # the last term once, whatever D
    assert knn_kl(POSTERIOR, PRIOR).item() == pytest.approx(expected, abs=1e-6)


def test_marginal_estimate_by_hand() -> None:
    first = (math.log(0.5 / 3) + math.log(1 / 3)) / 2
    second = (math.log(1 / 4) + math.log(2 / 4)) / 2
    expected = first + second + 2 * math.log(3 / (2 - 1))  # the last term for every weight
    assert knn_marginal_kl(POSTERIOR, PRIOR).item() == pytest.approx(expected, abs=1e-6)


def test_distances_of_shards_add_up() -> None:
    posterior, prior = normal(5, 6, 0.7, 0.3), normal(4, 6, seed=1)
    halves = (squared_distances([posterior[:, half]], [prior[:, half]]) for half in (slice(0, 2), slice(2, 6)))
    summed = knn_kl_of_distances(torch.stack(list(halves)).sum(0), 6)
    torch.testing.assert_close(summed, knn_kl([posterior], [prior]), rtol=1e-12, atol=0)


@BOTH
def test_order_of_samples_and_grouping_of_weights_do_not_matter(estimate: Callable) -> None:
    posterior, prior = normal(5, 6, 0.7, 0.3), normal(5, 6, seed=1)
    value = estimate([posterior], [prior])
    shuffled = estimate([posterior[[3, 1, 4, 0, 2]]], [prior[[4, 2, 0, 1, 3]]])
    grouped = estimate(list(posterior.split([1, 5], dim=1)), list(prior.split([1, 5], dim=1)))
    torch.testing.assert_close(torch.stack([shuffled, grouped]), value.expand(2), rtol=1e-12, atol=1e-12)


@BOTH
def test_a_common_shift_and_scale_do_not_matter(estimate: Callable) -> None:
    """Tolerance 1e-4: the small number under the root has a scale of its own."""
    posterior, prior = normal(5, 6, 0.7, 0.3), normal(5, 6, seed=1)
    moved = estimate([4 * posterior + 2], [4 * prior + 2])
    assert moved.item() == pytest.approx(estimate([posterior], [prior]).item(), abs=1e-4)


@pytest.mark.parametrize("weights", [1, 2, 3])
def test_joint_estimate_is_near_the_truth_in_few_dimensions(weights: int) -> None:
    """S = 2,000: D times a log ratio has a variance near 2 pi^2 / 6, so the error is 0.04; tolerance 0.15."""
    truth = weights * kl_divergence(Normal(0.8, 0.6), Normal(0.0, 1.7)).item()
    estimate = knn_kl([normal(2000, weights, 0.6, 0.8)], [normal(2000, weights, 1.7, seed=1)])
    assert estimate.item() == pytest.approx(truth, abs=0.15)


def test_marginal_estimate_is_near_the_truth_for_independent_weights() -> None:
    """S = 200, D = 100: error of the sum about sqrt(100) * 1.8 / sqrt(200) = 1.3, and a bias; tolerance 5 % of 70."""
    truth = 100 * kl_divergence(Normal(0.8, 0.6), Normal(0.0, 1.7)).item()
    estimate = knn_marginal_kl([normal(200, 100, 0.6, 0.8)], [normal(200, 100, 1.7, seed=1)])
    assert estimate.item() == pytest.approx(truth, rel=0.05)


def test_joint_estimate_has_the_documented_bias_in_many_dimensions() -> None:
    """Per weight 0.5 log((1 + s^2) / (2 s^2)), which falls in s where the truth has a minimum at s = 1.

    D = 10,000, S = 5: squared distances vary by sqrt(2 / D) = 1.4 %, their logarithms' halves by 0.7 %; tolerance 0.02.
    """
    prior = normal(5, 10_000, seed=1)
    values = {s: knn_kl([normal(5, 10_000, s)], [prior]).item() / 10_000 for s in (0.3, 0.7, 1.0, 2.0, 10.0)}
    for s, value in values.items():
        assert value == pytest.approx(0.5 * math.log((1 + s**2) / (2 * s**2)), abs=0.02)
    assert list(values.values()) == sorted(values.values(), reverse=True)
    assert values[10.0] < values[2.0] < 0 < values[0.7]
    truths = {s: kl_divergence(Normal(0.0, s), Normal(0.0, 1.0)).item() for s in (2.0, 10.0)}
    assert truths[10.0] > 40 > truths[2.0] > 0.8


@BOTH
def test_gradient(estimate: Callable) -> None:
    posterior = normal(4, 5, 0.7, 0.3).requires_grad_()
    prior = [normal(4, 2, seed=1), normal(4, 3, seed=2)]
    assert torch.autograd.gradcheck(lambda w: estimate(list(w.split([2, 3], dim=1)), prior), posterior)


@BOTH
def test_equal_samples_have_a_finite_value_and_gradient(estimate: Callable) -> None:
    posterior = torch.ones(3, 4, requires_grad=True)
    loss = estimate([posterior], [torch.ones(3, 4)])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(posterior.grad).all()


def test_near_neighbours_far_from_the_origin_keep_their_distance_in_float32() -> None:
    posterior, prior = normal(4, 1000, 1e-2, 30.0), normal(4, 1000, 1e-2, 30.01, seed=1)
    exact = knn_kl([posterior.float().double()], [prior.float().double()]).item()
    assert knn_kl([posterior.float()], [prior.float()]).item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distances_and_their_gradient_are_those_of_cdist(offset: float) -> None:
    """Against autograd through `cdist`, in double precision; 40,000 weights in two tensors make several blocks.

    At 1e6 a product of matrices would lose 12 of 16 digits; differences lose the 6 that the samples have lost.
    """
    samples, others = normal(4, 40_000, 0.7, 0.3) + offset, normal(3, 40_000, 1.3, seed=1) + offset
    factors = normal(4, 7, seed=2)

    def by_cdist(w: Tensor) -> Tensor:
        return torch.cdist(w, torch.cat([w, others]), compute_mode="donot_use_mm_for_euclid_dist").square()

    def by_blocks(w: Tensor) -> Tensor:
        return squared_distances(list(w.split([39_000, 1_000], dim=1)), list(others.split([39_000, 1_000], dim=1)))

    results = []
    for distances in (by_cdist, by_blocks):
        w = samples.clone().requires_grad_()
        squared = distances(w)
        (squared * factors).sum().backward()
        results.append((squared.detach(), w.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-8)


def test_gradient_far_from_the_origin_in_float32() -> None:
    """Near neighbours 1e-2 apart per weight at 30; against double precision on the same numbers."""
    posterior, prior = normal(4, 1000, 1e-2, 30.0).float(), normal(4, 1000, 1e-2, 30.01, seed=1).float()

    def gradient(dtype: torch.dtype) -> Tensor:
        w = posterior.to(dtype, copy=True).requires_grad_()
        knn_kl([w], [prior.to(dtype)]).backward()
        return w.grad.double()

    single, double = gradient(torch.float32), gradient(torch.float64)
    assert (single - double).norm().item() < 1e-4 * double.norm().item()


@BOTH
def test_needs_two_samples(estimate: Callable) -> None:
    with pytest.raises(ValueError, match="at least 2 weight samples, got 1"):
        estimate([torch.ones(1, 4)], [torch.ones(5, 4)])
