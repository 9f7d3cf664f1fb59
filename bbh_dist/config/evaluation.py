"""How a run is measured: weight samples, attacks, shifts."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from bbh_dist.config.errors import RuleError
from bbh_dist.config.model import Frozen

Count = Annotated[int, Field(ge=0, le=10_000_000)]
Samples = Annotated[int, Field(ge=1, le=100_000)]
Epsilon = Annotated[float, Field(ge=0, le=10)]
_EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
_CLOSEST_EPSILONS = 1e-4


class Attacks(Frozen):
    """Adversarial attacks on test images at the end of a run; none by default, they take longer than the test."""

    fgsm_examples: Count = 0
    """First test images that FGSM (Goodfellow et al. 2015) changes, all where there are fewer. The paper: 100; a suite:
    1,000."""
    fgsm_samples: Samples = 100
    """Weight samples whose gradients it averages. Default: the paper."""
    pgd_examples: Count = 0
    """The same for projected gradient descent (Madry et al. 2018), which the paper does not have. A suite: 1,000, in
    `quick` 200."""
    pgd_samples: Samples = 20
    """Weight samples of one of its steps; the next has others. Default: 200 over all steps."""
    pgd_steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Steps for each eps."""
    pgd_step_per_epsilon: Annotated[float, Field(gt=0, le=10)] = 0.25
    """Length of a step in units of eps. Default: 2.5 / steps, which reaches the border of the ball from everywhere in
    it (Madry et al. 2018, figure 6)."""
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1, max_length=100, strict=False)] = _EPSILONS
    """Largest changes of a pixel, in the units of the inputs. Default: the paper."""

    @field_validator("epsilons")
    @classmethod
    def _epsilons_rise(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        if any(after - before < _CLOSEST_EPSILONS for before, after in pairwise(epsilons)):
            raise RuleError(f"must rise, by at least {_CLOSEST_EPSILONS:g} each", got=list(epsilons))
        return epsilons

    @property
    def examples(self) -> dict[str, int]:
        """Images for each attack that is asked for."""
        asked = {"fgsm": self.fgsm_examples, "pgd": self.pgd_examples}
        return {name: count for name, count in asked.items() if count}


class Evaluation(Frozen):
    """How predictions are made, and what they are put to."""

    samples: Samples = 100
    """Weight samples at the end of a run. Default: the paper."""
    epoch_samples: Samples = 20
    """Weight samples for validation after each epoch. Default: a fifth of `samples`, for speed."""
    attacks: Attacks = Attacks()
    """Adversarial attacks on test images."""
    shifts: bool = False
    """Whether some test images are rotated and mixed step by step, to see how the class probabilities move; costs less
    than a second. The paper: yes."""
