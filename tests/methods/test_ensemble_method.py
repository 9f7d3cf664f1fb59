"""Members of an ensemble are MAP networks of their own: bit for bit, or to 1e-12 where batched products differ."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bbh_dist.config import EnsembleMethod, Experiment
from bbh_dist.evaluation import predict
from bbh_dist.methods import Ensemble
from bbh_dist.methods.beside import beside_each_other
from bbh_dist.methods.map import MAP
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import Group, SampleShare, Shards
from bbh_dist.tasks import Categorical, Split, Task
from bbh_dist.training import Trainer

MEMBERS, EXAMPLES, EPOCHS = 3, 26, 2
SHAPES = {"mlp:5-4": (1, 6, 5), "lenet": (1, 16, 16), "wrn-10-1": (1, 8, 8)}


def task(network: str) -> Task:
    random = keyed_generator("ensemble task")

    def split(count: int) -> Split:
        return Split(torch.randn(count, *SHAPES[network], generator=random), torch.arange(count) % 3)

    return Task("small", Categorical(3), split(EXAMPLES), split(9), split(9))


def trainer(name: str, network: str = "mlp:5-4", **changes: Any) -> Trainer:
    method = {"name": name, "prior_stddev": 0.7, "kl_weight": 0.9, "anneal": {"start": 0.5, "epochs": 1}}
    if name == "ensemble":
        method["members"] = changes.pop("members", MEMBERS)
    settings: dict[str, Any] = {
        "task": "digits5",
        "network": network,
        "method": method,
        "optimizer": {"lr": 0.01, "schedule": "cosine"} | changes.pop("optimizer", {}),
        "batch_size": 8,
        "epochs": EPOCHS,
        "precision": "float64",
        "normalisation": "batch" if network.startswith("wrn") else None,
        "seed": 3,
    }
    return Trainer(Experiment.model_validate(settings | changes), task(network))


def run(of: Trainer) -> Trainer:
    while not of.done:
        of.run_epoch()
    return of


def map_run_of_member(member: int, ensemble: Trainer, **changes: Any) -> Trainer:
    """A MAP run with a member's start and order of the data, by the Trainer's own steps."""
    lone = trainer("map", **changes)
    with torch.no_grad():
        for weight, of_all in zip(lone.method.parameters(), ensemble.method.parameters(), strict=True):
            weight.copy_(of_all[member])
    steps = lone.steps_per_epoch
    for epoch in range(EPOCHS):
        lone.epoch = epoch
        random = keyed_generator("order", 3, epoch, *([member] if member else []))
        order = torch.randperm(EXAMPLES, generator=random)
        for step in range(steps):
            lone.step(step, order[8 * step : 8 * step + 8])
    return lone


def weights(of: Trainer) -> list[Tensor]:
    return [weight.detach() for weight in of.method.parameters()]


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize(("clip", "tolerance"), [(None, 0.0), (0.4, 1e-12)])
def test_one_member_is_map(network: str, clip: float | None, tolerance: float) -> None:
    """Of the same seed: start, order, losses, measures and weights; bit for bit but for the sum of squares to clip."""
    settings = {"network": network, "optimizer": {"gradient_clip": clip}}
    lone, one = run(trainer("map", **settings)), run(trainer("ensemble", members=1, **settings))
    for expected, found in zip(weights(lone), weights(one), strict=True):
        torch.testing.assert_close(found[0], expected, rtol=tolerance, atol=tolerance)
    for epoch, expected_epoch in zip(one.history, lone.history, strict=True):
        for name, expected_value in expected_epoch.items():
            if not name.startswith("time/"):
                assert epoch[name] == pytest.approx(expected_value, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        ("mlp:5-4", {"name": "adam"}),
        ("mlp:5-4", {"name": "sgd", "lr": 0.1, "gradient_clip": 0.5}),
        ("lenet", {"name": "rmsprop", "lr": 1e-3}),
        ("wrn-10-1", {"name": "sgd", "lr": 1e-2}),
    ],
)
def test_every_member_is_a_map_run_of_its_own(network: str, optimizer: dict[str, Any]) -> None:
    """With its own start, order, gradient and clip, over 8 steps; the shortest batch of an epoch has 2 examples."""
    settings = {"network": network, "optimizer": optimizer}
    fresh = trainer("ensemble", **settings)
    alone = [map_run_of_member(member, fresh, **settings) for member in range(MEMBERS)]
    found = weights(run(fresh))
    for member, lone in enumerate(alone):
        for tensor, expected in zip(found, weights(lone), strict=True):
            torch.testing.assert_close(tensor[member], expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found[0][0], found[0][1])


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many members have been given threads, call by call, of two threads of torch's."""
    calls: list[int] = []

    def counted(piece: Any, inputs: Tensor, own: Any) -> Tensor:
        calls.append(len(inputs))
        return beside_each_other(piece, inputs, own)

    monkeypatch.setattr("bbh_dist.methods.ensemble.beside_each_other", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield calls
    torch.set_num_threads(before)


@pytest.mark.parametrize(("network", "clip"), [("lenet", None), ("wrn-10-1", 0.5)])
def test_members_on_threads_are_map_runs_too(network: str, clip: float | None, on_threads: list[int]) -> None:
    settings = {"network": network, "optimizer": {"name": "sgd", "lr": 1e-2, "gradient_clip": clip}}
    fresh = trainer("ensemble", members=4, **settings)
    alone = [map_run_of_member(member, fresh, **settings) for member in range(4)]
    found = weights(run(fresh))
    assert on_threads == [4] * (EPOCHS * fresh.steps_per_epoch)
    for member, lone in enumerate(alone):
        for tensor, expected in zip(found, weights(lone), strict=True):
            torch.testing.assert_close(tensor[member], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("members", "replicas", "expected"),
    [(4, 1, [4]), (5, 1, [5]), (3, 1, []), (1, 1, []), (4, 2, [])],
    ids=["whole rounds", "a sixth left over", "a quarter left over", "one", "replicas"],
)
def test_members_take_turns_where_threads_would_idle_or_replicas_wait(
    members: int, replicas: int, expected: list[int], on_threads: list[int]
) -> None:
    """Replicas exchange statistics in one order."""
    network, config = build_network("lenet", SHAPES["lenet"], 3), EnsembleMethod(name="ensemble", members=members)
    method = Ensemble(config, network, keyed_generator("initial", 0), Shards(replicas=Group(0, replicas)))
    method.each(torch.randn(members, 2, *SHAPES["lenet"]), range(members), SampleShare(members))
    assert on_threads == expected


def test_reported_losses_are_means_over_members() -> None:
    """With a learning rate of almost 0 the weights stand still, so each member's mean over an epoch is that at once."""
    ensemble = trainer("ensemble", optimizer={"name": "sgd", "lr": 1e-15}, epochs=1)
    loss = ensemble.run_epoch()
    nll, penalty = [], []
    for member in range(MEMBERS):
        lone = map_run_of_member(member, ensemble, optimizer={"name": "sgd", "lr": 1e-15})
        data, kernels = lone.task.train, [weight for weight in weights(lone) if weight.dim() > 1]
        nll.append(torch.nn.functional.cross_entropy(lone.method(data.inputs, None)[0].detach(), data.labels))
        penalty.append(sum(float(kernel.square().sum()) for kernel in kernels) / (2 * 0.7**2))
    assert loss["train/nll"] == pytest.approx(float(sum(nll)) / MEMBERS, rel=1e-9)
    assert loss["train/kl"] == pytest.approx(sum(penalty) / MEMBERS, rel=1e-9)


def test_each_member_sees_every_example_once_in_an_order_of_its_own() -> None:
    ensemble = trainer("ensemble")
    seen: list[Tensor] = []
    step = ensemble.step
    ensemble.step = lambda number, batch: seen.append(batch) or step(number, batch)  # type: ignore[method-assign]
    for _ in range(2):
        ensemble.run_epoch()
    orders = torch.cat([torch.cat(seen[:4], 1), torch.cat(seen[4:], 1)])
    assert orders.shape == (2 * MEMBERS, EXAMPLES)
    assert torch.equal(orders.sort(1).values, torch.arange(EXAMPLES).expand(2 * MEMBERS, -1))
    assert len({tuple(order.tolist()) for order in orders}) == 2 * MEMBERS


@pytest.mark.parametrize("samples", [1, MEMBERS, 50])
def test_a_prediction_takes_every_member_once(samples: int) -> None:
    ensemble = trainer("ensemble")
    inputs = ensemble.task.test.inputs
    found = predict(ensemble.method, inputs, Noise(1, "test", 0, range(samples), dtype=torch.float64))
    each = []
    for member in range(MEMBERS):
        lone = trainer("map")
        for weight, of_all in zip(lone.method.parameters(), ensemble.method.parameters(), strict=True):
            weight.data = of_all.data[member]
        each.append(lone.method(inputs, None)[0].softmax(-1))
    torch.testing.assert_close(found.probabilities, sum(each).detach() / MEMBERS, rtol=1e-12, atol=1e-12)
    assert found.mutual_information.min() > 0


def test_shards_hold_the_members_of_the_whole() -> None:
    network, config = build_network("mlp:5", (7,), 3), EnsembleMethod(name="ensemble", members=6)
    whole = Ensemble(config, network, keyed_generator("initial", 0))
    parts = [Ensemble(config, network, keyed_generator("initial", 0), Shards(Group(rank, 3))) for rank in range(3)]
    for tensor, *of_parts in zip(whole.parameters(), *(part.parameters() for part in parts), strict=True):
        assert torch.equal(torch.cat(of_parts), tensor)
        assert [len(rows) for rows in of_parts] == [2, 2, 2]
    x = torch.randn(4, 7)
    for shard, part in enumerate(parts):
        drawn = part.draw(Noise(0, "test", 0, range(6)))
        expected = whole(x, drawn, SampleShare(6, 3, shard))
        torch.testing.assert_close(part(x, drawn, SampleShare(6, 3, shard)), expected, rtol=1e-6, atol=1e-6)


def test_the_first_member_starts_as_map_does() -> None:
    lone, ensemble = trainer("map"), trainer("ensemble")
    assert isinstance(lone.method, MAP)
    for expected, found in zip(weights(lone), weights(ensemble), strict=True):
        assert torch.equal(found[0], expected)
