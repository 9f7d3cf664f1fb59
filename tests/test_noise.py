from dataclasses import replace

import pytest
import torch

from bbh_dist.noise import Noise, keyed_generator

NOISE = Noise(seed=3, purpose="train", step=7, samples=range(4))


def test_the_key_decides_what_a_generator_draws() -> None:
    first, again, other = (torch.randn(5, generator=keyed_generator(*key)) for key in (("a", 1), ("a", 1), ("a", 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_generator_state_is_kept_between_draws() -> None:
    first = NOISE.normal("z", 6)
    NOISE.normal("other", 60)
    torch.randn(3)
    assert torch.equal(NOISE.normal("z", 6), first)


@pytest.mark.parametrize("change", [{"seed": 4}, {"purpose": "val"}, {"step": 8}, {"samples": range(4, 8)}])
def test_each_part_of_the_key_matters(change: dict) -> None:
    assert not torch.isclose(replace(NOISE, **change).normal("z", 50), NOISE.normal("z", 50)).all(1).any()


def test_the_name_matters() -> None:
    assert not torch.isclose(NOISE.normal("z", 50), NOISE.normal("eps", 50)).all(1).any()


def test_two_workers_draw_what_one_draws() -> None:
    workers = [replace(NOISE, samples=samples).normal("z", 33) for samples in ((0, 1), (2, 3))]
    assert torch.equal(torch.cat(workers), NOISE.normal("z", 33))


def test_samples_after_are_the_same_samples_under_their_own_numbers() -> None:
    after = NOISE.after(2, 3)
    assert len(after) == 3
    assert torch.equal(after.normal("z", 9)[:2], NOISE.normal("z", 9)[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_standard_normal_in_the_asked_precision(dtype: torch.dtype) -> None:
    """n = 200,000: standard errors 0.0022 (mean), 0.0032 (variance), 0.011 (fourth moment); tolerance 4 of them."""
    drawn = replace(NOISE, dtype=dtype).normal("z", 50_000)
    assert drawn.dtype == dtype
    assert drawn.mean().item() == pytest.approx(0, abs=0.009)
    assert drawn.var().item() == pytest.approx(1, abs=0.013)
    assert drawn.pow(4).mean().item() == pytest.approx(3, abs=0.09)


def test_samples_and_neighbouring_steps_are_uncorrelated() -> None:
    """n = 50,000 per pair: standard error 0.0045, tolerance 4.5 of them for 28 pairs."""
    rows = torch.cat([replace(NOISE, step=step).normal("z", 50_000) for step in (7, 8)])
    off_diagonal = torch.corrcoef(rows) - torch.eye(8)
    assert off_diagonal.abs().max().item() < 0.02
