"""Real gloo workers equal one process on the same global batch, however weights and samples are split among them.

Batches of 11 do not divide by the workers, and the last one of an epoch has a single example, so that shares are empty.
In float64 the sums of several workers differ from one's in the last bits, a relative 1e-16 each. Training multiplies
that by some orders of magnitude: after 24 steps tensors are compared to 1e-10 of their largest number, measures
to 1e-9.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_script
from gloo_workers import (
    CASES,
    GOING_ON,
    KINDS,
    PREDICTED,
    SAVED_AFTER,
    attacked,
    jobs,
    joined,
    narrow,
    patient,
    predicted,
    trained,
    whole,
)
from safetensors.torch import load_file
from small_runs import METHODS, UNSPLIT, experiment, small_task
from torch import Tensor

from bbh_dist.training import Trainer

# With its few units dead the network predicts the same for many inputs, whose ranks are then decided by the last bits.
# These are compared between workers only; the predictions that are ranked, below.
RANKINGS = ("outlier_auroc", "outlier_fpr95")
FOUR = pytest.mark.cluster
CASES_OF_SIZES = [
    pytest.param(size, name, shards, marks=FOUR if size == 4 else ()) for size in (2, 4) for name, shards in jobs(size)
]
PREDICTIONS = [
    pytest.param(size, name, shards, marks=FOUR if size == 4 else ())
    for size in (2, 4)
    for name in METHODS
    for shards in ((1,) if name in UNSPLIT else (1, 2, 4))
    if shards <= size
]


class Groups:
    """What groups of workers wrote; each is started when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, size: int) -> Path:
        if not (self.folder / str(size)).exists():
            if size == 4:
                self.of(2)
            self._start(size)
        return self.folder / str(size)

    def _start(self, size: int) -> None:
        run_script(Path(__file__).with_name("gloo_workers.py"), size, self.folder)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return Groups(tmp_path_factory.mktemp("workers"))


def said(folder: Path, name: str, rank: int = 0) -> Any:
    return json.loads((folder / f"{name}-{rank}.json").read_text())


@cache
def alone(name: str) -> tuple[Trainer, dict[str, Tensor], dict[str, Tensor]]:
    """One process: the trainer at its end, what there was after its first step, and at the end."""
    trainer = Trainer(CASES[name].experiment(), small_task())
    return trainer, *trained(trainer)


@cache
def measured_alone(name: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures and curves of the test of one process."""
    return alone(name)[0].test()


@cache
def predicted_alone(name: str) -> tuple[dict[str, Tensor], Tensor]:
    """Of one process that has not trained: predictions by their file's keys, and the attacked images."""
    trainer = Trainer(experiment(name), small_task())
    each = {f"{samples}-{examples}": joined(predicted(trainer, samples, examples)) for samples, examples in PREDICTED}
    return each, attacked(trainer)


@cache
def went_on_alone(name: str) -> Trainer:
    trainer = Trainer(patient(name), small_task())
    while not trainer.done:
        trainer.run_epoch()
    return trainer


@cache
def measured_after_going_on(name: str) -> dict[str, float]:
    return went_on_alone(name).test()[0]


def check_measures(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        if not name.startswith("time/") and (tolerance == 0 or not name.endswith(RANKINGS)):
            assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


def check_histories(found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = 1e-9) -> None:
    assert len(found) == len(expected)
    for here, there in zip(found, expected, strict=True):
        check_measures(here, there, tolerance)


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        off, size = float((found[name] - value).abs().max()), float(value.abs().max())
        assert off <= tolerance * max(size, 1e-3), (name, off, size)


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("size", "name", "shards"), CASES_OF_SIZES)
class TestSeveralWorkersEqualOne:
    @pytest.fixture
    def tolerance(self, name: str) -> float:
        return 1e-5 if "float32" in name else 1e-10

    def test_gradients(self, groups: Groups, size: int, name: str, shards: int, tolerance: float) -> None:
        """Of the first step: the state of plain SGD after it. Adam and RMSProp have their moments compared."""
        found = load_file(groups.of(size) / f"{name}-{shards}.safetensors")
        expected = alone(name)[1]
        assert any(key.endswith(("momentum_buffer", "square_avg", "exp_avg")) for key in expected)
        check_tensors(below("first.", found), expected, tolerance)

    def test_weights(self, groups: Groups, size: int, name: str, shards: int, tolerance: float) -> None:
        found = load_file(groups.of(size) / f"{name}-{shards}.safetensors")
        check_tensors(below("last.", found), alone(name)[2], tolerance)

    def test_losses_and_measures(self, groups: Groups, size: int, name: str, shards: int, tolerance: float) -> None:
        found, expected = said(groups.of(size), f"{name}-{shards}"), alone(name)[0]
        check_histories(found["history"], expected.history, 10 * tolerance)
        measures, curves = measured_alone(name)
        check_measures(found["test"], measures, 10 * tolerance)
        assert found["bin_count"] == curves["bin_count"]

    def test_workers_agree_bit_for_bit(self, groups: Groups, size: int, name: str, shards: int) -> None:
        """On what all hold, and replicas on the rows of a shard."""
        each = [said(groups.of(size), f"{name}-{shards}", rank) for rank in range(size)]
        bits: dict[str, str] = {}
        for one in each:
            assert {key: bits.setdefault(key, value) for key, value in one["digests"].items()} == one["digests"]
            assert one["test"] == each[0]["test"]
            check_histories(one["history"], each[0]["history"], tolerance=0)
        heads = [key for key in bits if key.startswith("method.") and ".heads." in key]
        rows = len([key for key in heads if key[-2] == " "])
        assert rows == (8 * shards if name.startswith("layerwise") and shards > 1 else 0)


@pytest.mark.parametrize(("size", "name", "shards"), PREDICTIONS)
def test_predictions_are_those_of_one_worker(groups: Groups, size: int, name: str, shards: int) -> None:
    """For numbers of samples that divide by the workers, that do not, and that are fewer."""
    found = load_file(groups.of(size) / f"predictions-{name}-{shards}.safetensors")
    expected, images = predicted_alone(name)
    assert len(expected) == len(PREDICTED)
    assert found.keys() == {*expected, "attacked"}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["attacked"], images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", GOING_ON)
class TestWhatSomeWorkersSavedOthersLoad:
    """A best epoch lies before the checkpoint, so that weights, best weights and the optimiser's state all count."""

    def test_two_saved_one_loads(self, groups: Groups, name: str) -> None:
        folder, trainer = groups.of(2), Trainer(patient(name), small_task())
        assert trainer.resume(folder / "checkpoints" / name)
        history = said(folder, f"saved-{name}")
        assert trainer.history == history
        assert len(history) == SAVED_AFTER
        assert 0 < trainer.best_epoch < SAVED_AFTER
        saved = load_file(folder / f"saved-{name}.safetensors")
        check_tensors(whole(trainer), saved, tolerance=0)
        assert any(key.startswith("best.") for key in saved)
        assert any(key.startswith("optimizer.") for key in saved)
        # The noise of validation is that of the epoch: what was measured before saving is measured again.
        check_measures(trainer.evaluate("val", 4), below_keys("val/", history[-1]), 1e-10)
        while not trainer.done:
            trainer.run_epoch()
        expected = went_on_alone(name)
        check_tensors(whole(trainer), whole(expected))
        check_histories(trainer.history, expected.history)

    @pytest.mark.parametrize(
        ("size", "shards"),
        [(2, 1), (2, 2), pytest.param(4, 2, marks=FOUR), pytest.param(4, 4, marks=FOUR)],
        ids=lambda number: str(number),
    )
    def test_half_as_many_saved_these_load(self, groups: Groups, name: str, size: int, shards: int) -> None:
        """One saved, two load; two saved, four load."""
        found, expected = said(groups.of(size), f"gone-on-{name}-{shards}"), went_on_alone(name)
        tensors = load_file(groups.of(size) / f"gone-on-{name}-{shards}.safetensors")
        first = Trainer(patient(name), small_task())
        assert first.resume(groups.folder / str(size // 2) / "checkpoints" / name)
        torch.testing.assert_close(tensors.pop("predicted"), joined(predicted(first, 3, 45)), rtol=0, atol=1e-12)
        check_measures(found["evaluated"], first.evaluate("test"), 1e-10)
        assert found["before"] == SAVED_AFTER
        check_tensors(tensors, whole(expected))
        check_histories(found["history"], expected.history)
        check_measures(found["test"], measured_after_going_on(name))


def test_bfloat16_is_rounded_by_the_noise_of_the_row_in_the_whole(groups: Groups) -> None:
    """Gradients differ by 1e-7, steps of bfloat16 are 4e-3: of 258 weights and moments about 0.01 are rounded apart."""
    found, trainer = load_file(groups.of(2) / "bfloat16.safetensors"), Trainer(narrow(), small_task())
    trainer.step(0, torch.arange(11))
    expected = {name: value for name, value in whole(trainer).items() if value.dtype == torch.bfloat16}
    assert len(expected) == 2 * 4
    apart = sum(int((found[name] != value).sum()) for name, value in expected.items())
    assert sum(value.numel() for value in expected.values()) == 2 * 43 * 6
    assert apart <= 2


def below_keys(prefix: str, measures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if name.startswith(prefix)}


def test_two_shards_write_their_own_rows_of_a_checkpoint(groups: Groups) -> None:
    path = groups.of(2) / "checkpoints" / "layerwise-adam" / f"epoch-{SAVED_AFTER:06d}"
    shards = [load_file(path / f"shard-{rank:05d}.safetensors") for rank in range(2)]
    heads = ("method", "best", "optimizer")
    for kind, entry in zip(heads, ("", "", ".exp_avg_sq"), strict=True):
        name = f"{kind}.generator.heads.0.weight{entry}"
        assert [tuple(shard[name].shape) for shard in shards] == [(10, 6), (10, 6)]
    assert len(set(shards[0]) ^ set(shards[1])) > 0  # what all hold is written once


@pytest.mark.parametrize("name", ["map", "layerwise"])
def test_all_workers_stop_where_one_share_is_poisoned(groups: Groups, name: str) -> None:
    reasons = [said(groups.of(2), f"poisoned-{name}", rank) for rank in range(2)]
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("loss is not finite by step 6 of epoch 1")


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_on_the_wire_in_a_step(groups: Groups, kind: str) -> None:
    """2 workers and 2 samples in the likelihood: each needs the other's part of one, and ships its part of the other's.

    A sum over two workers sends every byte once. Gradients of heads do not travel where heads are split.
    """
    sizes = [t.size for t in Trainer(experiment(kind), small_task()).method.network.tensors]
    generator = Trainer(experiment(kind), small_task()).method.get_submodule("generator")
    shared = sum(parameter.numel() for parameter in generator.parameters())
    for rank in range(2):
        traffic = said(groups.of(2), f"traffic-{kind}", rank)
        own = own_weights(kind, rank, sizes)
        assert traffic["weights"] == own * 8
        assert traffic["weight_gradients"] == (sum(sizes) - own) * 8
        assert traffic["divergence"] == 4 * (4 + 1) * 8
        if kind == "layerwise":
            features = 4 * 6 * len(sizes)
            assert traffic["feature_gradients"] == features * 8
            assert traffic["gradients"] == len(sizes) * 8
            assert traffic["norm"] == 8
        else:
            assert traffic["gradients"] == (shared + len(sizes)) * 8
            assert "feature_gradients" not in traffic
        assert "metrics" not in traffic


def own_weights(kind: str, rank: int, sizes: list[int]) -> int:
    """Weights of mlp:5 on 4 inputs and 3 classes: (5, 4), 5, (3, 5), 3; `single` makes 43 slices of one."""
    if kind == "layerwise":
        return [sum(-(-size // 2) for size in sizes), sum(size // 2 for size in sizes)][rank]
    if kind == "single":
        return [22, 21][rank]
    return [3 * 4 + 5 + 2 * 5 + 3, 2 * 4 + 1 * 5][rank]
