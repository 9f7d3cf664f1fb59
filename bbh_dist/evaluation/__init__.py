"""Prediction and its measures: the same for every method."""

from bbh_dist.evaluation.curves import curves
from bbh_dist.evaluation.metrics import entropy_auc, measure, measure_outliers
from bbh_dist.evaluation.prediction import Prediction, entropy, predict
from bbh_dist.evaluation.robustness import robustness

__all__ = ["Prediction", "curves", "entropy", "entropy_auc", "measure", "measure_outliers", "predict", "robustness"]
