"""The figure of a curve is written and readable, and left out where there is nothing to draw."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from bbh_dist.report import draw_curve, draw_run


def curve(**changes: Any) -> dict[str, Any]:
    x = np.linspace(-6, 6, 50)
    values = {
        "x": x.tolist(),
        "truth": (x**3).tolist(),
        "mean": (0.9 * x**3).tolist(),
        "stddev": (x**2).tolist(),
        "predictive_stddev": np.hypot(x**2, 9).tolist(),
        "train_x": [-3.0, 1.0, 2.5],
        "train_y": [-20.0, 3.0, 12.0],
        "train_coverage": 95.0,
        "rmse": 3.25,
    }
    return json.loads(json.dumps({**values, **changes}))


def test_a_run_of_a_regression_has_one_figure(tmp_path: Path) -> None:
    paths = draw_run({"curve": curve()}, tmp_path / "new")
    assert [path.name for path in paths] == ["curve.png"]
    pixels = imread(paths[0])
    assert min(pixels.shape[:2]) >= 300
    assert pixels[..., :3].std() > 0.02


def test_bands_lie_at_1_2_and_3_standard_deviations_of_the_predictive() -> None:
    figure = draw_curve(curve())
    assert figure is not None
    axes = figure.axes[0]
    extents = [collection.get_datalim(axes.transData) for collection in axes.collections[:3]]
    end, stddev = 0.9 * 216, np.hypot(36, 9)
    assert [box.y1 for box in extents] == pytest.approx([end + count * stddev for count in (3, 2, 1)])
    assert axes.get_xlim() == (-6, 6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    low, high = axes.get_ylim()
    assert low <= -216 - 1e-9
    assert high >= 216


def test_a_posterior_that_is_far_too_wide_leaves_the_function_legible() -> None:
    figure = draw_curve(curve(predictive_stddev=[1e6] * 50))
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(3 * 432)


@pytest.mark.parametrize(
    "changes", [{"mean": None}, {"mean": [1.0]}, {"stddev": [float("nan")] * 50}, {"x": []}, {"truth": "text"}]
)
def test_a_curve_without_content_is_left_out(changes: dict[str, Any]) -> None:
    assert draw_curve(curve(**changes)) is None


def test_no_curve_no_figure() -> None:
    assert draw_curve(None) is None
