"""Areas and calibration errors against hand-computed values; figures are written, readable, or left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from bbh_dist.report import calibration_error, draw_run, draw_training, entropy_auc

LOG5 = float(np.log(5))


def curves() -> dict[str, object]:
    grid = np.linspace(0, LOG5, 50)
    values = {
        "entropy_grid": grid.tolist(),
        "entropy_cdf": (1 - np.exp(-grid / 0.1)).tolist(),
        "outlier_entropy_cdf": ((grid / LOG5) ** 3).tolist(),
        "confidence": [None, 0.3, 0.52, 0.75, 0.98],
        "accuracy": [None, 0.5, 0.5, 0.6, 0.95],
        "bin_count": [0, 4, 20, 75, 2401],
        "classes": 5,
    }
    return json.loads(json.dumps(values))


def check_readable(paths: list[Path]) -> None:
    for path in paths:
        pixels = imread(path)
        assert min(pixels.shape[:2]) >= 300
        assert pixels[..., :3].std() > 0.02, f"{path.name} is blank"


def test_the_area_is_a_share_of_log_k() -> None:
    # Trapezoids 0.5 * (0.2 + 0.6) * 0.4 + 0.5 * (0.6 + 1) * (log 5 - 0.4) = 1.1275503... over log 5 = 1.6094379.
    area = entropy_auc(np.array([0.0, 0.4, LOG5]), np.array([0.2, 0.6, 1.0]), 5)
    assert area == pytest.approx((0.16 + 0.8 * (LOG5 - 0.4)) / LOG5)
    assert entropy_auc(np.array([0.0, LOG5]), np.ones(2), 5) == pytest.approx(1.0)


def test_the_calibration_error_weighs_bins_by_their_examples() -> None:
    confidence, accuracy = np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 0.75, 0.8])
    # (10 * 0.25 + 30 * 0.1) / 40
    assert calibration_error(confidence, accuracy, np.array([0.0, 10.0, 30.0])) == pytest.approx(0.1375)


def test_both_figures_of_a_run(tmp_path: Path) -> None:
    paths = draw_run(curves(), tmp_path / "new")
    assert [path.name for path in paths] == ["entropy_cdf.png", "reliability.png"]
    check_readable(paths)


def test_a_run_without_outliers(tmp_path: Path) -> None:
    given = curves()
    del given["outlier_entropy_cdf"]
    assert len(draw_run(given, tmp_path)) == 2
    given["outlier_entropy_cdf"] = None
    assert len(draw_run(given, tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"entropy_grid": []}, ["reliability.png"]),
        ({"classes": 1}, ["reliability.png"]),
        ({"entropy_cdf": [float("nan")] * 50, "outlier_entropy_cdf": [None] * 50}, ["reliability.png"]),
        ({"bin_count": [0] * 5}, ["entropy_cdf.png"]),
        ({"confidence": None}, ["entropy_cdf.png"]),
        ({"confidence": [0.9], "accuracy": [0.9], "bin_count": [7]}, ["entropy_cdf.png", "reliability.png"]),
    ],
    ids=["no-grid", "one-class", "nan", "no-examples", "no-bins", "one-bin"],
)
def test_curves_without_content_are_left_out(change: dict[str, object], expected: list[str], tmp_path: Path) -> None:
    assert [path.name for path in draw_run(curves() | change, tmp_path)] == expected


def test_no_curves_no_figures(tmp_path: Path) -> None:
    assert draw_run({}, tmp_path) == []


def epochs(count: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train/loss": 5.0 / epoch,
            "train/nll": 2.0 / epoch,
            "val/nll": 2.0 / epoch + 0.01 * epoch,
            "train/kl": 900.0 * epoch,
        }
        for epoch in range(1, count + 1)
    ]


def test_the_kl_adds_a_panel(tmp_path: Path) -> None:
    with_kl = draw_training(epochs(30), tmp_path / "kl")
    without = [{name: row[name] for name in ("epoch", "train/loss", "val/nll")} for row in epochs(30)]
    without_kl = draw_training(without, tmp_path / "plain")
    check_readable(with_kl + without_kl)
    assert imread(with_kl[0]).shape[0] > imread(without_kl[0]).shape[0]


def test_gaps_and_negative_values_are_drawn(tmp_path: Path) -> None:
    history = epochs(6)
    history[2]["val/nll"] = float("nan")
    history[3]["train/kl"] = float("inf")
    del history[4]["train/loss"]
    history[5]["train/loss"] = -3.0
    check_readable(draw_training(history, tmp_path))


@pytest.mark.parametrize("history", [[], epochs(1), [{"epoch": 1.0}, {"epoch": 2.0}], [{"train/nll": 1.0}] * 3])
def test_fewer_than_two_epochs_are_not_drawn(history: list[dict[str, float]], tmp_path: Path) -> None:
    assert draw_training(history, tmp_path) == []
    assert not list(tmp_path.iterdir())
