"""Figures of runs and studies as PNG files; knows numpy and matplotlib, neither Ray, Optuna nor MLflow."""

from bbh_dist.report.attacks import draw_attacks
from bbh_dist.report.methods import method_looks, method_name
from bbh_dist.report.regression import draw_curve, draw_curve_panel
from bbh_dist.report.run import calibration_error, draw_run, draw_training, entropy_auc
from bbh_dist.report.shifts import draw_shifts
from bbh_dist.report.study import TrialRow, draw_study, pareto_front, rank_best

__all__ = [
    "TrialRow",
    "calibration_error",
    "draw_attacks",
    "draw_curve",
    "draw_curve_panel",
    "draw_run",
    "draw_shifts",
    "draw_study",
    "draw_training",
    "entropy_auc",
    "method_looks",
    "method_name",
    "pareto_front",
    "rank_best",
]
