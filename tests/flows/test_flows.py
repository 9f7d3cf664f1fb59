"""Flows of many layers at once against the formulas, layer by layer, and against Jacobians by autograd."""

import pytest
import torch
from torch import Tensor

from bbh_dist.flows import Flows, MaskedRealNVP, Planar

UNITS = (3, 1, 4, 2, 1)
LAYERS = [range(0, 3), range(3, 4), range(4, 8), range(8, 10), range(10, 11)]
Z = torch.randn(5, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scrambled(module: torch.nn.Module) -> torch.nn.Module:
    """The module in double precision with all parameters at values of order 1."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def masked(index: int) -> MaskedRealNVP:
    return scrambled(MaskedRealNVP(UNITS, index, 6, torch.Generator().manual_seed(0)))


def jacobian(flow: torch.nn.Module, z: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], z)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_log_determinants_are_those_of_jacobians(count: int) -> None:
    """n = 5 vectors; tolerance 1e-9, double precision."""
    flows = scrambled(Flows(UNITS, count, 6, torch.Generator().manual_seed(0)))
    moved, found = flows(Z)
    expected = torch.stack([torch.linalg.slogdet(jacobian(flows, z)).logabsdet for z in Z])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(moved, Z) == (count == 0)
    assert found.any() == (count > 0)


def test_layers_do_not_see_each_other() -> None:
    layer_of = torch.tensor([index for index, layer in enumerate(LAYERS) for _ in layer])
    flows = scrambled(Flows(UNITS, 2, 6, torch.Generator().manual_seed(0)))
    connected = jacobian(flows, Z[0]) != 0
    assert not connected[layer_of[:, None] != layer_of].any()
    for layer in (slice(0, 3), slice(4, 8), slice(8, 10)):
        assert connected[layer, layer].any(0).all()


@pytest.mark.parametrize("index", [0, 1, 4])
def test_a_masked_step_is_the_papers(index: int) -> None:
    """Equations 9 and 10 for one layer after another, with a mask of zeros and ones over all of its units."""
    flow = masked(index)
    expected, determinant = Z.clone(), torch.zeros(5, dtype=torch.float64)
    shift, gate = flow.outward.chunk(2)
    shift_bias, gate_bias = flow.outward_bias.chunk(2)
    kept_before = moved_before = 0
    for number, layer in enumerate(layer for layer in LAYERS if len(layer) > 1):
        z = Z[:, layer.start : layer.stop]
        mask = torch.tensor([float(place % 2 == index % 2) for place in range(len(layer))], dtype=torch.float64)
        kept = slice(kept_before, kept_before := kept_before + int(mask.sum()))
        moved = slice(moved_before, moved_before := moved_before + int((1 - mask).sum()))
        f, g, k = (torch.zeros(len(layer), 6, dtype=torch.float64) for _ in range(3))
        f[mask == 1], g[mask == 0], k[mask == 0] = flow.inward[kept], shift[moved], gate[moved]
        bias_g, bias_k = (torch.zeros(len(layer), dtype=torch.float64) for _ in range(2))
        bias_g[mask == 0], bias_k[mask == 0] = shift_bias[moved], gate_bias[moved]
        h = torch.tanh((mask * z) @ f + flow.hidden_bias[number])
        mu, sigma = h @ g.mT + bias_g, torch.sigmoid(h @ k.mT + bias_k)
        expected[:, layer.start : layer.stop] = mask * z + (1 - mask) * (z * sigma + (1 - sigma) * mu)
        determinant = determinant + ((1 - mask) * sigma.log()).sum(1)
    torch.testing.assert_close(flow(Z), (expected, determinant), rtol=1e-12, atol=1e-12)


def test_two_masked_steps_move_every_unit() -> None:
    still = [set(masked(index).kept.tolist()) for index in (0, 1)]
    assert still[0] | still[1] == {unit for layer in LAYERS if len(layer) > 1 for unit in layer}
    assert not still[0] & still[1]
    for index in (0, 1):
        moved = masked(index)(Z)[0] != Z
        assert {int(unit) for unit in moved.all(0).nonzero()} == still[1 - index]


@pytest.mark.parametrize("u", [-30.0, -1.0, 0.3, 4.0])
def test_planar_steps_are_invertible_whatever_u(u: float) -> None:
    """They rise everywhere: on 400 places in [-5, 5] next to each other."""
    flow = scrambled(Planar((1, 1), torch.Generator().manual_seed(0)))
    flow.u.data[:] = u
    flow.w.data[:] = torch.tensor([1.4, -0.6])
    z = torch.linspace(-5, 5, 400, dtype=torch.float64)[:, None].expand(-1, 2)
    assert (flow(z)[0].diff(dim=0) > 0).all()


def test_a_planar_step_is_the_papers() -> None:
    """Rezende & Mohamed's equation 10 with the projected u of their appendix, for a vector of one component."""
    flow = scrambled(Planar(UNITS, torch.Generator().manual_seed(0)))
    for place, unit in enumerate((3, 10)):
        w, u, b = flow.w[place], flow.u[place], flow.b[place]
        projected = u + (torch.log1p(torch.exp(u * w)) - 1 - u * w) * w / w**2
        torch.testing.assert_close(flow(Z)[0][:, unit], Z[:, unit] + projected * torch.tanh(w * Z[:, unit] + b))


def test_flows_start_near_the_identity() -> None:
    """Gates of about 0.88 and targets of about 0 take at most 0.2 from |z| = 1; planar steps add 0.1 u, about 0.03."""
    units = (40, 60, *[1] * 20)
    z = torch.ones(1, 120, dtype=torch.float64)
    moved = Flows(units, 2, 50, torch.Generator().manual_seed(1)).double()(z)[0][0]
    assert moved[:100].mean().item() == pytest.approx(0.88, abs=0.02)
    assert ((moved - 1).abs()[:100] < 0.2).all()
    assert ((moved - 1).abs()[100:] < 0.3).all()
    assert moved[100:].mean().item() == pytest.approx(1, abs=0.1)
