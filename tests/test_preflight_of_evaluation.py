"""Attacks and shifts are asked for only where the task has images for them."""

from pathlib import Path

import numpy as np
import pytest

from bbh_dist.config import ConfigError, Experiment
from bbh_dist.preflight import check_experiment
from bbh_dist.tasks import DataError, Picked, Shifts, Task

RANGE = "attacks need classes of images whose pixels have a known range, as those of bytes"


def archive(path: Path, shape: tuple[int, ...], dtype: str) -> Path:
    parts = {f"x_{part}": np.ones((20, *shape), dtype) for part in ("train", "test", "val")}
    np.savez(path, **parts, **{f"y_{part}": np.arange(20) % 2 for part in ("train", "test", "val")})
    return path


def check(path: Path, **evaluation: object) -> Task:
    settings = {"task": f"npz:{path}", "method": {"name": "map"}, "batch_size": 5, "evaluation": evaluation}
    return check_experiment(Experiment.model_validate(settings), "")


def test_images_of_bytes_may_be_attacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "bytes.npz", (4, 4), "uint8")
    assert check(path, attacks={"fgsm_examples": 3}).pixel_range == (0.0, 1.0)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4), "float32"), ((4,), "uint8")])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_other_inputs_may_not(tmp_path: Path, shape: tuple[int, ...], dtype: str, attack: str) -> None:
    path = archive(tmp_path / "other.npz", shape, dtype)
    assert check(path).pixel_range is None
    with pytest.raises(ConfigError) as caught:
        check(path, attacks={f"{attack}_examples": 3})
    assert str(caught.value) == f"npz:{path}: evaluation.attacks.{attack}_examples: must be 0: {RANGE}, got 3"


def test_a_regression_on_images_is_not_attacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "bytes.npz", (4, 4), "uint8")
    parts = dict(np.load(path))
    np.savez(path, **{name: part.astype("float32") if name.startswith("y_") else part for name, part in parts.items()})
    with pytest.raises(ConfigError, match=f"fgsm_examples: must be 0: {RANGE}, got 3$"):
        check(path, attacks={"fgsm_examples": 3})


def test_shifts_need_chosen_images(tmp_path: Path) -> None:
    path = archive(tmp_path / "bytes.npz", (4, 4), "uint8")
    with pytest.raises(ConfigError) as caught:
        check(path, shifts=True)
    rule = "must be false: no test images are chosen to be rotated and mixed"
    assert str(caught.value) == f"npz:{path}: evaluation.shifts: {rule}, got true"


def test_chosen_images_are_looked_at_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"task": "digits5", "method": {"name": "map"}, "evaluation": {"shifts": True}}
    experiment = Experiment.model_validate(settings)
    assert check_experiment(experiment, "").shifts is not None
    monkeypatch.setattr("bbh_dist.tasks.digits.SHIFTS", Shifts((), (Picked(22, 4), Picked(0, 2))))
    with pytest.raises(DataError, match=r"^test image 0 must have the label 2, got 3$"):
        check_experiment(experiment, "")
