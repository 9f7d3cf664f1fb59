"""Rotations against exact ones, mixes at their ends, and the class probabilities of a series."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bbh_dist.config import BbhMethod, DataError, Evaluation, Generator
from bbh_dist.evaluation import Prediction, entropy, robustness
from bbh_dist.evaluation.shifts import mixed, rotated, shift_curves
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.tasks import Picked, Rotation, Shifts, Split, load_task

SHIFTS = Shifts((Rotation(Picked(4, 1), 20), Rotation(Picked(2, 2), 180)), (Picked(2, 2), Picked(4, 1)))
NOISE = Noise(3, "test", 5, range(7), dtype=torch.float64)


def method() -> Method:
    config = BbhMethod(name="bbh", generator=Generator(hidden=(6,), noise_dim=3))
    return build_method(config, build_network("mlp:5", (1, 6, 6), 3), keyed_generator("initial")).double()


def images() -> Split:
    random = torch.Generator().manual_seed(0)
    return Split(torch.rand(6, 1, 6, 6, dtype=torch.float64, generator=random), torch.tensor([0, 1, 2, 0, 1, 2]))


@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turns_are_exact(side: int) -> None:
    image = torch.rand(2, side, side, generator=torch.Generator().manual_seed(1))
    found = rotated(image, [0, 90, -90, 180])
    for turned, quarters in zip(found, (0, 1, -1, 2), strict=True):
        torch.testing.assert_close(turned, torch.rot90(image, quarters, (1, 2)), rtol=0, atol=1e-5)


def test_a_small_turn_moves_what_is_right_of_the_middle_up() -> None:
    """A pixel 8 to the right of the middle, turned by 30 degrees, lies 6.93 to the right and 4 up."""
    image = torch.zeros(1, 21, 21)
    image[0, 10, 18] = 1.0
    turned = rotated(image, [30])[0, 0]
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(21.0), indexing="ij")
    middle = [float((axis * turned).sum() / turned.sum()) for axis in (rows, columns)]
    assert middle == pytest.approx([10 - 4, 10 + 6.93], abs=0.1)


def test_what_turns_in_from_outside_is_zero() -> None:
    corners = rotated(torch.ones(1, 9, 9), [45])[0, 0]
    assert corners[0, 0] == corners[8, 8] == 0
    assert corners[4, 4] == pytest.approx(1)


def test_mixes_are_convex() -> None:
    first, second = torch.tensor([0.2, 1.0]), torch.tensor([0.6, 0.0])
    found = mixed(first, second, [0, 0.25, 1])
    torch.testing.assert_close(found, torch.tensor([[0.2, 1.0], [0.3, 0.75], [0.6, 0.0]]))


def test_a_series_gives_mean_and_deviation_over_samples() -> None:
    of, data = method(), images()
    turned, far, mix = shift_curves(of, data, SHIFTS, NOISE)
    assert (turned["kind"], turned["labels"], turned["steps"]) == ("rotation", [1], [-20, -10, 0, 10, 20])
    assert (len(far["steps"]), far["steps"][0], far["steps"][-1]) == (37, -180, 180)
    assert (mix["kind"], mix["labels"]) == ("mix", [2, 1])
    assert mix["steps"] == pytest.approx([step / 10 for step in range(11)])
    with torch.no_grad():
        p = of(rotated(data.inputs[4], turned["steps"]), of.draw(NOISE)).softmax(-1)
    for name, expected in (("mean", p.mean(0)), ("stddev", p.std(0, correction=0)), ("entropy", entropy(p.mean(0)))):
        torch.testing.assert_close(torch.tensor(turned[name], dtype=torch.float64), expected, rtol=0, atol=1e-7)
    assert mix["mean"][0] == pytest.approx(far["mean"][18])  # both are the image itself
    assert mix["mean"][-1] == pytest.approx(turned["mean"][2])


@pytest.mark.parametrize(
    ("picked", "line"),
    [
        (Picked(3, 1), "test image 3 must have the label 1, got 0"),
        (Picked(6, 1), "test image 6 must have the label 1, there are 6 images"),
    ],
)
def test_another_image_is_refused(picked: Picked, line: str) -> None:
    for shifts in (replace(SHIFTS, rotations=(Rotation(picked, 20),)), replace(SHIFTS, mixed=(Picked(2, 2), picked))):
        with pytest.raises(DataError, match=f"^{line}$"):
            shift_curves(method(), images(), shifts, NOISE)


def test_tasks_pick_images_with_the_labels_they_say() -> None:
    task = load_task("digits5", Path("."))
    assert task.shifts is not None
    task.shifts.check(task.test.labels)
    clean = Prediction(torch.ones(180, 5) / 5, torch.zeros(180))
    with pytest.raises(ValueError, match=r"^digits5 has no images that are chosen to be rotated and mixed$"):
        robustness(method(), replace(task, shifts=None), clean, Evaluation(shifts=True), NOISE)
