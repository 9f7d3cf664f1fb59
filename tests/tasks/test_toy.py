"""The cubic: always the same points, of the distribution that the paper names."""

from pathlib import Path

import pytest
import torch

from bbh_dist.tasks import Gaussian, Task, load_task
from bbh_dist.tasks.shapes import TaskShape, task_shape


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("toy", Path())


def test_sizes_and_likelihood(task: Task) -> None:
    assert [len(part) for part in (task.train, task.validation, task.test)] == [20, 500, 500]
    assert task.outliers_validation is task.outliers_test is None
    assert isinstance(task.likelihood, Gaussian)
    assert task.likelihood.stddev == 9.0
    assert task_shape("toy") == TaskShape(task.input_shape, task.outputs, len(task.train)) == TaskShape((1,), 1, 20)


def test_points_are_the_same_in_every_run_and_differ_between_parts(task: Task) -> None:
    again = load_task("toy", Path("elsewhere"))
    for part, other in ((task.train, again.train), (task.validation, again.validation), (task.test, again.test)):
        assert torch.equal(part.inputs, other.inputs)
        assert torch.equal(part.labels, other.labels)
    inputs = torch.cat([task.train.inputs, task.validation.inputs, task.test.inputs])
    assert len(inputs.unique()) == 1020


def test_targets_are_cubes_with_noise_of_9(task: Task) -> None:
    """1,020 deviations: the standard error of their standard deviation is 9 / sqrt(2040) = 0.2, of their mean 0.28."""
    x = torch.cat([part.inputs[:, 0] * 4 for part in (task.train, task.validation, task.test)])
    y = torch.cat([part.labels for part in (task.train, task.validation, task.test)])
    deviations = y - x**3
    assert float(deviations.std()) == pytest.approx(9, abs=0.8)
    assert float(deviations.mean()) == pytest.approx(0, abs=1.1)
    assert float(x.abs().max()) <= 4
    assert float(x.std()) == pytest.approx(8 / 12**0.5, abs=0.12)


def test_the_curve_goes_beyond_the_data(task: Task) -> None:
    curve = task.curve
    assert curve is not None
    assert (len(curve.x), float(curve.x[0]), float(curve.x[-1])) == (500, -6, 6)
    torch.testing.assert_close(curve.inputs[:, 0] * 4, curve.x)
    torch.testing.assert_close(curve.truth, curve.x.pow(3))
    torch.testing.assert_close(curve.train_x, task.train.inputs[:, 0] * 4)
