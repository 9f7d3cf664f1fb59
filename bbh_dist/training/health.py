"""Whether a run's divergence estimate can be trusted, read off its metrics: a line for each thing that cannot be."""

from collections.abc import Mapping, Sequence

LARGEST_RELATIVE_VARIANCE = 10.0
"""Weights of an ELBO's posterior vary less than those of the prior, and at the start about as much as their scale, so
`posterior/relative_variance` is about 1 at most. An estimate without a pull back lets it grow without end, past ten
within some epochs; a temporary rise, or a few weights that the data pull far apart, stay below."""
_NOT_FINITE = "not finite"


def health(history: Sequence[Mapping[str, float]], failure: str | None = None) -> list[str]:
    """Lines for people, none for a healthy run, from its epochs' metrics and, if it failed, the reason.

    An estimate below 0 over a whole epoch: a divergence is never negative, and one epoch has hundreds of steps, over
    which the noise of an unbiased estimate averages out. It makes the objective pay for more of what makes it so.
    """
    lines = [line for line in (_negative(history), _exploding(history)) if line is not None]
    return [*lines, failure] if failure is not None and _NOT_FINITE in failure else lines


def _negative(history: Sequence[Mapping[str, float]]) -> str | None:
    found = [row for row in history if row.get("train/kl", 0.0) < 0]
    if not found:
        return None
    lowest = min(found, key=lambda row: row["train/kl"])
    return (
        f"the KL estimate was negative in {_epochs(found, history)}, lowest {lowest['train/kl']:,.4g} nats in epoch "
        f"{lowest['epoch']:.0f}; a divergence cannot be, so it misleads training"
    )


def _exploding(history: Sequence[Mapping[str, float]]) -> str | None:
    name = "posterior/relative_variance"
    found = [row for row in history if row.get(name, 0.0) > LARGEST_RELATIVE_VARIANCE]
    if not found:
        return None
    largest = max(found, key=lambda row: row[name])
    return (
        f"the weights' variance exploded in {_epochs(found, history)}, up to {largest[name]:,.4g} times that of the "
        f"prior or of the start, whichever is larger, in epoch {largest['epoch']:.0f}"
    )


def _epochs(found: Sequence[object], history: Sequence[object]) -> str:
    return f"{len(found)} of {len(history)} epoch{'s' * (len(history) > 1)}"
