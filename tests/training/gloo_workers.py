"""A group of gloo workers that trains, predicts, and saves or goes on from checkpoints.

Usage: gloo_workers.py SIZE FOLDER. Workers are forked, so that torch is imported once. The whole tensors are written by
the first worker, what each says of itself to FOLDER/NAME-RANK.json. Two workers go on from what one has left in the
folder, four from what two have.
"""

import hashlib
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import fork_workers
from safetensors.torch import save_file
from small_runs import METHODS, UNSPLIT, experiment, small_task
from torch import Tensor
from torch.distributed.tensor import DTensor

from bbh_dist.config import Experiment
from bbh_dist.evaluation import Prediction, predict
from bbh_dist.evaluation.attacks import pgd
from bbh_dist.noise import Noise
from bbh_dist.training import Diverged, Trainer, Workers
from bbh_dist.training.state import state_tensors

KINDS = ("single", "sliced", "layerwise")
DIVERGENCES = ("semi_implicit", "knn", "knn_marginal", "gaussian")


@dataclass(frozen=True)
class Case:
    """An experiment whose steps any number of workers has to take alike."""

    method: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)

    def experiment(self) -> Experiment:
        """Four epochs of 6 steps, by default with plain SGD, whose state after a step is the gradient."""
        settings = {"epochs": 4, "evaluation": {"samples": 6}} | self.changes
        return experiment(self.method, optimizer={"name": "sgd", "lr": 0.02} | self.optimizer, **settings)


def bbh(kind: str, **changes: Any) -> dict[str, Any]:
    return METHODS[kind] | {"kl_samples": 4} | changes


def crossed() -> Iterator[tuple[str, Case]]:
    """Every generator with every divergence; what else there is takes turns."""
    samples = itertools.cycle((1, 2, 4))
    others = itertools.cycle(
        [
            ("mean_log", True, {}),
            ("mean_log", False, {"gradient_clip": 0.3}),
            ("log_mean", True, {}),
            ("mean_log", True, {"gradient_clip": 0.3}),
            ("log_mean", False, {"gradient_clip": 0.3}),
        ]
    )
    for kind, divergence in itertools.product(KINDS, DIVERGENCES):
        likelihood, shared, optimizer = next(others)
        generator = METHODS[kind]["generator"] | {"shared_noise": shared}
        method = bbh(
            kind,
            generator=generator,
            divergence=divergence,
            likelihood=likelihood,
            likelihood_samples=next(samples),
        )
        # Its gradient grows as 1 / distance to the nearest neighbour in one dimension, up to 1e4, so its steps are
        # chaotic: at a rate of 0.02, 1e-15 on one parameter of a lone worker's is of order 1 after 24 steps.
        rate = {"lr": 1e-5} if divergence == "knn_marginal" else {}
        yield f"{kind}-{divergence}", Case(method, optimizer=optimizer | rate)


ANNEAL = {"start": 0.5, "epochs": 2}
INNER = {"semi_implicit": {"inner_samples": 6}, "likelihood_samples": 2, "anneal": ANNEAL}
CUT = {"network": "mlp:10"}  # of the single generator's 17 slices the last is cut
FEW = {"divergence": "discriminator", "discriminator": {"hidden": [5, 4], "pretraining_steps": 3, "weights": 13}}
CASES: dict[str, Case] = dict(crossed()) | {
    **{f"{kind}-discriminator": Case(bbh(kind, likelihood_samples=2, **FEW)) for kind in KINDS},
    **{f"{kind}-more-inner-samples": Case(bbh(kind, **INNER), CUT, {"gradient_clip": 0.3}) for kind in KINDS},
    **{f"{kind}-sigma-of-units": Case(bbh(kind, semi_implicit={"stddev": "unit"})) for kind in KINDS},
    "layerwise-adam": Case(bbh("layerwise", kl_samples=3, likelihood_samples=4), optimizer={"name": "adam"}),
    "layerwise-rmsprop": Case(METHODS["layerwise"], optimizer={"name": "rmsprop"}),
    "layerwise-float32": Case(bbh("layerwise", likelihood_samples=2), {"precision": "float32"}),
    "ensemble": Case(METHODS["ensemble"], optimizer={"gradient_clip": 0.3}),
}
WHOLE = {
    "map": Case(METHODS["map"], optimizer={"gradient_clip": 0.3}),
    "dropout": Case(METHODS["dropout"]),
    "bbb": Case(METHODS["bbb"], optimizer={"gradient_clip": 0.3}),
    "bbb-local": Case(METHODS["bbb"] | {"estimator": "local"}),
    "bbb-flipout": Case(METHODS["bbb"] | {"estimator": "flipout", "likelihood": "log_mean"}),
    "mnf": Case(METHODS["mnf"] | {"likelihood_samples": 4}, optimizer={"gradient_clip": 0.3, "lr": 0.002}),
    "mnf-local": Case(METHODS["mnf"] | {"estimator": "local"}, optimizer={"name": "adam"}),
}
CASES |= WHOLE
REPLICATED = ("single-knn", "single-discriminator", "sliced-gaussian", "layerwise-semi_implicit", "ensemble", *WHOLE)
"""What two workers train without shards, too."""


def jobs(size: int) -> list[tuple[str, int]]:
    """Names of cases, and the shards that `size` workers make."""
    if size == 2:
        return [(name, 2) for name in CASES if name not in WHOLE] + [(name, 1) for name in REPLICATED]
    return [(name, shards) for name in CASES for shards in (1, 2, 4) if name not in WHOLE or shards == 1]


GOING_ON = {
    **{f"layerwise-{name}": Case(METHODS["layerwise"], {}, {"name": name}) for name in ("adam", "rmsprop", "sgd")},
    "single": Case(METHODS["single"], {}, {"name": "adam", "lr": 0.2}),
    "ensemble": Case(METHODS["ensemble"], {}, {"name": "adam", "lr": 0.2}),
}
SAVED_AFTER = 4


def patient(name: str) -> Experiment:
    """A run that is saved some epochs after its best one: learning rates and seed are chosen for that."""
    case = GOING_ON[name]
    settings = {"lr": 0.1, "gradient_clip": 1.0, "schedule": "cosine"} | case.optimizer
    return experiment(case.method, optimizer=settings, epochs=6, early_stop={"patience": 5}, seed=4)


PREDICTED = [(1, 45), (3, 1), (3, 45), (4, 0), (4, 45), (23, 45), (7, 571), (10, 801)]
"""The last ones make more batches on one worker than on the other."""


def predicted(trainer: Trainer, samples: int, examples: int) -> Prediction:
    inputs = torch.randn(examples, 4, generator=torch.Generator().manual_seed(examples), dtype=torch.float64)
    noise = Noise(5, "test", 3, range(samples), dtype=torch.float64)
    return predict(trainer.method, inputs, noise, trainer.workers)


def attacked(trainer: Trainer) -> Tensor:
    """Test images under PGD of three steps with three weight samples each."""
    noise = Noise(5, "test", 3, range(3), dtype=torch.float64)
    return pgd(trainer.method, trainer.task.test, (0.1, 0.7), (-2.0, 2.0), noise, 3, 0.5, trainer.workers)


@cache
def workers_with(shards: int) -> Workers:
    return Workers.of_process_group(shards)


def state(trainer: Trainer) -> dict[str, Tensor]:
    return state_tensors(trainer.method, trainer.update, trainer._best, trainer.workers)


def whole(trainer: Trainer) -> dict[str, Tensor]:
    """Weights and optimiser's state, of all shards; all workers call this."""
    tensors = {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in state(trainer).items()
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def digests(trainer: Trainer) -> dict[str, str]:
    """The bits of what this worker holds; those of a sharded tensor with the shard's number."""
    found = {}
    for name, tensor in state(trainer).items():
        is_shard = isinstance(tensor, DTensor)
        local = tensor.to_local() if is_shard else tensor
        key = f"{name} {trainer.workers.shards.group.rank}" if is_shard else name
        found[key] = hashlib.sha256(local.detach().contiguous().numpy().tobytes()).hexdigest()
    return found


def trained(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What there is after the first step, and at the end."""
    first: list[dict[str, Tensor]] = []
    while not trainer.done:
        trainer.run_epoch(lambda step, of: None if first else first.append(whole(trainer)))
    return first[0], whole(trainer)


class Group:
    """One worker of the group, and where it writes."""

    def __init__(self, rank: int, size: int, folder: Path) -> None:
        self.rank, self.size, self.folder = rank, size, folder

    def write(self, name: str, said: Any, tensors: dict[str, Tensor] | None = None) -> None:
        (self.folder / f"{name}-{self.rank}.json").write_text(json.dumps(said))
        if tensors is not None and self.rank == 0:
            save_file({key: value.contiguous() for key, value in tensors.items()}, self.folder / f"{name}.safetensors")

    def run(self) -> None:
        for name, shards in jobs(self.size):
            trainer = Trainer(CASES[name].experiment(), small_task(), workers_with(shards))
            first, last = trained(trainer)
            tensors = {f"first.{key}": value for key, value in first.items()}
            tensors |= {f"last.{key}": value for key, value in last.items()}
            measures, curves = trainer.test()
            said = {"digests": digests(trainer), "history": trainer.history, "test": measures}
            self.write(f"{name}-{shards}", said | {"bin_count": curves["bin_count"]}, tensors)
        self.predict()
        if self.size == 2:
            self.save()
            self.poison()
            self.count_bytes()
            self.round()
        self.go_on(self.folder.parent / str(self.size // 2) / "checkpoints")

    def predict(self) -> None:
        for name, shards in itertools.product(METHODS, (1, 2, 4)):
            if shards > (1 if name in UNSPLIT else self.size):
                continue
            trainer = Trainer(experiment(name), small_task(), workers_with(shards))
            found = {key: predicted(trainer, *key) for key in PREDICTED}
            tensors = {f"{samples}-{examples}": joined(value) for (samples, examples), value in found.items()}
            tensors["attacked"] = attacked(trainer)
            self.write(f"predictions-{name}-{shards}", None, tensors)

    def save(self) -> None:
        for name in GOING_ON:
            trainer = saved(name, self.folder, workers_with(2))
            self.write(f"saved-{name}", trainer.history, whole(trainer))

    def go_on(self, checkpoints: Path) -> None:
        for name, shards in itertools.product(GOING_ON, (self.size // 2, self.size)):
            trainer = Trainer(patient(name), small_task(), workers_with(shards))
            assert trainer.resume(checkpoints / name)
            said = {"evaluated": trainer.evaluate("test"), "before": len(trainer.history)}
            prediction = {"predicted": joined(predicted(trainer, 3, 45))}
            while not trainer.done:
                trainer.run_epoch()
            said |= {"history": trainer.history, "test": trainer.test()[0]}
            self.write(f"gone-on-{name}-{shards}", said, whole(trainer) | prediction)

    def poison(self) -> None:
        """What a worker says where only the first one's share of the first batch is poisoned."""
        for name, shards in (("map", 1), ("layerwise", 2)):
            trainer = Trainer(experiment(name), small_task(), workers_with(shards))
            step, inputs = trainer.step, trainer.task.train.inputs

            def poisoning(number: int, batch: Tensor, step: Any = step, inputs: Tensor = inputs) -> Tensor:
                if self.rank == 0:
                    inputs[batch[0]] = torch.nan
                return step(number, batch)

            trainer.step = poisoning  # type: ignore[method-assign]
            said = "no error"
            try:
                trainer.run_epoch()
            except Diverged as error:
                said = str(error)
            self.write(f"poisoned-{name}", said)

    def count_bytes(self) -> None:
        """Of one step, apart from evaluation, with 2 samples in the likelihood and 4 in the divergence."""
        for name in KINDS:
            settings = experiment(bbh(name, likelihood_samples=2), optimizer={"gradient_clip": 1.0})
            trainer = Trainer(settings, small_task(), Workers.of_process_group(2))
            trainer.step(0, torch.arange(11))
            self.write(f"traffic-{name}", trainer.workers.traffic)

    def round(self) -> None:
        trainer = Trainer(narrow(), small_task(), workers_with(2))
        trainer.step(0, torch.arange(11))
        self.write("bfloat16", None, whole(trainer))


def saved(name: str, folder: Path, workers: Workers | None = None) -> Trainer:
    """A run of some epochs, saved below the folder."""
    trainer = Trainer(patient(name), small_task(), workers)
    for _ in range(SAVED_AFTER):
        trainer.run_epoch()
    trainer.save(folder / "checkpoints" / name)
    return trainer


def narrow() -> Experiment:
    """Heads and second moments in bfloat16."""
    method = METHODS["layerwise"] | {"generator": METHODS["layerwise"]["generator"] | {"head_precision": "bfloat16"}}
    return experiment(method, precision="float32", optimizer={"lr": 0.01, "second_moment": "bfloat16"})


def joined(prediction: Prediction) -> Tensor:
    return torch.cat([prediction.probabilities, prediction.expected_entropy[:, None]], dim=1)


def work(size: int, folder: Path, rank: int) -> None:
    """What one of the workers does."""
    meeting = (folder / f"meet-{size}").as_uri()
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=limit)
    own = folder / str(size)
    own.mkdir(exist_ok=True)
    dist.barrier()
    Group(rank, size, own).run()
    dist.barrier()


def main(size: int, folder: Path) -> int:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # torch does at first use, which would be in every worker
    Trainer(experiment("map"), small_task()).evaluate("val")  # imports what measures need
    if size == 2:
        for name in GOING_ON:
            saved(name, folder / "1")
    return fork_workers(size, partial(work, size, folder))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
