"""Likelihoods against torch.distributions, at scales that are not neutral."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal

from bbh_dist.tasks import Categorical, Gaussian

SAMPLES, BATCH = 3, 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_classes_have_the_softmax_s_probabilities() -> None:
    logits, labels = 3 * normal(SAMPLES, BATCH, 4), torch.arange(BATCH) % 4
    expected = TorchCategorical(logits=logits).log_prob(labels)
    torch.testing.assert_close(Categorical(4).log_prob(logits, labels), expected, rtol=1e-12, atol=1e-12)


def test_numbers_have_the_density_of_their_own_units() -> None:
    outputs, targets = normal(SAMPLES, BATCH, 1), 5 + 20 * normal(BATCH, seed=1)
    likelihood = Gaussian(9.0, offset=5.0, scale=32.0)
    expected = Normal(5 + 32 * outputs[..., 0], 9.0).log_prob(targets)
    torch.testing.assert_close(likelihood.log_prob(outputs, targets), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", [Categorical(4), Gaussian(0.5, 2.0, 3.0)])
def test_each_sample_may_have_labels_of_its_own(likelihood: Categorical | Gaussian) -> None:
    outputs = normal(SAMPLES, BATCH, likelihood.outputs)
    labels = torch.arange(SAMPLES * BATCH).view(SAMPLES, BATCH) % 4
    labels = labels if isinstance(likelihood, Categorical) else labels.double()
    together = likelihood.log_prob(outputs, labels)
    alone = [likelihood.log_prob(outputs[i : i + 1], labels[i])[0] for i in range(SAMPLES)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=0)
    assert together.shape == (SAMPLES, BATCH)
