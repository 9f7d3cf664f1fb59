"""How a trained method is evaluated on a task: one way for each likelihood, the same for every method."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from torch import Tensor

from bbh_dist.evaluation.curves import curves
from bbh_dist.evaluation.metrics import measure, measure_outliers
from bbh_dist.evaluation.prediction import Prediction, predict
from bbh_dist.evaluation.regression import RegressionPrediction, measure_means, predict_means
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Gaussian, Likelihood

P = TypeVar("P", Prediction, RegressionPrediction)


class Evaluator(ABC, Generic[P]):
    """Predictions of one kind, what is measured of them, and what figures show."""

    @abstractmethod
    def predict(self, method: Method, inputs: Tensor, noise: Noise, workers: Workers) -> P:
        """The prediction for inputs (N, ...) under one weight sample per sample of the noise."""

    @abstractmethod
    def measures(self, prediction: P, labels: Tensor, outliers: P | None) -> dict[str, float]:
        """All measures of the kind of task, by name (`config.measures_of`)."""

    @abstractmethod
    def details(self, prediction: P, labels: Tensor, outliers: P | None) -> dict[str, Any]:
        """What the figures of a run show, as JSON holds it."""


class Classification(Evaluator[Prediction]):
    """Predictions of classes."""

    def predict(self, method: Method, inputs: Tensor, noise: Noise, workers: Workers) -> Prediction:
        """Mean class probabilities."""
        return predict(method, inputs, noise, workers)

    def measures(self, prediction: Prediction, labels: Tensor, outliers: Prediction | None) -> dict[str, float]:
        """Those of the examples, and how outliers are told from them."""
        measures = measure(prediction, labels)
        return measures if outliers is None else measures | measure_outliers(prediction, outliers)

    def details(self, prediction: Prediction, labels: Tensor, outliers: Prediction | None) -> dict[str, Any]:
        """Entropy CDFs and reliability."""
        return curves(prediction, labels, outliers)


class Regression(Evaluator[RegressionPrediction]):
    """Predictions of numbers."""

    def __init__(self, likelihood: Gaussian) -> None:
        self.likelihood = likelihood

    def predict(self, method: Method, inputs: Tensor, noise: Noise, workers: Workers) -> RegressionPrediction:
        """Means under every weight sample."""
        return predict_means(method, inputs, noise, self.likelihood, workers)

    def measures(
        self, prediction: RegressionPrediction, labels: Tensor, outliers: RegressionPrediction | None
    ) -> dict[str, float]:
        """Those of the examples; a regression has no outliers."""
        return measure_means(prediction, labels)

    def details(
        self, prediction: RegressionPrediction, labels: Tensor, outliers: RegressionPrediction | None
    ) -> dict[str, Any]:
        """Nothing: what a regression shows is its curve, if its task has one."""
        return {}


def evaluator_of(likelihood: Likelihood) -> Evaluator[Any]:
    """The evaluator that suits a likelihood."""
    return Regression(likelihood) if isinstance(likelihood, Gaussian) else Classification()
