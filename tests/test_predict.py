"""The predict command: the run's own predictions for its own inputs, whatever the method and the task."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from front_door import FILES, contents, exit_code

from bbh_dist.config import Experiment, to_yaml
from bbh_dist.evaluation import Prediction
from bbh_dist.noise import Noise
from bbh_dist.tasks import load_task
from bbh_dist.tracking import tracking_uri
from bbh_dist.tracking.store import connect
from bbh_dist.training import Trainer

GENERATOR = {"hidden": [6], "noise_dim": 3}
METHODS: dict[str, dict[str, Any]] = {
    "map": {"name": "map"},
    "ensemble": {"name": "ensemble", "members": 3},
    "dropout": {"name": "dropout", "rate": 0.3},
    "bbb": {"name": "bbb"},
    "mnf": {"name": "mnf", "posterior_hidden": 3, "auxiliary_hidden": 4},
    **{f"bbh {kind}": {"name": "bbh", "generator": {**GENERATOR, "kind": kind}} for kind in ("single", "layerwise")},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)


def trained(task: str, method: dict[str, Any], **changes: Any) -> Trainer:
    """A run of one epoch, whose folder is `run`."""
    settings = {"task": task, "network": "mlp:5", "method": method, "epochs": 1, "evaluation": {"samples": 6}}
    experiment = Experiment.model_validate(settings | changes)
    trainer = Trainer(experiment, load_task(experiment.task, Path()))
    trainer.run_epoch()
    trainer.save(Path("run/checkpoints"))
    Path("run/config.yaml").write_text(to_yaml(experiment))
    return trainer


def own_test(trainer: Trainer) -> Any:
    """The run's own prediction of its test."""
    noise = Noise(trainer.experiment.seed, "test", trainer.epoch, range(trainer.experiment.evaluation.samples))
    return trainer.evaluator.predict(trainer.method, trainer.task.test.inputs, noise, trainer.workers)


def predicted(x: np.ndarray, *arguments: str) -> dict[str, np.ndarray]:
    np.savez("in.npz", x=x)
    assert exit_code("predict", *arguments) == 0
    with np.load("out.npz", allow_pickle=False) as archive:
        return dict(archive)


def assert_same(found: dict[str, np.ndarray], prediction: Any) -> None:
    names = ("probabilities", "entropy", "mutual_information")
    names = names if isinstance(prediction, Prediction) else ("mean", "stddev", "predictive_stddev")
    assert found.keys() == set(names)
    for name in names:
        np.testing.assert_allclose(found[name], getattr(prediction, name).numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_those_of_the_runs_own_test(method: str) -> None:
    """Pixels as scikit-learn has them, from 0 to 16."""
    trainer = trained("digits5", METHODS[method])
    found = predicted(16 * trainer.task.test.inputs.numpy().reshape(-1, 8, 8))
    assert_same(found, own_test(trainer))
    np.testing.assert_allclose(found["probabilities"].sum(1), 1)


@pytest.mark.parametrize("method", ["map", "bbb", "bbh single"])
def test_predictions_of_a_regression(method: str) -> None:
    trainer = trained("toy", METHODS[method], batch_size=10)
    assert_same(predicted(4 * trainer.task.test.inputs.numpy()), own_test(trainer))


def test_predictions_under_batch_statistics_are_of_the_same_blocks() -> None:
    changes = {"network": "preact-resnet", "batch_size": 128, "evaluation": {"samples": 1, "epoch_samples": 1}}
    trainer = trained("digits5", METHODS["map"], **changes)
    assert_same(predicted(16 * trainer.task.test.inputs.numpy().reshape(-1, 64)), own_test(trainer))


def archive(**changes: Any) -> np.ndarray:
    """Writes `own.npz`, bytes of images with three channels unless changed, and returns its x_test."""
    random = np.random.default_rng(0)
    arrays = {f"x_{part}": random.integers(0, 256, (30, 4, 5, 3)).astype(np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(30) % 3 for part in ("train", "test")} | changes
    np.savez("own.npz", **arrays)
    return arrays["x_test"]


def test_predictions_of_ones_own_images() -> None:
    x = archive()
    trainer = trained("npz:own.npz", METHODS["bbb"], batch_size=9)
    assert_same(predicted(x), own_test(trainer))


def test_predictions_of_ones_own_numbers() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(30, 4)), random.normal(3, 2, 30)
    archive(x_train=x, y_train=y, x_test=x, y_test=y)
    trainer = trained("npz:own.npz", METHODS["bbb"], batch_size=9)
    assert_same(predicted(x), own_test(trainer))


def test_a_run_is_found_by_its_id(empty_store: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text(FILES["job.yaml"])
    Path("mlflow.db").write_bytes(empty_store)
    assert exit_code("train", "--job", "job.yaml", complete=False) == 0
    np.savez("in.npz", x=np.zeros((2, 64)))
    (run_id,) = [path.name for path in Path("mlartifacts/job").iterdir()]
    arguments = ("--input", "in.npz", "--output", "out.npz")
    assert exit_code("predict", "--run", run_id, *arguments, complete=False) == 0
    assert Path("out.npz").exists()
    capfd.readouterr()
    assert exit_code("predict", "--run", "0" * 32, "--input", "in.npz", "--output", "2.npz", complete=False) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert "--run: is no folder, and no run of the tracking store sqlite:///" in errors


def refusal(capfd: pytest.CaptureFixture[str], run_id: str) -> str:
    """What predicting with a run is refused with."""
    np.savez("in.npz", x=np.zeros((2, 64)))
    capfd.readouterr()
    assert exit_code("predict", "--run", run_id, "--input", "in.npz", "--output", "o.npz", complete=False) == 2
    out, errors = capfd.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    return errors


def test_an_id_is_not_taken_for_a_later_run_in_a_folder_of_that_name(capfd: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text(FILES["job.yaml"])
    assert exit_code("train", "--job", "job.yaml", complete=False) == 0
    (run_id,) = [path.name for path in Path("mlartifacts/job").iterdir()]
    shutil.rmtree("runs/job")
    assert exit_code("train", "--job", "job.yaml", complete=False) == 0
    line = "--run: its folder is not there, that of its name is another run's: runs/job"
    assert refusal(capfd, run_id) == f"{line}, got {run_id}\n"


def test_the_name_of_a_run_in_the_store_cannot_lead_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    for folder in ("runs", "elsewhere", "runs/study x"):
        Path(folder).mkdir()
    client, experiment = connect(tracking_uri(None), "job")
    for name in ("../elsewhere", "study x", "/", ".."):
        run_id = client.create_run(experiment, run_name=name).info.run_id
        assert refusal(capfd, run_id) == f"--run: is a run that has no folder of its name, got {run_id}\n"


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/epoch-000001"])
def test_the_folder_that_one_is_in_is_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained("digits5", METHODS["map"])
    monkeypatch.chdir(Path("run") / part)
    x = 16 * trainer.task.test.inputs.numpy().reshape(-1, 8, 8)
    assert_same(predicted(x, "--run", "."), own_test(trainer))


@pytest.mark.parametrize("linked", ["run/checkpoints", "run/checkpoints/epoch-000001"])
def test_links_are_followed(linked: str) -> None:
    """A link to a checkpoint, and checkpoints that lie elsewhere."""
    trainer = trained("digits5", METHODS["map"])
    Path("link").symlink_to(linked)
    x = 16 * trainer.task.test.inputs.numpy().reshape(-1, 8, 8)
    assert_same(predicted(x, "--run", "link"), own_test(trainer))
    Path("out.npz").unlink()
    Path("run/checkpoints").rename("elsewhere")
    Path("run/checkpoints").symlink_to("../elsewhere")
    assert_same(predicted(x, "--run", "run/checkpoints"), own_test(trainer))


def test_one_input_and_an_archive_of_one_array_are_taken() -> None:
    trained("digits5", METHODS["bbb"])
    np.savez("in.npz", np.zeros((1, 8, 8), int))
    assert exit_code("predict", "--samples", "3") == 0
    with np.load("out.npz") as found:
        assert found["probabilities"].shape == (1, 5)


@pytest.mark.parametrize("task", ["mnist", "cifar5"])
def test_inputs_stand_as_in_the_data_sets_files(task: str) -> None:
    from bbh_dist.tasks import cifar5, mnist
    from bbh_dist.tasks.inputs import network_inputs

    shape = {"mnist": (3, 28, 28), "cifar5": (3, 32, 32, 3)}[task]
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = mnist.scaled(torch.from_numpy(images))
    if task == "cifar5":
        expected = cifar5.Augmentation().plain(cifar5._images(images), torch.float32)
    torch.testing.assert_close(network_inputs(task, Path("x"), images), expected, rtol=0, atol=0)


BAD = {
    "other shape": (np.zeros((3, 7, 8)), "x must be images (N, 8, 8) or (N, 64), got shape (3, 7, 8)"),
    "pixels of bytes": (np.full((3, 8, 8), 255), "x must hold pixels from 0 to 16, got 255..255"),
    "NaN": (np.full((3, 8, 8), np.nan), "x must hold finite numbers only"),
    "text": (np.full((3, 8, 8), "a"), "x must hold numbers, got <U1"),
    "objects": (np.array([{}, []], dtype=object), "not a readable .npz archive: Object arrays"),
    "none": (np.zeros((0, 8, 8)), "must hold at least one input"),
    "a number": (np.array(3.0), "must hold at least one input"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_inputs_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    array, rule = BAD[kind]
    trained("digits5", METHODS["map"])
    np.savez("in.npz", x=array)
    before = contents(tmp_path)
    assert exit_code("predict") == 2
    out, errors = capfd.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert rule in errors
    assert contents(tmp_path) == before


def test_bytes_for_a_run_of_floats_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    archive(x_train=np.random.default_rng(0).normal(size=(30, 4)), x_test=np.ones((30, 4)))
    trained("npz:own.npz", METHODS["map"], batch_size=9)
    np.savez("in.npz", x=np.zeros((3, 4), np.uint8))
    assert exit_code("predict") == 2
    assert "x must be of shape (N, 4) and float64, as x_train of " in capfd.readouterr().err


def test_an_output_that_stands_is_not_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    Path("out.npz").write_text("mine")
    assert exit_code("predict") == 2
    assert "--output: stands already" in capfd.readouterr().err
    assert Path("out.npz").read_text() == "mine"


def test_a_run_without_what_it_needs_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("in.npz", x=np.zeros((3, 8, 8)))
    for rule in (
        "no such folder",
        "holds no config.yaml of a run",
        "holds no whole checkpoint",
        "does not hold the we",
    ):
        assert exit_code("predict") == 2
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1
        assert rule in errors
        if rule == "no such folder":
            Path("run").mkdir()
        elif rule == "holds no config.yaml of a run":
            experiment = {"task": "digits5", "network": "mlp:5", "method": METHODS["map"]}
            Path("run/config.yaml").write_text(to_yaml(Experiment.model_validate(experiment)))
        elif rule == "holds no whole checkpoint":
            config = Path("run/config.yaml").read_text()
            trained("digits5", METHODS["map"])
            Path("run/config.yaml").write_text(config.replace("mlp:5", "mlp:6"))
    assert not (tmp_path / "out.npz").exists()


def test_a_damaged_checkpoint_is_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    trainer = trained("digits5", METHODS["map"])
    expected = own_test(trainer)
    trainer.run_epoch()
    trainer.save(Path("run/checkpoints"))
    next(Path("run/checkpoints/epoch-000002").glob("*.safetensors")).write_bytes(b"")
    found = predicted(16 * trainer.task.test.inputs.numpy().reshape(-1, 8, 8))
    assert_same(found, expected)
    out, errors = capfd.readouterr()
    assert "epoch-000002: damaged checkpoint passed over" in errors
    assert out.endswith("checkpoint of epoch 1\n")
