"""The measures that a run reports: their names, directions and meanings, for every part that uses them."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]
Kind = Literal["classification", "regression"]
"""What a task is; it decides what can be measured."""

FINAL_METRICS = ("test/", "adversarial/")
"""How the names of metrics begin that are measured once, at the end of a final run."""


@dataclass(frozen=True)
class Measure:
    """What is reported under `val/NAME` and `test/NAME`."""

    direction: Direction | None
    """None where the best value is neither the least nor the largest."""
    meaning: str
    needs_outliers: bool = False
    kinds: tuple[Kind, ...] = ("classification",)
    """The kinds of task that have it."""


MEASURES: dict[str, Measure] = {
    "error": Measure("minimize", "misclassified share of the mean prediction, percent"),
    "rmse": Measure("minimize", "root mean squared error of the mean prediction, in units of y", kinds=("regression",)),
    "nll": Measure(
        "minimize",
        "negative log-likelihood of the mean prediction, nats per example",
        kinds=("classification", "regression"),
    ),
    "coverage": Measure(
        None,
        "share of targets within two standard deviations of the predictive, noise included; 95.4 of a normal, percent",
        kinds=("regression",),
    ),
    "brier": Measure("minimize", "squared distance of the probabilities to the one-hot label, summed over classes"),
    "ece": Measure("minimize", "expected calibration error, 15 equal bins of confidence"),
    "entropy": Measure("minimize", "mean predictive entropy, nats"),
    "entropy_auc": Measure("maximize", "area under the CDF of the predictive entropy: 1 = certain"),
    "mutual_information": Measure("minimize", "mean entropy of the mean minus mean of the entropies, nats"),
    "outlier_entropy_auc": Measure("minimize", "entropy AUC on the outliers: 0 = uniform", needs_outliers=True),
    "outlier_auroc": Measure("maximize", "AUROC of telling outliers by their entropy", needs_outliers=True),
    "outlier_fpr95": Measure(
        "minimize",
        "share of inliers taken for outliers where 95 % of outliers are found",
        needs_outliers=True,
    ),
    "outlier_mutual_information": Measure("maximize", "mutual information on the outliers, nats", needs_outliers=True),
}


def measures_of(kind: Kind, outliers: bool) -> list[str]:
    """Names of the measures that a task of a kind emits, with outliers or without."""
    return [name for name, known in MEASURES.items() if kind in known.kinds and (outliers or not known.needs_outliers)]
