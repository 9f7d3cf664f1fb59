"""The approximate posteriors and their settings. Fields say their unit, range and where their default is from."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bbh_dist.config.errors import RuleError
from bbh_dist.config.model import Frozen, PositiveInt

Likelihood = Literal["mean_log", "log_mean"]


class Generator(Frozen):
    """The hypernetwork that turns noise into weights."""

    kind: Literal["single", "sliced", "layerwise"] = "single"
    """One generator for all slices, one per tensor emitting output units, one per tensor emitting it whole."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)] = (64, 256, 512)
    """Units of the hidden layers, at least one layer. Default: the paper."""
    noise_dim: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Dimensions of the noise z. Default: the paper."""
    shared_noise: bool = True
    """Whether one z per weight sample feeds everything (aligned; default: the paper). False draws one per tensor, for
    `single` one per slice."""
    head_precision: Literal["float32", "bfloat16"] = "float32"
    """How the heads of `layerwise` are stored; bfloat16, rounded stochastically, halves their bytes."""

    @model_validator(mode="after")
    def _bfloat16_is_for_layerwise(self) -> Self:
        if self.head_precision == "bfloat16" and self.kind != "layerwise":
            rule = f"must be float32 for the {self.kind} generator, whose heads are small"
            raise RuleError(rule, key="head_precision", got=self.head_precision)
        return self


class SemiImplicit(Frozen):
    """Settings of the semi-implicit posterior w = G(z) + sigma * eps (Yin & Zhou 2018)."""

    inner_samples: Annotated[int, Field(ge=0, le=4096)] | None = None
    """Other draws of z that bound log q(w), K in the paper; 0 bounds by each conditional alone.
    Default: those of the step, kl_samples - 1, which cost nothing."""
    initial_stddev: Annotated[float, Field(ge=1e-6, le=10)] = 0.2
    """Sigma at the start, in units of each tensor's scale (He's for kernels). Default: measured on MNIST."""


class Anneal(Frozen):
    """KL weight over time: 0 until `start`, then linear to `kl_weight` over `epochs`."""

    start: Annotated[float, Field(ge=0)] = 0.0
    """Epochs at weight 0. Default: none, the semi-implicit bound needs none; the paper 5 (MNIST), 20 (CIFAR5)."""
    epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs from 0 to full weight. Default: none; the paper 15."""


class MethodSettings(Frozen):
    """What every method has: a Gaussian prior, and a weight on the divergence from it."""

    splits_samples: ClassVar[bool] = False
    """Whether shards generate parts of the weight samples (`parallel.shards`)."""
    name: str
    prior_stddev: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Standard deviation of the factorised Gaussian prior; of point estimates that on kernels. Default: the paper."""
    kl_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the divergence; 1 is the ELBO."""
    anneal: Anneal = Anneal()
    """How that factor rises."""

    @property
    def label(self) -> str:
        """What tables and figures call it: the name, of bbh with the generator, as in bbh-single."""
        return self.name


class OneSampleMethod(MethodSettings):
    """Methods whose training step has one weight sample."""

    likelihood_samples: ClassVar[int] = 1
    likelihood: ClassVar[Likelihood] = "mean_log"

    @property
    def samples_per_step(self) -> int:
        """Weight samples drawn in a training step."""
        return 1


class SampledMethod(MethodSettings):
    """Methods whose training step may have several weight samples."""

    likelihood_samples: Annotated[int, Field(ge=1, le=4096)] = 1
    """Weight samples in the likelihood of a step, the first ones of the same draw. Default: the paper."""
    likelihood: Likelihood = "mean_log"
    """Mean over samples of the log-likelihood (the ELBO) or log of the mean likelihood (the paper's option)."""

    @property
    def samples_per_step(self) -> int:
        """Weight samples drawn in a training step."""
        return self.likelihood_samples


class MapMethod(OneSampleMethod):
    """Maximum a posteriori: one point estimate; the prior on the kernels makes an L2 penalty."""

    name: Literal["map"]


class BbhMethod(SampledMethod):
    """Bayes by Hypernet (Pawlowski et al. 2017)."""

    splits_samples: ClassVar[bool] = True
    name: Literal["bbh"]
    generator: Generator = Generator()
    divergence: Literal["semi_implicit", "knn", "knn_marginal", "gaussian"] = "semi_implicit"
    """How KL(q||p) is estimated. Only `semi_implicit` trains well at full KL weight; the paper used `knn`."""
    semi_implicit: SemiImplicit = SemiImplicit()
    kl_samples: Annotated[int, Field(ge=1, le=4096)] = 5
    """Weight samples in the KL estimate of a step. Default: the paper."""

    @model_validator(mode="after")
    def _estimators_have_samples(self) -> Self:
        if self.divergence != "semi_implicit" and self.kl_samples < 2:
            rule = f"must be at least 2 for the {self.divergence} divergence"
            raise RuleError(rule, key="kl_samples", got=self.kl_samples)
        if self.kl_samples < 2 and self.semi_implicit.inner_samples is None:
            rule = "must be at least 2, or semi_implicit.inner_samples be set: alone, z could only shrink"
            raise RuleError(rule, key="kl_samples", got=self.kl_samples)
        return self

    @property
    def label(self) -> str:
        """What tables and figures call it, such as bbh-single."""
        return f"{self.name}-{self.generator.kind}"

    @property
    def samples_per_step(self) -> int:
        """Weight samples drawn in a training step."""
        return max(self.kl_samples, self.likelihood_samples)


MethodConfig = MapMethod | BbhMethod
METHODS: dict[str, type[MethodConfig]] = {"map": MapMethod, "bbh": BbhMethod}
