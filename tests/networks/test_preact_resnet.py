"""The paper's ResNet over weight samples against torch.nn modules, and predictions with its ways to normalise."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bbh_dist.config import MapMethod
from bbh_dist.evaluation import predict
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network, build_normalisation, sampled_layers
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import Workers

SAMPLES = 2


class PlainUnit(nn.Module):
    """As the authors' code has it: BN, ReLU, conv, BN, ReLU, conv, beside an identity."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        norms = [nn.BatchNorm2d(channels, affine=False, track_running_stats=False) for channels in (inputs, outputs)]
        self.residual = nn.Sequential(norms[0], nn.ReLU(), first, norms[1], nn.ReLU(), second)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.new = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.pool(x)
        zeros = shortcut.new_zeros(len(x), self.new, *shortcut.shape[2:])
        return self.residual(x) + torch.cat([shortcut, zeros], dim=1)


def plain(channels: int, classes: int) -> nn.Sequential:
    scales = [(16, 16), (16, 32), (32, 64)]
    units = [PlainUnit(*((a, b, 2) if index == 0 else (b, b, 1))) for a, b in scales for index in range(5)]
    ending = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1), *units, *ending)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = build_network("preact-resnet", (2, 8, 8), 5).tensors
    return {t.name: (torch.randn(SAMPLES, *t.shape, generator=generator) * t.scale).double() for t in tensors}


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("sides", [(9, 16), (24, 24)])
def test_logits_and_gradients_are_those_of_plain_modules(weights: dict[str, Tensor], sides: tuple[int, int]) -> None:
    x = images(3, 2, *sides)
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    network = build_network("preact-resnet", (2, *sides), 5)
    logits = network(sampled_layers(network.layers, weights), x[None])
    with torch.device("meta"):
        module = plain(2, 5)
    names = [name for name, _ in module.named_parameters()]
    samples = zip(*(weight.unbind() for weight in weights.values()), strict=True)
    expected = torch.stack([functional_call(module, dict(zip(names, sample, strict=True)), (x,)) for sample in samples])
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    # The biases before a normalisation have no effect, so theirs is zero up to rounding.
    kernels = [weight for name, weight in weights.items() if name.endswith("weight")]
    found, wanted = (torch.autograd.grad(y.square().sum(), kernels, retain_graph=True) for y in (logits, expected))
    for gradient, other in zip(found, wanted, strict=True):
        assert (gradient - other).norm() <= 1e-8 * other.norm()


def test_its_weights_are_231_slices_of_2003() -> None:
    assert build_network("preact-resnet", (3, 24, 24), 5).size == 231 * 2_003 == 462_693


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"preact-resnet needs images .* of at least 8 x 8, got \(3, 7, 32\)"):
        build_network("preact-resnet", (3, 7, 32), 5)


def method(kind: str, together: int = 4) -> Method:
    normalisation = build_normalisation(kind, together, images(6, 2, 8, 8) - 0.5)
    network = build_network("preact-resnet", (2, 8, 8), 3, normalisation)
    return build_method(MapMethod(name="map"), network, keyed_generator("initial")).double()


NOISE = Noise(0, "test", 0, range(1), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize(("examples", "blocks"), [(8, [4, 4]), (9, [3, 3, 3]), (10, [3, 3, 4]), (3, [3])])
def test_predictions_by_batch_statistics_are_those_of_fixed_blocks(examples: int, blocks: list[int]) -> None:
    of, x = method("batch"), images(examples, 2, 8, 8)
    found = predict(of, x, NOISE)
    expected = torch.cat([of(block, None)[0].softmax(-1) for block in x.split(blocks)])
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-10, atol=1e-10)
    parts = [predict(of, x, NOISE, Workers(rank, 2)).probabilities for rank in range(2)]
    torch.testing.assert_close(parts[0] + parts[1], found.probabilities, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["reference", "group"])
def test_single_inputs_are_served(kind: str) -> None:
    of, x = method(kind), images(5, 2, 8, 8)
    together = predict(of, x, NOISE).probabilities
    alone = torch.cat([predict(of, x[i : i + 1], NOISE).probabilities for i in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)
    assert together.std(0).min() > 1e-3  # inputs are told apart


def test_batch_and_reference_differ_in_evaluation_only() -> None:
    x = images(4, 2, 8, 8)
    batch, reference = method("batch"), method("reference")
    assert torch.equal(batch(x, None), reference(x, None))
    predictions = [predict(of, x, NOISE).probabilities for of in (batch, reference)]
    assert (predictions[0] - predictions[1]).abs().max() > 1e-2


def test_the_shortcut_is_an_average_and_zeros() -> None:
    unit, x = build_network("preact-resnet", (3, 8, 8), 5).units[5], images(2, 3, 16, 6, 7)  # type: ignore[attr-defined]
    found = unit.shortcut(x)
    assert found.shape == (2, 3, 32, 3, 4)
    torch.testing.assert_close(found[0, :, :16, :, :3], F.avg_pool2d(x[0, ..., :6], 2))
    torch.testing.assert_close(found[..., :16, :, 3], x[..., 6].unflatten(-1, (3, 2)).mean(-1))
    assert not found[:, :, 16:].any()
