from collections.abc import Callable

import pytest
import torch
from torch import nn

from bbh_dist.networks.normalisation import _grouped_group_norm, group_count, group_norm
from bbh_dist.networks.sampled import _grouped_conv2d

WAYS = pytest.mark.parametrize("normalise", [group_norm, _grouped_group_norm])


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 1), (7, 1), (12, 6), (16, 8), (32, 16), (64, 32), (96, 32), (100, 25), (160, 32), (640, 32)],
)
def test_group_count(channels: int, groups: int) -> None:
    assert group_count(channels) == groups


@WAYS
@pytest.mark.parametrize("samples", [1, 3])
def test_every_sample_is_normalised_as_torch_does(normalise: Callable, samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, 12, 3, 5, generator=generator, dtype=torch.float64) * 2 + 3
    expected = torch.stack([nn.GroupNorm(6, 12, affine=False)(activations) for activations in x])
    torch.testing.assert_close(normalise(x), expected, rtol=1e-12, atol=1e-12)


@WAYS
def test_groups_have_mean_0_and_variance_1(normalise: Callable) -> None:
    """Variance up to epsilon over the variance before, 1e-5 / 4."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 12, 8, 8, generator=generator, dtype=torch.float64) * 2 + 3
    groups = normalise(x).reshape(2, 3, 6, -1)
    assert groups.mean(3).abs().max() < 1e-12
    assert (groups.var(3, correction=0) - 1).abs().max() < 1e-5


def test_grouped_layers_hand_activations_on_without_a_copy() -> None:
    """Otherwise a network on CUDA would keep them twice."""
    x, kernel = torch.randn(3, 2, 4, 5, 5), torch.randn(3, 6, 4, 3, 3)
    for activations in (_grouped_conv2d(x, kernel), _grouped_group_norm(_grouped_conv2d(x, kernel))):
        images = torch.relu(activations).transpose(0, 1)
        assert images.is_contiguous()
