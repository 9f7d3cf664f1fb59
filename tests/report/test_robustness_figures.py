"""What figures of attacks and shifts show, read back from their axes, and that they are written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from bbh_dist.report import draw_attacks, draw_run, draw_shifts, method_looks, method_name

METHODS = ("map", "ensemble", "dropout", "bbb", "mnf", "bbh-single", "bbh-sliced", "bbh-layerwise")
SUITES = [path for path in (Path(__file__).parents[2] / "jobs").glob("*.yaml") if "\nrows:" in path.read_text()]
EPSILONS = [0.0, 0.1, 0.2]


def attacks(accuracy: float = 90.0) -> dict[str, Any]:
    curve = {"epsilons": EPSILONS, "accuracy": [99.0, accuracy, 5.0], "entropy": [0.1, 0.7, 0.4]}
    return {"fgsm": {**curve, "examples": 1000}, "pgd": {**curve, "examples": 200}}


def series(kind: str, labels: list[int], steps: list[float]) -> dict[str, Any]:
    """Class 0 falls, class 1 rises, class 2 stays at 0.02."""
    share = np.linspace(0, 0.98, len(steps))
    mean = np.stack([0.98 - share, share, np.full(len(steps), 0.02)], axis=1)
    numbers = {"mean": mean.tolist(), "stddev": (0.1 * mean).tolist(), "entropy": share.tolist()}
    return {"kind": kind, "labels": labels, "steps": steps, **numbers}


def shifts() -> list[dict[str, Any]]:
    rotation = series("rotation", [0], [float(angle) for angle in range(-90, 91, 10)])
    return [rotation, series("mix", [0, 1], [step / 10 for step in range(11)])]


def lines(figure: Figure, panel: int) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[panel].lines}


def test_methods_are_told_apart_with_and_without_colour() -> None:
    looks = method_looks(METHODS)
    assert len({to_hex(look["color"]) for look in looks.values()}) == len(METHODS)
    assert len({look["marker"] for look in looks.values()}) == len(METHODS)
    assert method_looks(["bbh-single", "map"])["map"] == looks["map"]
    assert len(SUITES) >= 6
    for suite in SUITES:
        rows = yaml.safe_load(suite.read_text())["rows"]
        assert len({looks["marker"] for looks in method_looks(rows).values()}) == len(rows), suite.name
    other = method_looks(["mine", "map", "bbb"])
    assert other["mine"] not in (other["map"], other["bbb"])
    assert (method_name("bbh-layerwise"), method_name("my $method")) == ("BbH layer-wise", r"my \$method")


def test_a_line_for_each_method_and_a_column_for_each_attack() -> None:
    figure = draw_attacks({"map": attacks(80.0), "bbb": attacks(60.0)}, classes=10)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["FGSM, 1,000 test images", "PGD, 200 test images", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy [%]", "", "mean predictive entropy [nats]", ""]
    assert lines(figure, 1) == {"MAP": [99.0, 80.0, 5.0], "BbB": [99.0, 60.0, 5.0]}
    assert lines(figure, 2)["BbB"] == [0.1, 0.7, 0.4]
    assert figure.axes[2].lines[-1].get_ydata() == pytest.approx([np.log(10)] * 2)


def test_attacks_that_were_not_made_are_left_out() -> None:
    assert draw_attacks({}) is None
    assert draw_attacks({"map": {}}) is None
    one = draw_attacks({"map": {"pgd": attacks()["pgd"]}, "bbb": {}})
    assert one is not None
    assert [axes.get_title() for axes in one.axes] == ["PGD, 200 test images", ""]
    single = {"fgsm": {"epsilons": [0.1], "accuracy": [1.0], "entropy": [0.1], "examples": 5}}
    assert draw_attacks({"map": single}) is None


def test_classes_that_matter_are_drawn_and_named() -> None:
    [(name, figure)] = draw_shifts({"bbh-single": shifts()}).items()
    assert name == "shifts"
    rotation, mix = figure.axes
    assert [axes.get_title() for axes in (rotation, mix)] == ["a 0, rotated", "from a 0 to a 1"]
    assert [text.get_text() for text in rotation.texts] == ["0", "1"]  # class 2 is never likely
    assert (rotation.texts[1].xy, mix.texts[1].xy) == ((90.0, 0.98), (1.0, 0.98))
    assert [axes.get_xlabel() for axes in (rotation, mix)] == [
        "angle [degrees], + counter-clockwise",
        "share of the 1",
    ]
    own = to_hex(method_looks(["bbh-single"])["bbh-single"]["color"])
    assert to_hex(rotation.lines[0].get_color()) == own != to_hex(rotation.lines[1].get_color())
    assert to_hex(mix.lines[1].get_color()) == own


def test_methods_are_compared_series_by_series() -> None:
    figures = draw_shifts({"map": shifts(), "bbb": shifts(), "mnf": []})
    assert list(figures) == ["rotation_0", "rotation_0_compared", "mix_0_1", "mix_0_1_compared"]
    assert [axes.get_title() for axes in figures["rotation_0"].axes] == ["MAP", "BbB"]
    compared = figures["mix_0_1_compared"]
    assert [axes.get_ylabel() for axes in compared.axes] == ["probability of class 0", "predictive entropy [nats]"]
    assert lines(compared, 0)["MAP"] == pytest.approx(0.98 - np.linspace(0, 0.98, 11))
    assert lines(compared, 1)["BbB"] == pytest.approx(np.linspace(0, 0.98, 11))
    assert draw_shifts({}) == draw_shifts({"map": []}) == {}


def test_a_run_writes_them(tmp_path: Path) -> None:
    paths = draw_run({"classes": 3, "method": "bbb", "attacks": attacks(), "shifts": shifts()}, tmp_path)
    assert [path.name for path in paths] == ["attacks.png", "shifts.png"]
    for path in paths:
        pixels = imread(path)
        assert min(pixels.shape[:2]) >= 300
        assert pixels[..., :3].std() > 0.02, f"{path.name} is blank"
