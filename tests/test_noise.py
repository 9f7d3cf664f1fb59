import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bbh_dist.costs.noise import CountedNoise
from bbh_dist.noise import ExampleNoise, Noise, drawn_blocks, keyed_generator

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


def test_places_are_one_of_each_stretch() -> None:
    places = NOISE.places("some", 4, 22)
    assert [int(place / 5.5) for place in places] == [0, 1, 2, 3]
    assert torch.equal(places, NOISE.places("some", 4, 22))
    assert torch.equal(places, replace(NOISE, samples=(9,)).places("some", 4, 22))
    others = [NOISE.places("other", 4, 22), *(replace(NOISE, step=step).places("some", 4, 22) for step in range(3))]
    assert not any(torch.equal(places, other) for other in others)


@pytest.mark.parametrize("count", [7, 8])
def test_all_places_where_no_fewer_are_asked_for(count: int) -> None:
    assert torch.equal(NOISE.places("some", count, 7), torch.arange(7))


def test_every_place_is_as_likely_as_any_other() -> None:
    """4 of 10 in 4,000 steps: each 1,600 times with a standard deviation of 36 at most; tolerance 4 of them.

    Places 2 and 7 lie across two stretches of 2.5.
    """
    places = torch.cat([replace(NOISE, step=step).places("some", 4, 10) for step in range(4000)])
    counts = places.bincount(minlength=10)
    assert (counts - 1600).abs().max() < 4 * 36


BLOCK = 65_536  # numbers under one key


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch's threads: with more than one the blocks are drawn in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def parts(size: int) -> list[range]:
    """Halves, thirds, nothing, single numbers, and what begins or ends beside a border of blocks or chunks of 16."""
    found = [range(0), range(size, size), range(size), range(1), range(size - 1, size)]
    found += [range(size - left) for left in (14, 15, 16, 17, 31, 32, 33) if left < size]
    for count in (2, 3):
        length = -(-size // count)
        found += [range(min(size, i * length), min(size, (i + 1) * length)) for i in range(count)]
    near = [border + shift for border in range(0, size + 2, BLOCK) for shift in (-1, 0, 1)]
    inside = [place for place in near if 0 <= place <= size]
    return found + [range(start, stop) for start in inside for stop in inside if start < stop]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 15, 17, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 20, 200_000])
def test_parts_are_columns_of_the_whole(size: int, dtype: torch.dtype, threads: int) -> None:
    noise = replace(NOISE, samples=(5, 2), dtype=dtype)
    whole = noise.normal("z", size)
    assert whole.shape == (2, size)
    assert torch.get_num_threads() == threads
    for part in parts(size):
        found = noise.normal("z", size, part)
        assert found.shape == (2, len(part))
        assert torch.equal(found, whole[:, part.start : part.stop]), part


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        (range(200_000), 200_000),
        (range(200_000, 400_000), 400_000 - 3 * BLOCK),
        (range(BLOCK + 1), BLOCK + 16),
        (range(399_999), 400_000),
        (range(5, 5), 0),
    ],
)
def test_no_more_is_drawn_than_a_part_needs(part: range, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row of 400,000, which ends within a block; planned costs count the same."""
    drawn: list[int] = []
    of_torch = torch.Tensor.normal_

    def counted(target: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        drawn.append(target.numel())
        return of_torch(target, generator=generator)

    monkeypatch.setattr(torch.Tensor, "normal_", counted)
    replace(NOISE, samples=(5,)).normal("z", 400_000, part)
    assert sum(drawn) == numbers
    planned = CountedNoise(0, "train", 0, (5,), torch.device("meta"))
    planned.normal("z", 400_000, part)
    assert [operation.touched_bytes for operation in planned.operations] == ([4 * numbers] if numbers else [])
    assert sum(operation.calls for operation in planned.operations) == len(drawn)


def test_on_a_gpu_whole_blocks_are_drawn() -> None:
    """A number depends there on how many are drawn with it."""
    assert drawn_blocks(range(200_000), BLOCK, 400_000, on_cpu=False)[-1] == range(3 * BLOCK, 4 * BLOCK)


def test_the_number_of_threads_does_not_matter() -> None:
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)  # the fixture of all tests sets it back
        found.append(NOISE.normal("z", 200_000))
    assert torch.equal(*found)


def test_blocks_are_uncorrelated() -> None:
    """n = 65,536 per pair: standard error 0.0039, tolerance 4.5 of them for 6 pairs of samples and blocks."""
    whole = replace(NOISE, samples=range(2)).normal("z", 2 * BLOCK)
    off_diagonal = torch.corrcoef(whole.view(4, BLOCK)) - torch.eye(4)
    assert off_diagonal.abs().max().item() < 0.0176


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


WORDS = 4 * 8192  # integers under one key


@pytest.mark.parametrize(("kind", "block"), [("endless_integers", WORDS), ("endless_normal", WORDS // 4)])
def test_parts_of_endless_rows_are_columns_of_longer_parts(kind: str, block: int, threads: int) -> None:
    draw = getattr(replace(NOISE, samples=(5, 2)), kind)
    whole = draw("mask", range(9 * block))
    borders = [place + shift for place in (0, block, 7 * block) for shift in (0, 1, 2, 3, 7)]
    for part in [range(start, stop) for start in borders for stop in borders if start <= stop]:
        found = draw("mask", part)
        assert found.shape == (2, len(part))
        assert torch.equal(found, whole[:, part.start : part.stop]), part


def test_integers_take_every_value_alike() -> None:
    """n = 1.3 million in 64 bins of 20,480: chi-squared with 63 degrees of freedom, 5 standard deviations above."""
    drawn = NOISE.endless_integers("mask", range(10 * WORDS)).double()
    counts = torch.histc(drawn, 64, -(2**15), 2**15)
    assert ((counts - 20_480) ** 2 / 20_480).sum().item() < 63 + 5 * (2 * 63) ** 0.5
    assert (drawn.min(), drawn.max()) == (-(2**15), 2**15 - 1)


@pytest.mark.parametrize("change", [{"seed": 4}, {"purpose": "val"}, {"step": 8}, {"samples": range(4, 8)}])
def test_each_part_of_the_key_decides_integers(change: dict) -> None:
    """n = 200 pairs, each alike with probability 1 / 65,536."""
    assert (
        replace(NOISE, **change).endless_integers("a", range(50)) == NOISE.endless_integers("a", range(50))
    ).sum() < 3
    assert (NOISE.endless_integers("a", range(50)) == NOISE.endless_integers("b", range(50))).sum() < 3


@pytest.mark.parametrize("kind", ["normal", "coins", "signs"])
@pytest.mark.parametrize("size", [3, 700])
def test_an_examples_noise_is_that_of_its_place(kind: str, size: int) -> None:
    """Shares begin and end anywhere, also in other blocks."""

    def drawn(first: int, examples: int) -> Tensor:
        settings = (1000,) if kind == "coins" else ()
        return getattr(ExampleNoise(NOISE, first), kind)("a", examples, size, *settings)

    whole = drawn(0, 200)
    assert whole.shape == (4, 200, size)
    for first, examples in ((0, 1), (0, 199), (1, 93), (94, 106), (199, 1), (7, 0)):
        assert torch.equal(drawn(first, examples), whole[:, first : first + examples])


@pytest.mark.parametrize("ones", [1, 20_000, 32_768, 65_535, 65_536])
def test_coins_are_1_with_their_probability(ones: int) -> None:
    """n = 400,000; tolerance 5 standard errors."""
    coins = ExampleNoise(replace(NOISE, dtype=torch.float64), 3).coins("a", 100, 1000, ones)
    assert coins.dtype == torch.float64
    assert bool(((coins == 0) | (coins == 1)).all())
    p = ones / 65_536
    assert coins.mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / coins.numel()) ** 0.5)


def test_signs_are_uncorrelated_between_examples_and_samples() -> None:
    """n = 10,000 per pair: standard error 0.01, tolerance 4.5 of them for 66 pairs."""
    signs = ExampleNoise(NOISE, 0).signs("a", 3, 10_000).view(12, -1)
    assert bool((signs.abs() == 1).all())
    assert (torch.corrcoef(signs) - torch.eye(12)).abs().max().item() < 0.045
    assert signs.mean(1).abs().max().item() < 0.045


FORKS = """
import os, signal, torch
from bbh_dist.noise import Noise
torch.set_num_threads(2)
noise = Noise(0, "train", 0, range(2))
before = noise.normal("z", 70_000)
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(not torch.equal(noise.normal("z", 70_000), before))
raise SystemExit(os.waitpid(child, 0)[1])
"""


def test_a_forked_process_draws_on_threads_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORKS], timeout=120).returncode == 0
