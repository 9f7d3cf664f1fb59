"""Stochastic rounding: unbiased, the same for every way to split the work, and nothing is lost."""

import dataclasses

import pytest
import torch
from layers import RULES, Layer
from torch import Tensor

from bbh_dist.factored import SGD, Adam, RMSProp, Rule, compiled, reference
from bbh_dist.factored.build import library
from bbh_dist.factored.rounding import noise, noise_seed, rounded

needs_compiler = pytest.mark.skipif(library() is None, reason="the kernel needs a C compiler, none was found")
WAYS = [pytest.param(compiled, id="compiled", marks=needs_compiler), pytest.param(reference, id="reference")]
DTYPES = [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)]


def sweep(way: object, layer: Layer, rule: Rule, rows: slice = slice(None), salt: int = 3) -> Tensor:
    state = {name: value[rows] for name, value in layer.state.items()}
    gradients = layer.gradients[:, rows]
    return way.sweep(layer.weight[rows], state, gradients, layer.features, rule, rows.start or 0, salt, True)


@needs_compiler
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("weight_dtype", "second_dtype"), DTYPES)
@pytest.mark.parametrize("F", [1, 48, 100])
def test_the_kernel_rounds_as_the_reference(
    rule: Rule, weight_dtype: torch.dtype, second_dtype: torch.dtype, F: int
) -> None:
    found = []
    for way in (compiled, reference):
        layer = Layer(rule, F=F, weight_dtype=weight_dtype, second_dtype=second_dtype)
        sweep(way, layer, dataclasses.replace(rule, step=12345))
        found.append(layer.tensors())
    check_alike(*found)


def check_alike(found: list[Tensor], expected: list[Tensor]) -> None:
    """The sums before rounding may differ in the last of 24 bits, which moves a rounded one now and then."""
    for ours, theirs in zip(found, expected, strict=True):
        if ours.dtype == torch.bfloat16:
            differences = (ours.view(torch.int16).int() - theirs.view(torch.int16).int()).abs()
            assert differences.max() <= 1
            assert differences.float().mean() < 1e-3
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_workers_with_a_share_of_the_rows_get_the_bits_of_one(way: object, rule: Rule) -> None:
    whole, shared = (Layer(rule, weight_dtype=torch.bfloat16, second_dtype=torch.bfloat16) for _ in range(2))
    expected = sweep(way, whole, rule)
    parts = [sweep(way, shared, rule, slice(start, end)) for start, end in ((0, 5), (5, 6), (6, 26), (26, 37))]
    if way is compiled:
        assert all(torch.equal(one, two) for one, two in zip(whole.tensors(), shared.tensors(), strict=True))
    else:  # a BLAS may add in another order for other numbers of rows; the noise has to be the same
        check_alike(shared.tensors(), whole.tensors())
    torch.testing.assert_close(sum(parts), expected)


@pytest.mark.parametrize("way", WAYS)
def test_rounding_is_right_on_average_over_steps(way: object) -> None:
    # With decay 0 the second moment is g^2. An error is at most 1 ulp with standard deviation at most 1/2: the mean
    # of n = 1000 has one of 0.016 ulp, and the largest of 64 stays below 5 of them.
    layer = Layer(RMSProp(0.0), S=1, D=4, F=16, second_dtype=torch.bfloat16)
    exact = (layer.gradients.T @ layer.features).square()
    total = torch.zeros_like(exact)
    for step in range(1000):
        sweep(way, layer, RMSProp(0.0, decay=0.0, step=step))
        total += layer.state["square_avg"].float()
    ulp = torch.exp2(exact.log2().floor() - 7)
    assert ((total / 1000 - exact) / ulp).abs().max() < 5 * 0.5 / 1000**0.5


@pytest.mark.parametrize("way", WAYS)
def test_small_steps_of_bfloat16_are_not_lost(way: object) -> None:
    # 200 decays by 0.999, each a fifth of an ulp or less: to the nearest, none would change a bit. A step's error has a
    # relative standard deviation of at most 2^-7 sqrt(q (1 - q)) with q = 0.001 / 2^-8 = 0.26, in sum 4.9 % at worst;
    # the mean of n = 4096 has 0.08 %, and 5 of them are allowed.
    rule = Adam(0.0)
    layer = Layer(rule, D=64, F=64, second_dtype=torch.bfloat16)
    layer.gradients.zero_()
    start = layer.state["exp_avg_sq"].double()
    for step in range(1, 201):
        sweep(way, layer, dataclasses.replace(rule, step=step))
    ratio = layer.state["exp_avg_sq"].double().sum() / start.sum()
    assert abs(ratio / 0.999**200 - 1) < 5 * 8e-4 * (start.square().mean() / start.mean() ** 2).sqrt()


@pytest.mark.parametrize("way", WAYS)
def test_steps_and_salts_have_noise_of_their_own(way: object) -> None:
    found = []
    for step, salt in ((1, 0), (2, 0), (1, 1)):
        layer = Layer(SGD(1e-2), weight_dtype=torch.bfloat16)
        sweep(way, layer, SGD(1e-2, step=step), salt=salt)
        found.append(layer.weight)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_noise_is_uniform_and_without_correlation() -> None:
    # n = 2^18 numbers in [0, 1): the mean has a standard deviation of 0.29 / 512, a correlation one of 1 / 512.
    bits = noise(noise_seed(7, 0), torch.empty(512, 512))
    after = noise(noise_seed(8, 0), torch.empty(512, 512))
    upper, lower, next_step = (bits >> 16) / 2**16, (bits & 0xFFFF) / 2**16, (after >> 16) / 2**16
    for uniform in (upper, lower):
        assert abs(uniform.mean() - 0.5) < 5 * 0.29 / 512
        assert abs(uniform.std() - 12**-0.5) < 5 * 0.29 / 512
    others = (lower, next_step, upper.roll(1, 0), upper.roll(1, 1), upper.roll((1, -1), (0, 1)))
    for other in others:
        assert abs(torch.corrcoef(torch.stack([upper.flatten(), other.flatten()]))[0, 1]) < 5 / 512


def test_numbers_that_bfloat16_has_stay_and_so_do_nan_and_infinity() -> None:
    most = torch.full((), 0xFFFF)
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, torch.inf, -torch.inf])
    assert torch.equal(rounded(exact, most).view(torch.int16), exact.bfloat16().view(torch.int16))
    nan_with_low_bits_only = torch.tensor([0x7F800001, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert rounded(nan_with_low_bits_only, most).isnan().all()
    assert rounded(nan_with_low_bits_only, torch.zeros(())).isnan().all()
