"""The lists behind the figures agree with the measures."""

import json
import math

import numpy as np
import pytest
import torch

from bbh_dist.evaluation import Prediction, curves, entropy, entropy_auc, measure
from bbh_dist.tasks.torchvision_import import import_torchvision

CLASSES = 4


def prediction(examples: int, sharpness: float, seed: int = 0) -> Prediction:
    random = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(examples, CLASSES, dtype=torch.float64, generator=random)).softmax(-1)
    return Prediction(p, entropy(p) * 0.8)


LABELS = torch.arange(400) % CLASSES
INSIDE, OUTSIDE = prediction(400, 2.5), prediction(150, 0.7, seed=1)
CURVES = curves(INSIDE, LABELS, OUTSIDE)


@pytest.mark.parametrize(("name", "of"), [("entropy_cdf", INSIDE), ("outlier_entropy_cdf", OUTSIDE)])
def test_the_cdf_rises_to_1_over_the_area_of_the_measure(name: str, of: Prediction) -> None:
    grid, cdf = np.array(CURVES["entropy_grid"]), np.array(CURVES[name])
    assert (grid[0], grid[-1]) == (0, pytest.approx(math.log(CLASSES)))
    assert (np.diff(cdf) >= 0).all()
    assert cdf[-1] == 1
    # 200 trapezoids of a function that rises from 0 to 1: off by a trapezoid's width, 1/200, at most.
    assert np.trapezoid(cdf, grid) / grid[-1] == pytest.approx(entropy_auc(of), abs=0.005)


def test_uniform_predictions_end_at_1_despite_rounding() -> None:
    p = torch.full((3, 5), 1 / 5, dtype=torch.float64)
    assert (entropy(p) > math.log(5)).all()
    found = curves(Prediction(p, entropy(p)), torch.tensor([0, 1, 2]), None)
    assert found["entropy_cdf"][-1] == 1
    assert "outlier_entropy_cdf" not in found


def test_the_bins_make_the_calibration_error_of_torchmetrics() -> None:
    import_torchvision()
    from torchmetrics.functional.classification import multiclass_calibration_error

    counts = np.array(CURVES["bin_count"])
    confidence, accuracy = (np.array(CURVES[name], float) for name in ("confidence", "accuracy"))
    full = counts > 0
    found = (counts[full] * np.abs(confidence - accuracy)[full]).sum() / counts.sum()
    assert counts.sum() == 400
    assert found == pytest.approx(measure(INSIDE, LABELS)["ece"], abs=1e-12)
    reference = multiclass_calibration_error(INSIDE.probabilities, LABELS, CLASSES, n_bins=15)
    assert found == pytest.approx(float(reference), abs=1e-6)  # single precision


def test_empty_bins_are_none_and_a_bin_holds_its_upper_edge() -> None:
    edge = 9 / 15
    p = torch.tensor([[edge, 1 - edge], [1.0, 0.0]], dtype=torch.float64)
    found = curves(Prediction(p, entropy(p)), torch.tensor([1, 0]), None)
    assert [i for i, count in enumerate(found["bin_count"]) if count] == [8, 14]
    assert (found["confidence"][8], found["accuracy"][8]) == (pytest.approx(edge), 0)
    assert (found["confidence"][3], found["accuracy"][3]) == (None, None)


def test_json_holds_them() -> None:
    assert json.loads(json.dumps(CURVES, allow_nan=False)) == CURVES
