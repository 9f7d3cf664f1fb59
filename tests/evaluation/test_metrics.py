"""Every measure against scikit-learn or a closed form, on random predictions that are neither certain nor uniform."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, roc_curve
from torch import Tensor

from bbh_dist.config import measures_of
from bbh_dist.evaluation import Prediction, entropy, entropy_auc, measure, measure_outliers

CLASSES = 5
SEEDS = range(5)


def prediction(examples: int, seed: int, sharpness: float = 2.0, samples: int = 4) -> Prediction:
    random = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(samples, examples, CLASSES, dtype=torch.float64, generator=random)
    return averaged((logits + 2 * logits[:1]).softmax(-1))


def averaged(probabilities_SNC: Tensor) -> Prediction:
    return Prediction(probabilities_SNC.mean(0), entropy(probabilities_SNC).mean(0))


def labels(of: Prediction, seed: int) -> Tensor:
    """Labels drawn from the predictions made flatter, so that these are overconfident."""
    random = torch.Generator().manual_seed(100 + seed)
    return torch.multinomial(of.probabilities.sqrt(), 1, generator=random)[:, 0]


def binned_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The calibration error, bin by bin."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return error


@pytest.mark.parametrize("seed", SEEDS)
class TestAgainstScikitLearn:
    def test_error(self, seed: int) -> None:
        p = prediction(300, seed)
        y = labels(p, seed)
        expected = 100 * (1 - accuracy_score(y, p.probabilities.argmax(1)))
        assert measure(p, y)["error"] == pytest.approx(expected, abs=1e-9)

    def test_nll(self, seed: int) -> None:
        p = prediction(300, seed)
        y = labels(p, seed)
        assert measure(p, y)["nll"] == pytest.approx(log_loss(y, p.probabilities, labels=range(CLASSES)), abs=1e-9)

    def test_brier(self, seed: int) -> None:
        p = prediction(300, seed)
        y = labels(p, seed)
        expected = ((p.probabilities.numpy() - np.eye(CLASSES)[y.numpy()]) ** 2).sum(1).mean()
        assert measure(p, y)["brier"] == pytest.approx(expected, abs=1e-12)

    def test_ece(self, seed: int) -> None:
        p = prediction(300, seed)
        y = labels(p, seed)
        expected = binned_error(p.probabilities.numpy(), y.numpy())
        assert expected > 0.05
        assert measure(p, y)["ece"] == pytest.approx(expected, abs=1e-12)

    def test_outliers(self, seed: int) -> None:
        inside, outside = prediction(300, seed), prediction(170, seed + 50, sharpness=1.0)
        scores = torch.cat([inside.entropy, outside.entropy])
        is_outlier = np.repeat([0, 1], [300, 170])
        found = measure_outliers(inside, outside)
        false, true, _ = roc_curve(is_outlier, scores, drop_intermediate=False)
        # Torchmetrics counts in single precision.
        assert found["outlier_auroc"] == pytest.approx(roc_auc_score(is_outlier, scores), abs=1e-6)
        assert found["outlier_fpr95"] == pytest.approx(false[true >= 0.95].min(), abs=1e-6)
        assert 0.1 < found["outlier_fpr95"] < 0.99
        assert found["outlier_entropy_auc"] == pytest.approx(1 - float(outside.entropy.mean()) / math.log(CLASSES))
        assert found["outlier_mutual_information"] == pytest.approx(float(outside.mutual_information.mean()))


def test_all_documented_measures_are_measured() -> None:
    p = prediction(50, 0)
    found = measure(p, labels(p, 0))
    assert sorted(found) == sorted(measures_of("classification", outliers=False))
    assert sorted(found | measure_outliers(p, p)) == sorted(measures_of("classification", outliers=True))


def test_ece_of_confidences_of_exactly_1_shares_a_bin_with_those_just_below() -> None:
    # Mean confidence (1 + 0.95) / 2, one of two right; in bins of their own the two would have 0.5 * (1 + 0.05).
    p = torch.tensor([[1.0, 0.0], [0.95, 0.05]], dtype=torch.float64)
    assert measure(averaged(p[None]), torch.tensor([1, 0]))["ece"] == pytest.approx(0.475)


def test_a_certain_mistake_has_a_finite_nll() -> None:
    p = averaged(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64))
    found = measure(p, torch.tensor([1]))
    assert found["nll"] == pytest.approx(708.4, abs=0.1)
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize("seed", SEEDS)
def test_outliers_whose_scores_are_equal_to_others(seed: int) -> None:
    few = prediction(6, seed).probabilities
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.randint(low, high, (count,), generator=generator) for low, high, count in ((0, 5, 90), (1, 6, 40))]
    inside, outside = (averaged(few[rows][None]) for rows in chosen)
    scores, is_outlier = torch.cat([inside.entropy, outside.entropy]).float(), np.repeat([0, 1], [90, 40])
    found = measure_outliers(inside, outside)
    false, true, _ = roc_curve(is_outlier, scores, drop_intermediate=False)
    assert len(false) == 7
    assert found["outlier_auroc"] == pytest.approx(roc_auc_score(is_outlier, scores), abs=1e-12)
    assert found["outlier_fpr95"] == pytest.approx(false[true >= 0.95].min(), abs=1e-12)


def test_equal_scores_of_outliers_count_half() -> None:
    p = averaged(torch.full((1, 30, CLASSES), 1 / CLASSES, dtype=torch.float64))
    found = measure_outliers(p, p)
    assert (found["outlier_auroc"], found["outlier_fpr95"]) == (0.5, 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_auc_is_the_area_under_the_cdf(seed: int) -> None:
    p = prediction(200, seed)
    ordered, largest = np.sort(p.entropy.numpy()), math.log(CLASSES)
    assert entropy_auc(p) == pytest.approx(step_area(ordered, largest), abs=1e-9)
    # 500 bins, as in the original: the area is off by half a bin at most.
    grid = np.linspace(0, largest, 501)
    cdf = np.searchsorted(ordered, grid, side="right") / len(ordered)
    assert entropy_auc(p) == pytest.approx(cdf[1:].mean(), abs=0.005)
    assert 0.1 < entropy_auc(p) < 0.9


def step_area(ordered: np.ndarray, largest: float) -> float:
    """Exact integral of the empirical CDF: i / n from the i-th value to the next."""
    edges = np.append(ordered, largest)
    return float((np.arange(1, len(edges)) / len(ordered) * np.diff(edges)).sum()) / largest


@pytest.mark.parametrize(("row", "expected"), [([1.0, 0, 0, 0, 0], 1.0), ([0.2] * 5, 0.0), ([0.5, 0.5, 0, 0, 0], None)])
def test_entropy_auc_of_equal_predictions(row: list[float], expected: float | None) -> None:
    p = averaged(torch.tensor([[row] * 3], dtype=torch.float64))
    expected = 1 - math.log(2) / math.log(5) if expected is None else expected
    assert entropy_auc(p) == pytest.approx(expected, abs=1e-12)


def one_hot(*classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), CLASSES).double()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (lambda: torch.full((7, 1, CLASSES), 0.2).double().log().softmax(-1), 0.0),
        (lambda: torch.tensor([0.7, 0.1, 0.1, 0.05, 0.05]).double().expand(3, 1, CLASSES), 0.0),
        (lambda: one_hot(0, 1, 2, 3, 4)[:, None], math.log(CLASSES)),
        (lambda: one_hot(0, 0, 3, 3)[:, None], math.log(2)),
    ],
    ids=["uniform", "agreeing", "all disagree", "halves disagree"],
)
def test_mutual_information_of_known_samples(samples: Callable[[], Tensor], expected: float) -> None:
    assert float(averaged(samples()).mutual_information) == pytest.approx(expected, abs=1e-12)


def test_mutual_information_is_never_negative() -> None:
    p = torch.rand(1, 2000, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = averaged(p.expand(7, -1, -1)).mutual_information
    assert (found >= 0).all()
    assert found.max() < 1e-12
