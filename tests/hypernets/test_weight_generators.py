import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bbh_dist.config import Generator
from bbh_dist.hypernets import SingleGenerator, WeightGenerator, build_generator, slice_plan
from bbh_dist.hypernets.trunk import Head, Trunk
from bbh_dist.networks import TensorSpec, build_network
from bbh_dist.noise import Noise

KINDS = get_args(Generator.model_fields["kind"].annotation)
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
TENSORS = build_network("mlp:7", (10,), 4).tensors  # 109 weights: the single generator emits 19 slices of 6


class GivenNoise(Noise):
    """Noise whose numbers may be changed by name; it remembers what was asked for."""

    def __init__(self, samples: Sequence[int] = range(4)) -> None:
        super().__init__(seed=5, purpose="test", step=0, samples=samples, dtype=torch.float64)
        object.__setattr__(self, "given", {})

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        return self.given.setdefault(name, super().normal(name, size, part))


def built(kind: str, shared_noise: bool = True, seed: int = 0, hidden: tuple[int, ...] = (6, 9)) -> WeightGenerator:
    config = Generator(kind=kind, hidden=hidden, noise_dim=3, shared_noise=shared_noise)
    return build_generator(config, TENSORS, torch.Generator().manual_seed(seed)).double()


def one_hot_samples(trunk: Trunk, head: Head, z_SNK: Tensor) -> Tensor:
    """(S, N * O) by plain layers over z joined with a one-hot condition, whose columns are the embedding's rows."""
    samples, conditions, _ = z_SNK.shape
    if trunk.condition is None:
        kernel, x = trunk.input, z_SNK
    else:
        one_hot = torch.eye(conditions, dtype=z_SNK.dtype).expand(samples, -1, -1)
        kernel, x = torch.cat([trunk.input, trunk.condition.mT], dim=1), torch.cat([z_SNK, one_hot], dim=2)
    for weight, bias in zip([kernel, *trunk.kernels], trunk.biases, strict=True):
        x = F.leaky_relu(x @ weight.mT + bias, 0.1)
    return (x @ head.weight.mT + head.bias).flatten(1)


@EACH_KIND
@pytest.mark.parametrize("shared_noise", [True, False])
def test_equals_plain_layers_over_one_hot_conditions(kind: str, shared_noise: bool) -> None:
    generator, noise = built(kind, shared_noise), GivenNoise()
    for parameter in generator.parameters():
        parameter.data += 0.1  # biases start at 0
    samples = generator(noise)
    if isinstance(generator, SingleGenerator):
        z = noise.given["z"].view(4, -1, 3).expand(4, generator.slices, 3)
        assert generator.slices * generator.slice_size == 114  # of which the last 5 numbers are discarded
        expected = one_hot_samples(generator.trunk, generator.head, z)[:, :109].split([t.size for t in TENSORS], 1)
    else:
        zs = [noise.given["z" if shared_noise else f"z/{tensor.name}"][:, None] for tensor in TENSORS]
        parts = zip(generator.trunks, generator.heads, zs, strict=True)
        expected = [one_hot_samples(trunk, head, z.expand(-1, trunk.conditions, -1)) for trunk, head, z in parts]
    for sample, unscaled, tensor in zip(samples, expected, TENSORS, strict=True):
        assert sample.shape == (4, tensor.size)
        torch.testing.assert_close(sample, unscaled * tensor.scale, rtol=1e-12, atol=1e-12)


def test_slices_of_the_sliced_generator_are_output_units() -> None:
    assert [trunk.conditions for trunk in built("sliced").trunks] == [7, 1, 4, 1]
    assert [head.weight.shape[0] for head in built("sliced").heads] == [10, 7, 7, 4]


@EACH_KIND
def test_aligned_noise_is_one_z_for_all_tensors(kind: str) -> None:
    generator, noise = built(kind), GivenNoise()
    before = generator(noise)
    assert {name: tuple(z.shape) for name, z in noise.given.items()} == {"z": (4, 3)}
    noise.given["z"] = noise.given["z"] + 1
    assert not any(torch.isclose(a, b).all(1).any() for a, b in zip(before, generator(noise), strict=True))


@pytest.mark.parametrize("kind", ["sliced", "layerwise"])
def test_independent_noise_is_one_z_for_each_tensor(kind: str) -> None:
    generator, noise = built(kind, shared_noise=False), GivenNoise()
    before = generator(noise)
    assert [tuple(z.shape) for z in noise.given.values()] == [(4, 3)] * len(TENSORS)
    noise.given[f"z/{TENSORS[2].name}"] = noise.given[f"z/{TENSORS[2].name}"] + 1
    same = [torch.equal(a, b) for a, b in zip(before, generator(noise), strict=True)]
    assert same == [True, True, False, True]


def test_independent_noise_of_the_single_generator_is_one_z_for_each_slice() -> None:
    generator, noise = built("single", shared_noise=False), GivenNoise()
    before = torch.cat(generator(noise), 1)
    assert noise.given["z"].shape == (4, generator.slices * 3)
    noise.given["z"][:, 3:6] += 1
    changed = (torch.cat(generator(noise), 1) != before).all(0).nonzero().flatten()
    assert changed.tolist() == list(range(generator.slice_size, 2 * generator.slice_size))


@EACH_KIND
def test_each_sample_depends_on_its_own_noise_alone(kind: str) -> None:
    generator = built(kind)
    together, alone = generator(GivenNoise(range(4))), generator(GivenNoise([2]))
    for some, one in zip(together, alone, strict=True):
        torch.testing.assert_close(some[2:3], one, rtol=1e-12, atol=1e-12)


@EACH_KIND
def test_weights_start_at_the_scale_of_their_tensors(kind: str) -> None:
    """Root mean square over 60 seeds, 20 samples each, n = 240 parameter draws for the shortest tensor: error 7 %.

    Tolerance 25 %.
    """
    noise = GivenNoise(range(20))
    samples = [built(kind, seed=seed, hidden=(32, 64))(noise) for seed in range(60)]
    for index, tensor in enumerate(TENSORS):
        drawn = torch.stack([weights[index] for weights in samples])
        assert drawn.square().mean().sqrt().item() == pytest.approx(tensor.scale, rel=0.25)
        assert drawn.mean().abs().item() < 0.25 * tensor.scale


def parameters(kind: str, tensors: Sequence[TensorSpec]) -> int:
    """Parameters of the paper's generator (hidden 64, 256, 512, noise 8), counted without memory for them."""
    with FakeTensorMode():
        generator = build_generator(Generator(kind=kind), tensors, torch.Generator())
    return sum(parameter.numel() for parameter in generator.parameters())


def trunk_parameters(inputs: int) -> int:
    return (inputs + 1) * 64 + (64 + 1) * 256 + (256 + 1) * 512


def test_parameter_counts_of_the_paper() -> None:
    lenet = build_network("lenet", (1, 28, 28), 10).tensors
    assert parameters("layerwise", lenet) == 222_334_440
    assert parameters("single", lenet) == trunk_parameters(8 + 130) + 513 * 3316
    sliced = [(t.shape[0], math.prod(t.shape[1:])) if t.is_kernel else (0, t.size) for t in lenet]
    assert parameters("sliced", lenet) == sum(trunk_parameters(8 + units) + 513 * size for units, size in sliced)


def test_slices_of_the_paper() -> None:
    assert slice_plan(431_080) == (130, 3316)
    assert slice_plan(462_693) == (231, 2003)


def test_a_plan_covers_the_weights_and_wastes_less_than_a_slice() -> None:
    for weights in (*range(1, 3000), 6505, 9973, 65_537, 1_000_003):
        count, size = slice_plan(weights)
        assert (count - 1) * size < weights <= count * size, weights
        assert size <= 4096
        assert count >= min(16, weights)
