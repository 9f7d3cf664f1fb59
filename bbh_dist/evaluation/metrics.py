"""Measures of predictions, named and directed in `config.measures`.

Legend: N examples, M outliers, C classes.
"""

import math

import torch
from torch import Tensor

from bbh_dist.evaluation.prediction import Prediction

ECE_BINS = 15
_TRUE_POSITIVE_RATE = 0.95


def measure(prediction: Prediction, labels: Tensor) -> dict[str, float]:
    """All measures that need no outliers, from a prediction for N examples and their labels (N,)."""
    p = prediction.probabilities
    true = p.gather(1, labels[:, None])[:, 0]
    one_hot = torch.nn.functional.one_hot(labels, p.shape[1])
    _, confidence_sums, correct = reliability(prediction, labels)
    return {
        "error": 100 * float((p.argmax(1) != labels).double().mean()),
        "nll": -float(true.clamp_min(torch.finfo(p.dtype).tiny).log().mean()),
        "brier": float((p - one_hot).square().sum(1).mean()),
        "ece": float((confidence_sums - correct).abs().sum()) / len(labels),
        "entropy": float(prediction.entropy.mean()),
        "entropy_auc": entropy_auc(prediction),
        "mutual_information": float(prediction.mutual_information.mean()),
    }


def reliability(prediction: Prediction, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of 15 bins of confidence: examples, sum of their confidences, correct ones; each (15,), on the CPU.

    A bin holds the examples whose largest probability lies in (i / 15, (i + 1) / 15]. Torchmetrics gives confidences of
    exactly 1 a sixteenth bin, and counts in single precision.
    Source: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    confidence, predicted = (part.cpu() for part in prediction.probabilities.max(1))
    bins = (confidence * ECE_BINS).ceil().long().sub(1).clamp(0, ECE_BINS - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, predicted == labels.cpu()]).double()
    counts, confidence_sums, correct = torch.zeros(3, ECE_BINS, dtype=torch.float64).index_add(1, bins, columns)
    return counts, confidence_sums, correct


def measure_outliers(prediction: Prediction, outliers: Prediction) -> dict[str, float]:
    """How outliers are told from the examples of the task; the score is the predictive entropy.

    Outliers are the positives, as in Hendrycks et al. 2019; papers that take the inliers report other FPRs.

    Raises:
        ValueError: an entropy is not a number, which a ranking would take for the largest.
    """
    # In single precision, where entropies that differ by rounding only, as between numbers of workers, are ties.
    scores = torch.cat([prediction.entropy, outliers.entropy]).float().cpu()
    if scores.isnan().any():
        raise ValueError("predictive entropies must be numbers to rank them")
    false_positive, true_positive = _roc(scores, torch.arange(len(scores)) >= len(prediction.entropy))
    return {
        "outlier_entropy_auc": entropy_auc(outliers),
        "outlier_auroc": float(torch.trapezoid(true_positive, false_positive)),
        "outlier_fpr95": float(false_positive[true_positive >= _TRUE_POSITIVE_RATE].min()),
        "outlier_mutual_information": float(outliers.mutual_information.mean()),
    }


def entropy_auc(prediction: Prediction) -> float:
    """Area under the empirical CDF of the predictive entropy over [0, log C], divided by log C.

    1 where every prediction is certain, 0 where every one is uniform. Closed form: 1 - mean(entropy) / log C.
    Source: Pawlowski et al. 2017, who bin the CDF into 500.
    """
    return 1 - float(prediction.entropy.mean()) / math.log(prediction.probabilities.shape[1])


def _roc(scores: Tensor, is_positive: Tensor) -> tuple[Tensor, Tensor]:
    """Rates of false and of true positives, from 0 to 1, at or above each of the scores' values, the largest first.

    There have to be positives and others. As scikit-learn's `roc_curve`, whose import would take every process 2 s.
    """
    ranked, order = scores.sort(descending=True)
    last_of_value = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])
    counts = torch.stack([~is_positive, is_positive])[:, order].cumsum(1)[:, last_of_value].double()
    false_positive, true_positive = torch.nn.functional.pad(counts / counts[:, -1:], (1, 0))
    return false_positive, true_positive
