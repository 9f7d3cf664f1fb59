"""Prediction and its measures: the same for every method."""

from bbh_dist.evaluation.curves import curves
from bbh_dist.evaluation.evaluator import Evaluator, evaluator_of
from bbh_dist.evaluation.metrics import entropy_auc, measure, measure_outliers
from bbh_dist.evaluation.prediction import Prediction, entropy, predict
from bbh_dist.evaluation.regression import RegressionPrediction, curve_details, measure_means, predict_means
from bbh_dist.evaluation.robustness import robustness

__all__ = [
    "Evaluator",
    "Prediction",
    "RegressionPrediction",
    "curve_details",
    "curves",
    "entropy",
    "entropy_auc",
    "evaluator_of",
    "measure",
    "measure_means",
    "measure_outliers",
    "predict",
    "predict_means",
    "robustness",
]
