"""Residual networks over weight samples against torch.nn modules that are written here from the papers."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bbh_dist.networks import build_network, normalisation, sampled, sampled_layers

GROUPS = {16: 8, 32: 16, 64: 32, 128: 32, 256: 32, 512: 32}
SAMPLES = 2


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS[channels], channels, affine=False)


class PlainBasicBlock(nn.Module):
    """He et al. 2016, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = conv(inputs, outputs, stride=stride), conv(outputs, outputs)
        self.residual = nn.Sequential(first, norm(outputs), nn.ReLU(), second, norm(outputs))
        projected = nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))
        self.shortcut = nn.Identity() if inputs == outputs else projected

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


class PlainWideBlock(nn.Module):
    """Zagoruyko & Komodakis 2016, figure 1, B(3, 3), with the activation shared as in their code."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = conv(inputs, outputs, stride=stride), conv(outputs, outputs)
        self.activation = nn.Sequential(norm(inputs), nn.ReLU())
        self.residual = nn.Sequential(first, norm(outputs), nn.ReLU(), second)
        self.projection = None if inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        return self.residual(activated) + (x if self.projection is None else self.projection(activated))


def plain_resnet18(channels: int, classes: int) -> nn.Sequential:
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    blocks = [PlainBasicBlock(*size) for size in [*sizes, (512, 512, 1)]]
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    return nn.Sequential(conv(channels, 64), norm(64), nn.ReLU(), *blocks, *ending)


def plain_wrn_10_1(channels: int, classes: int) -> nn.Sequential:
    blocks = [PlainWideBlock(*size) for size in [(16, 16, 1), (16, 32, 2), (32, 64, 2)]]
    ending = [norm(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(conv(channels, 16), *blocks, *ending)


PLAIN = {"resnet18": plain_resnet18, "wrn-10-1": plain_wrn_10_1}


@pytest.fixture(scope="module", params=list(PLAIN))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def weights(name: str) -> dict[str, Tensor]:
    """Weight samples as at the start of training, for images of two channels and five classes."""
    generator = torch.Generator().manual_seed(0)
    return {
        t.name: (torch.randn(SAMPLES, *t.shape, generator=generator) * t.scale).double().requires_grad_()
        for t in build_network(name, (2, 8, 8), 5).tensors
    }


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def logits_of(name: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    network = build_network(name, tuple(x.shape[1:]), 5)
    return network(sampled_layers(network.layers, weights), x[None])


def plain_logits(name: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """One weight sample after the other; both networks have their weights in the same order."""
    with torch.device("meta"):
        plain = PLAIN[name](2, 5)
    names = [parameter for parameter, _ in plain.named_parameters()]
    samples = zip(*(weight.unbind() for weight in weights.values()), strict=True)
    return torch.stack([functional_call(plain, dict(zip(names, sample, strict=True)), (x,)) for sample in samples])


def test_logits_and_gradients_are_those_of_plain_modules(name: str, weights: dict[str, Tensor]) -> None:
    x = images(2, 2, 9, 16)
    logits, expected = logits_of(name, weights, x), plain_logits(name, weights, x)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    cotangent = images(*logits.shape)
    gradients = [torch.autograd.grad(value, list(weights.values()), cotangent) for value in (logits, expected)]
    for gradient, wanted in zip(*gradients, strict=True):
        assert (gradient - wanted).norm() <= 1e-10 * wanted.norm() < math.inf
        assert (gradient.flatten(1).norm(dim=1) > 0).all()  # it reaches every tensor of every sample


@torch.no_grad()
def test_a_prediction_does_not_depend_on_its_neighbours_in_the_batch(name: str, weights: dict[str, Tensor]) -> None:
    x = images(3, 2, 8, 8)
    together, alone = logits_of(name, weights, x), logits_of(name, weights, x[1:2])
    among_others = logits_of(name, weights, torch.cat([9 * x[:1] + 3, x[1:2]]))
    torch.testing.assert_close(alone, together[:, 1:2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(alone, among_others[:, 1:], rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wrn-10-1"], indirect=True)
def test_the_grouped_way_gives_the_same_logits(
    name: str, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(3, 2, 9, 8)
    expected = logits_of(name, weights, x)
    monkeypatch.setattr(sampled, "conv2d", sampled._grouped_conv2d)
    monkeypatch.setattr(normalisation, "group_norm", normalisation._grouped_group_norm)
    torch.testing.assert_close(logits_of(name, weights, x), expected, rtol=1e-10, atol=1e-10)


def wide_resnet_weights(depth: int, width: int, channels: int, classes: int) -> int:
    """All 3 x 3 convolutions as pairs of equal size, then what each stage's first block differs in."""
    blocks, (a, b, c) = (depth - 4) // 6, (16 * width, 32 * width, 64 * width)
    equal = 9 * 2 * blocks * (a**2 + b**2 + c**2)
    first = 9 * (16 * a - a**2 + a * b - b**2 + b * c - c**2)
    projections = (16 * a if width > 1 else 0) + a * b + b * c
    return 9 * channels * 16 + equal + first + projections + (c + 1) * classes


def test_wrn_28_10_has_36_461_242_weights() -> None:
    """The paper's 36.5 million: the 36,479,194 of its code less 17,952 scales and shifts of batch normalisation."""
    assert build_network("wrn-28-10", (3, 32, 32), 10).size == 36_461_242 == wide_resnet_weights(28, 10, 3, 10)


@pytest.mark.parametrize(("depth", "width", "size"), [(10, 1, 77_370), (16, 4, 2_745_274)])
def test_weights_of_other_wide_residual_networks(depth: int, width: int, size: int) -> None:
    network = build_network(f"wrn-{depth}-{width}", (3, 32, 32), 10)
    assert network.size == size == wide_resnet_weights(depth, width, 3, 10)


def test_resnet18_has_11_164_362_weights() -> None:
    """9,600 fewer than with scales and shifts: 4 c per block of c channels, 2 c per projection, 128 after the stem."""
    scales = 2 * 64 + sum(2 * 4 * c for c in (64, 128, 256, 512)) + sum(2 * c for c in (128, 256, 512))
    assert build_network("resnet18", (3, 32, 32), 10).size == 11_173_962 - scales == 11_164_362


@pytest.mark.parametrize(("name", "stages"), [("resnet18", 4), ("wrn-10-1", 3), ("wrn-22-4", 3)])
@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 9, 13), (5, 32, 8), (3, 33, 32)])
def test_every_stage_but_the_first_halves_the_sides(name: str, stages: int, input_shape: tuple[int, ...]) -> None:
    network = build_network(name, input_shape, 7)
    apply = sampled_layers(network.layers, {t.name: torch.empty(1, *t.shape, device="meta") for t in network.tensors})
    sides: dict[str, tuple[int, ...]] = {}

    def layer(name: str, x: Tensor) -> Tensor:
        y = apply(name, x)
        sides[name] = tuple(y.shape[3:])
        return y

    assert network(layer, torch.empty(1, 2, *input_shape, device="meta")).shape == (1, 2, 7)
    assert list(sides) == list(network.layers)
    assert sides["dense"] == ()
    for stage in range(1, stages + 1):
        seen = {side for name, side in sides.items() if name.startswith(f"stage{stage}.")}
        assert seen == {tuple(math.ceil(side / 2 ** (stage - 1)) for side in input_shape[1:])}


@pytest.mark.parametrize("input_shape", [(784,), (28, 28), (3, 7, 32), (3, 32, 7)])
@pytest.mark.parametrize("name", ["resnet18", "wrn-16-4"])
def test_refuses_what_is_no_image_or_too_small(name: str, input_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{name} needs images .* of at least 8 x 8, got"):
        build_network(name, input_shape, 10)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("wrn-27-10", "the depth of wrn-27-10 must be 10, 16, 22, 28 or another 6 n . 4, got 27$"),
        ("wrn-4-10", "the depth of wrn-4-10 must be"),
        ("wrn-28-0", "the width of wrn-28-0 must be at least 1, got 0$"),
    ],
)
def test_refuses_a_depth_without_whole_blocks_and_no_width(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        build_network(name, (3, 32, 32), 10)
