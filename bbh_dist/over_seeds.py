"""Means over seeds, and whether two rows of a table differ: pure functions of numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAIRED_TEST = "two-sided paired t-test"


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation of the sample (n - 1; 0 for one value), and the number of values."""

    mean: float
    std: float
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """The summary of at least one value.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass(frozen=True)
class Comparison:
    """Ours minus the reference over common seeds: mean difference, number of seeds, and the p-value of no difference.

    The p-value is None where it does not exist: fewer than two common seeds, or differences that do not vary.
    """

    difference: float
    n: int
    p_value: float | None


def compare(ours: Mapping[int, float], reference: Mapping[int, float]) -> Comparison | None:
    """A two-sided paired t-test of two rows, seed to value, over the seeds that both have; None without any.

    With the differences d, t = mean(d) sqrt(n) / std(d) has Student's distribution with n - 1 degrees of freedom if d
    is normal with mean 0. It is not corrected for the number of comparisons.
    Source: Student 1908.
    """
    seeds = sorted(set(ours) & set(reference))
    if not seeds:
        return None
    differences = [ours[seed] - reference[seed] for seed in seeds]
    summary = summarise(differences)
    return Comparison(summary.mean, summary.n, _p_value(summary, differences))


def _p_value(summary: Summary, differences: Sequence[float]) -> float | None:
    # Differences that agree up to rounding say nothing about how much they vary.
    largest = max(map(abs, differences))
    if summary.n < 2 or not math.isfinite(largest) or summary.std <= 1e-12 * largest:
        return None
    from scipy.stats import t  # imported here: takes half a second, and most commands compare nothing

    return float(2 * t.sf(abs(summary.mean) / summary.std * math.sqrt(summary.n), summary.n - 1))
