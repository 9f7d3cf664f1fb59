"""How wide a posterior is, against torch.var of all samples at once and sums by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bbh_dist.config import BbhMethod
from bbh_dist.methods import BayesByHypernet
from bbh_dist.methods.spread import spread_measures, variances
from bbh_dist.networks import build_network
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import ALONE

NETWORK = build_network("mlp:5", (7,), 3)
NOISE = Noise(seed=2, purpose="posterior", step=1, samples=range(10), dtype=torch.float64)
TENSORS = [TensorSpec("a", (2, 8), 8), TensorSpec("b", (3,), 4)]
"""Scales sqrt(2 / 8) = 0.5 and 1 / sqrt(4) = 0.5."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[12], [5, 5, 2], [1] * 12])
def test_variances_of_draws_are_those_of_all_samples(sizes: list[int]) -> None:
    """Far from the origin, and with an empty part of a shard."""
    samples = [normal(12, 6) * torch.arange(1, 7) + 1e5, normal(12, 0)]
    found = variances(list(zip(*(part.split(sizes) for part in samples), strict=True)))
    torch.testing.assert_close(found[0], samples[0].var(0), rtol=1e-8, atol=0)
    assert found[1].shape == (0,)


@pytest.mark.parametrize(("prior_stddev", "reference"), [(0.2, 0.25), (2.0, 4.0)])
def test_measures_by_hand(prior_stddev: float, reference: float) -> None:
    """16 weights with variance 0.09 and sigma 0.4, so 0.25 and a share of 0.36; 3 with 1.0 and sigmas of their own."""
    of_generator = [torch.full((16,), 0.09), torch.full((3,), 1.0)]
    log_stddevs = [torch.tensor(0.4).log(), torch.tensor([0.5, 1.0, 2.0]).log()]
    found = spread_measures(of_generator, log_stddevs, TENSORS, prior_stddev, ALONE)
    assert list(found) == [
        "posterior/relative_variance",
        "posterior/generator_variance_share",
        "posterior/sigma_over_scale",
    ]
    variance, share, sigma = found.values()
    assert variance == pytest.approx((16 * 0.25 + 1.25 + 2.0 + 5.0) / 19 / reference, rel=1e-6)
    assert share == pytest.approx((16 * 0.36 + 0.8 + 0.5 + 0.2) / 19, rel=1e-6)
    assert sigma == pytest.approx((16 * 0.8 + 1.0 + 2.0 + 4.0) / 19, rel=1e-6)


def test_an_implicit_posterior_has_no_share() -> None:
    found = spread_measures([torch.full((16,), 0.09), torch.zeros(3)], None, TENSORS, 1.0, ALONE)
    assert found == {"posterior/relative_variance": pytest.approx(16 * 0.09 / 19)}


def built(**settings: Any) -> BayesByHypernet:
    generator = {"kind": "layerwise", "hidden": (4, 6), "noise_dim": 3}
    config = BbhMethod.model_validate({"name": "bbh", "generator": generator, "kl_samples": 4, **settings})
    return BayesByHypernet(config, NETWORK, keyed_generator("initial", 0)).double()


@pytest.mark.parametrize("stddev", ["tensor", "unit"])
def test_a_method_measures_what_its_generator_draws(stddev: str) -> None:
    method = built(semi_implicit={"stddev": stddev, "initial_stddev": 0.3})
    samples = method.generator(NOISE)
    shares = [
        (part.var(0) / (part.var(0) + (0.3 * tensor.scale) ** 2)).sum().item()
        for part, tensor in zip(samples, NETWORK.tensors, strict=True)
    ]
    found = method.measures(NOISE)
    assert found["posterior/generator_variance_share"] == pytest.approx(math.fsum(shares) / NETWORK.size, rel=1e-6)
    assert found["posterior/sigma_over_scale"] == pytest.approx(0.3, rel=1e-6)
    assert built(divergence="knn").measures(NOISE).keys() == {"posterior/relative_variance"}
