"""A suite's results made by hand, small enough to compute its table on paper."""

import numpy as np

from bbh_dist.suite_results import SuiteResults, SuiteRow

LOG5 = float(np.log(5))


def curves(sharpness: float) -> dict[str, object]:
    grid = np.linspace(0, LOG5, 40)
    return {
        "entropy_grid": grid.tolist(),
        "entropy_cdf": np.minimum(1, 1.02 - np.exp(-sharpness * grid)).tolist(),
        "outlier_entropy_cdf": ((grid / LOG5) ** sharpness).tolist(),
        "confidence": [None, 0.5, 0.9],
        "accuracy": [None, 0.25, 0.8],
        "bin_count": [0, 20, int(100 * sharpness)],
        "classes": 5,
    }


def run(error: float, nll: float, seconds: float) -> dict[str, float]:
    return {
        "epoch": 3,
        "val/nll": nll,
        "test/error": error,
        "test/nll": nll,
        "test/outlier_entropy_auc": nll / 2,
        "adversarial/fgsm/error@0.1": 10 * error,
        "time/train_seconds": seconds,
        "time/step_ms": 2.0,
    }


MAP = SuiteRow(
    "map",
    {0: run(2.0, 0.31, 7.5), 1: run(5.0, 0.29, 8.5)},
    {0: {"curves": curves(3)}, 1: {"curves": curves(4)}},
    published={"test/error": 0.8, "time/train_seconds": 710.0},
    changes={"method.name": "map"},
)
BBH = SuiteRow(
    "bbh-single",
    {0: run(1.0, 0.25, 80.0), 1: run(2.0, 0.15, 84.0)},
    {0: {"curves": curves(2)}, 1: {"curves": curves(1)}},
    trials=24,
    changes={"method.name": "bbh", "optimizer.lr": 0.01},
    failures={2: "loss is <nan>"},
    health={1: ["the KL estimate was negative"]},
)
OTHER = SuiteRow("other|row", {0: run(4.0, 0.6, 30.0)})

RESULTS = SuiteResults(
    name="digits",
    rows=[MAP, BBH, OTHER],
    quick=True,
    departures={"epochs": 3},
    reference="bbh-single",
    source="someone 2017, table 1",
    task="digits5",
    resources="1 worker of 1 CPU core",
    facts={"version.torch": "2.13.0", "command": "python -m bbh_dist.benchmark --suite 'a & b.yaml'"},
    config="rows: {map: <b>}\n",
)
