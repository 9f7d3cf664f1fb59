"""Means, deviations and paired tests against SciPy and hand-computed values."""

import random

import pytest
import scipy.stats

from bbh_dist.over_seeds import Comparison, Summary, compare, summarise


def test_the_deviation_is_the_samples() -> None:
    # Mean 5, squares 16 + 1 + 25 = 42 over 2.
    assert summarise([1.0, 4.0, 10.0]) == Summary(5.0, pytest.approx(21**0.5), 3)
    assert summarise([3.5]) == Summary(3.5, 0.0, 1)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_p_value_is_that_of_scipy(count: int) -> None:
    draw = random.Random(count)
    ours = {seed: draw.gauss(1.3, 0.4) for seed in range(count)}
    reference = {seed: draw.gauss(1.0, 0.7) for seed in range(count)}
    expected = scipy.stats.ttest_rel(list(ours.values()), list(reference.values()))
    found = compare(ours, reference)
    assert found is not None
    assert found.n == count
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.difference == pytest.approx(sum(ours.values()) / count - sum(reference.values()) / count)


def test_a_hand_computed_p_value() -> None:
    # Differences 1 and 3: t = 2 / (sqrt(2) / sqrt(2)) = 2; with one degree of freedom P(|T| > 2) = 1 - 2 atan(2) / pi.
    found = compare({0: 2.0, 1: 5.0}, {0: 1.0, 1: 2.0})
    assert found == Comparison(2.0, 2, pytest.approx(0.2951672353008665))


def test_only_common_seeds_are_compared() -> None:
    found = compare({0: 2.0, 1: 5.0, 2: 100.0}, {1: 2.0, 0: 1.0, 7: -50.0})
    assert found == compare({0: 2.0, 1: 5.0}, {0: 1.0, 1: 2.0})
    assert compare({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("ours", "reference", "difference"),
    [
        ({4: 2.0}, {4: 1.5}, 0.5),
        ({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, 0.0),
        ({0: 0.3, 1: 0.8, 2: 1.3}, {0: 0.2, 1: 0.7, 2: 1.2}, 0.1),
    ],
    ids=["one-seed", "equal", "constant-up-to-rounding"],
)
def test_without_variation_there_is_no_p_value(
    ours: dict[int, float], reference: dict[int, float], difference: float
) -> None:
    assert compare(ours, reference) == Comparison(pytest.approx(difference), len(ours), None)
