"""The approximate posteriors and their settings. Fields say their unit, range and where their default is from."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bbh_dist.config.errors import RuleError
from bbh_dist.config.model import Frozen, PositiveInt

Likelihood = Literal["mean_log", "log_mean"]
Units = Annotated[int, Field(ge=1, le=1_000_000)]


class Generator(Frozen):
    """The hypernetwork that turns noise into weights."""

    kind: Literal["single", "sliced", "layerwise"] = "single"
    """One generator for all slices, one per tensor emitting output units, one per tensor emitting it whole."""
    hidden: Annotated[tuple[Units, ...], Field(min_length=1, strict=False)] = (64, 256, 512)
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
    stddev: Literal["tensor", "unit"] = "tensor"
    """What shares a sigma: a weight tensor, or the weights of an output unit (of a bias each weight has its own)."""
    initial_stddev: Annotated[float, Field(ge=1e-6, le=10)] = 0.2
    """Sigma at the start, in units of each tensor's scale (He's for kernels). Default: measured on MNIST."""


class Discriminator(Frozen):
    """Settings of the network that tells weights of the posterior from weights of the prior.

    One network for all weights, which sees the value of one at a time: adversarial variational Bayes (Mescheder et al.
    2017) in the paper's form.
    """

    hidden: Annotated[tuple[Units, ...], Field(min_length=1, strict=False)] = (64, 64, 64)
    """Units of the hidden layers, at least one layer. Default: the paper."""
    pretraining_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Steps of the network before training begins; then it takes one with each training step. Default: the paper."""
    gradient_clip: Annotated[float, Field(gt=0)] = 5.0
    """Each number of its gradient is kept within plus and minus this. Default: the paper."""
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Its learning rate, by Adam. Default: Adam's usual one; the paper does not say."""
    weights: PositiveInt = 512
    """Weights of each sample that a step looks at, spread over all, others at every step; sums over them are scaled up.
    The paper took all. Default: 10 ms a step on one core; all weights of LeNet would take seconds."""


class Anneal(Frozen):
    """KL weight over time: 0 until `start`, then linear to `kl_weight` over `epochs`."""

    start: Annotated[float, Field(ge=0)] = 0.0
    """Epochs at weight 0. Default: none, the semi-implicit bound needs none; the paper 5 (MNIST), 20 (CIFAR5)."""
    epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs from 0 to full weight. Default: none; the paper 15."""


class MethodSettings(Frozen):
    """What every method has: a Gaussian prior, and a weight on the divergence from it."""

    splits_samples: ClassVar[bool] = False
    """Whether shards generate parts of the weight samples, or hold some of the members (`parallel.shards`)."""
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

    def default_shards(self, workers: int) -> int:
        """Workers out of so many over which weights are split."""
        return 1


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


class EnsembleMethod(MethodSettings):
    """Deep ensemble (Lakshminarayanan et al. 2017): members that differ by initialisation and by their batches."""

    splits_samples: ClassVar[bool] = True
    likelihood: ClassVar[Likelihood] = "mean_log"
    name: Literal["ensemble"]
    members: Annotated[int, Field(ge=1, le=4096)] = 10
    """Networks, each a maximum a posteriori of its own. Default: the paper."""

    @property
    def likelihood_samples(self) -> int:
        """Weight samples in the likelihood of a step: all members."""
        return self.members

    @property
    def samples_per_step(self) -> int:
        """Weight samples drawn in a training step."""
        return self.members

    def default_shards(self, workers: int) -> int:
        """As many as hold the same number of members each."""
        return math.gcd(self.members, workers)


class DropoutMethod(OneSampleMethod):
    """MC-dropout (Gal & Ghahramani 2016): masks on the inputs of the network's inner layers; L2 as MAP."""

    name: Literal["dropout"]
    rate: Annotated[float, Field(ge=0, le=0.99)] = 0.5
    """Probability that an input is dropped; 0 is MAP. Default: the paper."""


class BbbMethod(SampledMethod):
    """Bayes by Backprop (Blundell et al. 2015): a factorised Gaussian."""

    name: Literal["bbb"]
    estimator: Literal["reparameterised", "local", "flipout"] = "reparameterised"
    """Who shares noise in training: all examples a weight sample, none anything, or all what their own signs flip.
    Predictions have weight samples. Default: measured on LeNet, where the others take twice the time."""
    initial_log_variance: Annotated[float, Field(ge=-100, le=10)] = -9.0
    """Of every weight at the start. Default: the paper on MNIST; it took -30 for its ResNet."""
    initial_stddev: Annotated[float, Field(ge=1e-6, le=10)] | None = None
    """Instead of it: sigma at the start in units of each tensor's scale, as semi_implicit.initial_stddev of bbh."""

    @model_validator(mode="after")
    def _one_start_of_sigma(self) -> Self:
        default = type(self).model_fields["initial_log_variance"].default
        if self.initial_stddev is not None and self.initial_log_variance != default:
            rule = "must not stand beside initial_log_variance, which says the same"
            raise RuleError(rule, key="initial_stddev", got=self.initial_stddev)
        return self


class BbhMethod(SampledMethod):
    """Bayes by Hypernet (Pawlowski et al. 2017)."""

    splits_samples: ClassVar[bool] = True
    name: Literal["bbh"]
    generator: Generator = Generator()
    divergence: Literal["semi_implicit", "knn", "knn_marginal", "gaussian", "discriminator"] = "semi_implicit"
    """How KL(q||p) is estimated. Only `semi_implicit` trains well at full KL weight; the paper used `knn`."""
    semi_implicit: SemiImplicit = SemiImplicit()
    discriminator: Discriminator = Discriminator()
    kl_samples: Annotated[int, Field(ge=1, le=4096)] = 5
    """Weight samples in the KL estimate of a step. Default: the paper."""

    @model_validator(mode="after")
    def _estimators_have_samples(self) -> Self:
        if self.kl_samples >= 2 or self.divergence == "discriminator":
            return self
        if self.divergence != "semi_implicit":
            rule = f"must be at least 2 for the {self.divergence} divergence"
            raise RuleError(rule, key="kl_samples", got=self.kl_samples)
        if self.semi_implicit.inner_samples is None:
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

    def default_shards(self, workers: int) -> int:
        """All of them."""
        return workers


class MnfMethod(SampledMethod):
    """Multiplicative normalizing flows (Louizos & Welling 2017)."""

    name: Literal["mnf"]
    posterior_flows: Annotated[int, Field(ge=0, le=64)] = 2
    """Steps of the flow of q(z): masked RealNVP, planar for layers of one unit. Default: the paper's code."""
    posterior_hidden: Annotated[int, Field(ge=1, le=65_536)] = 50
    """Hidden units of each of them. Default: the paper's code."""
    auxiliary_flows: Annotated[int, Field(ge=0, le=64)] = 2
    """Steps of the flow of the auxiliary posterior r(z | w). Default: the paper's code."""
    auxiliary_hidden: Annotated[int, Field(ge=1, le=65_536)] = 100
    """Hidden units of each of them. Default: the paper's code."""
    initial_multiplier_stddev: Annotated[float, Field(ge=1e-6, le=10)] = 0.1
    """Standard deviation of z_0 around 1 at the start. Default: on digits5 between 0.03 (lower NLL) and 0.32 (less
    certain of outliers); the paper's code has 0.32, around 0."""
    initial_log_variance: Annotated[float, Field(ge=-60, le=4)] = -9.0
    """Log variance of weights at the start. Default: the paper of BbH (MNIST; ResNet -30)."""
    largest_stddev: Annotated[float, Field(gt=0, le=100)] = 0.5
    """Standard deviations of weights are clipped here. Default: the paper of BbH (MNIST; ResNet 0.3)."""
    estimator: Literal["reparameterised", "local"] = "reparameterised"
    """Training draws weights, or for each example what they make of it (local reparameterisation, the paper). Default:
    measured, LeNet on MNIST, 2 epochs: the same validation NLL, 0.034, in half of the time (one seed)."""

    @model_validator(mode="after")
    def _starts_below_the_clip(self) -> Self:
        most = 2 * math.log(self.largest_stddev)
        if self.initial_log_variance > most:
            rule = f"must be at most {most:.4g}, the log variance of largest_stddev: clipped weights have no gradient"
            raise RuleError(rule, key="initial_log_variance", got=self.initial_log_variance)
        return self


MethodConfig = MapMethod | EnsembleMethod | DropoutMethod | BbbMethod | MnfMethod | BbhMethod
METHODS: dict[str, type[MethodConfig]] = {
    "map": MapMethod,
    "ensemble": EnsembleMethod,
    "dropout": DropoutMethod,
    "bbb": BbbMethod,
    "mnf": MnfMethod,
    "bbh": BbhMethod,
}
