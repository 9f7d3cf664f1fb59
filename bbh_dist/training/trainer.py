"""The training loop: epochs with validation, exact resume, early stop. Torch only; runs with or without Ray."""

import math
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbh_dist.allocator import keep_freed_memory
from bbh_dist.config import Experiment
from bbh_dist.evaluation import Prediction, RegressionPrediction, curve_details, evaluator_of, robustness
from bbh_dist.methods import build_method
from bbh_dist.networks import build_network, build_normalisation
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import Workers, batch_total
from bbh_dist.tasks import Split, Task
from bbh_dist.training.checkpoints import newest_checkpoint, save_checkpoint
from bbh_dist.training.objective import Steps, annealed, plain_steps
from bbh_dist.training.optimizers import schedule_factor
from bbh_dist.training.state import read_state, state_tensors
from bbh_dist.training.update import Update

AnyPrediction = Prediction | RegressionPrediction

_STEPS_BETWEEN_CHECKS = 50
_POSTERIOR_SAMPLES = 20
"""Weight samples in `posterior/` measures."""
_REFERENCE_EXAMPLES = 200
"""Of a reference batch; its statistics vary by less than those of a training batch of 100."""


class Diverged(Exception):
    """The loss or a measure is no longer a finite number; the message says where and what."""


class Trainer:
    """One training run, an epoch at a time.

    All randomness is keyed by the seed and by epoch, step and sample, so the state is parameters, optimiser and
    counters alone, and a run that is resumed from a checkpoint ends with the bits of one that was not interrupted.
    """

    def __init__(
        self, experiment: Experiment, task: Task, workers: Workers | None = None, device: torch.device | None = None
    ) -> None:
        keep_freed_memory()
        self.experiment = experiment
        self.workers = workers or Workers()
        self.device = device or torch.device("cpu")
        self.dtype = torch.float64 if experiment.precision == "float64" else torch.float32
        if self.device.type == "cuda":  # convolutions repeat their bits, in the precision that is asked for
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
            torch.backends.cudnn.allow_tf32 = False
        self.task = task.to(self.device, self.dtype)
        self.evaluator = evaluator_of(task.likelihood)
        self.normalisation = build_normalisation(
            experiment.normalisation_kind, experiment.batch_size, self.task.reference_inputs(_REFERENCE_EXAMPLES)
        )
        network = build_network(experiment.network, task.input_shape, task.outputs, self.normalisation)
        random = keyed_generator("initial", experiment.seed)
        method = build_method(experiment.method, network, random, self.workers.shards).to(self.device)
        self.method = method.double() if self.dtype == torch.float64 else method
        self.update = Update(experiment.optimizer, self.method, self.workers)
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.best_nll = math.inf
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training data; the last one may have a smaller batch."""
        return -(-len(self.task.train) // self.experiment.batch_size)

    @property
    def done(self) -> bool:
        """Whether all epochs are run or the validation NLL has not fallen for `patience` epochs."""
        patience = self.experiment.early_stop.patience
        stopped = patience > 0 and self.epoch - self.best_epoch >= patience
        return stopped or self.epoch >= self.experiment.epochs

    def run_epoch(self, on_step: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Train for one epoch, validate, and return the epoch's metrics. `on_step` is told (step, steps).

        Raises:
            Diverged: the loss or a measure is not finite.
        """
        started = time.perf_counter()
        losses = self._train_epoch(on_step)
        train_seconds = time.perf_counter() - started
        self.seconds += train_seconds
        self.epoch += 1
        samples, patience = self.experiment.evaluation, self.experiment.early_stop.patience
        # Where the best epoch is kept, all are measured alike, and the best again in full at the end.
        last = self.epoch == self.experiment.epochs and not patience
        metrics = self.evaluate("val", samples.samples if last else samples.epoch_samples)
        if patience:
            metrics = self._keep_best(metrics)
        metrics = {
            "epoch": self.epoch,
            **losses,
            **metrics,
            **self.method.measures(self._noise("posterior", self.epoch, _POSTERIOR_SAMPLES)),
            "time/step_ms": 1000 * train_seconds / self.steps_per_epoch,
            "time/train_seconds": self.seconds,
        }
        if self.experiment.parallel.is_elastic:
            metrics["time/workers"] = self.workers.size
        self.history.append(metrics)
        return metrics

    def evaluate(self, part: str, samples: int | None = None) -> dict[str, float]:
        """Measures of the `val` or `test` part, named `part/measure`, with `samples` weight samples.

        Raises:
            Diverged: a measure is not finite.
        """
        return self._measure(part, *self._predict(part, samples or self.experiment.evaluation.samples))

    def test(self) -> tuple[dict[str, float], dict[str, Any]]:
        """All measures on test data and under the attacks asked for, and what the figures of a final run show.

        Raises:
            Diverged: a measure is not finite.
        """
        evaluation = self.experiment.evaluation
        split, prediction, outliers = self._predict("test", evaluation.samples)
        measures = self._measure("test", split, prediction, outliers)
        details = self.evaluator.details(prediction, split.labels, outliers) | self._curve()
        if isinstance(prediction, Prediction):
            noise = self._noise("test", self.epoch, evaluation.samples)
            attacked, more = robustness(self.method, self.task, prediction, evaluation, noise, self.workers)
            self._check_measures(attacked)
            measures, details = measures | attacked, details | more
        return measures, {"method": self.experiment.method.label, **details}

    def save(self, folder: Path) -> None:
        """Write a checkpoint; every worker writes what only it has."""
        state = {name: getattr(self, name) for name in ("epoch", "seconds", "history", "best_epoch")}
        state["best_nll"] = self.best_nll if math.isfinite(self.best_nll) else None
        tensors = state_tensors(self.method, self.update, self._best, self.workers)
        save_checkpoint(folder, self.epoch, tensors, state | {"steps": self.update.steps}, self.workers)

    def resume(self, folder: Path) -> bool:
        """Load the newest whole checkpoint of a folder; false where there is none."""
        found = newest_checkpoint(folder, self.workers)
        if found is None:
            return False
        state = found.state
        self._best = read_state(found, self.method, self.update, self.workers)
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]
        self.best_epoch = state["best_epoch"]
        self.best_nll = math.inf if state["best_nll"] is None else state["best_nll"]
        return True

    def _train_epoch(self, on_step: Callable[[int, int], None] | None) -> dict[str, float]:
        if self.epoch == 0:
            self._pretrain()
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for step, batch in enumerate(self._order().split(self.experiment.batch_size, dim=-1), start=1):
            terms = self.step(step - 1, batch)
            sums += torch.cat([terms, ~terms[1:2].isfinite()])
            # On a GPU a look at the sums would make it wait for the host; there the epoch's end is early enough.
            looks = step % _STEPS_BETWEEN_CHECKS == 0 and self.device.type == "cpu"
            if looks or step == self.steps_per_epoch:
                self._check_finite(sums, step)
            if on_step is not None:
                on_step(step, self.steps_per_epoch)
        steps, examples = self.steps_per_epoch, len(self.task.train)
        nll = float(self.workers.sum(sums[0].clone())) / examples
        weighted_kl = float(sums[2]) / steps
        return {"train/loss": nll + weighted_kl / examples, "train/nll": nll, "train/kl": float(sums[1]) / steps}

    @torch.no_grad()
    def _pretrain(self) -> None:
        for step in range(self.method.pretraining_steps):
            noise = self._noise("pretraining", step, self.experiment.method.samples_per_step)
            self.method.adapt(self.method.draw(noise))

    def step(self, step: int, batch: Tensor) -> Tensor:
        """One step on this worker's share of a batch of indices (B,): (sum of NLL, KL, weighted KL), nats.

        Independent weight samples may have a batch each, (S, B).
        """
        experiment, train = self.experiment, self.task.train
        config, kl_weight = experiment.method, self._kl_weight(step)
        samples = self.workers.samples(config.likelihood_samples, splittable=config.likelihood == "mean_log")
        own = self.workers.examples(batch.shape[-1], samples)
        members = samples.own if self.method.independent else range(1)
        if self.method.independent:
            batch = batch.expand(samples.count, -1)[members.start : members.stop]
        share = batch[..., own.start : own.stop]
        number = self.epoch * self.steps_per_epoch + step
        progress = number / (experiment.epochs * self.steps_per_epoch)
        lr = experiment.optimizer.lr * schedule_factor(experiment.optimizer.schedule, progress)
        self._steps.begin()
        with self.update.collecting(), self.normalisation.training(batch_total(self.workers, samples)):
            drawn = self.method.draw(self._noise("train", number, config.samples_per_step, self._steps.noise))
            self.method.adapt(drawn)
            loss = self._steps.objective(
                self.method,
                config,
                self.task.training_inputs(share, experiment.seed, self.epoch, members),
                train.labels[share],
                drawn,
                samples,
                first=own.start,
                batch=batch.shape[-1],
                examples=len(train),
                kl_weight=kl_weight,
                likelihood=self.task.likelihood,
            )
            self.update.step(loss.part, lr)
        return torch.stack([loss.nll_sum, loss.kl, kl_weight * loss.kl]).double()

    @cached_property
    def _steps(self) -> Steps:
        if not self.experiment.parallel.compile:
            return plain_steps()
        from bbh_dist.training.compiled import compiled_steps

        return compiled_steps(self.method, self.device, self.dtype)

    def _order(self) -> Tensor:
        """Indices (N,) of an epoch's training data in turn; (S, N) where weight samples are independent."""
        key = ("order", self.experiment.seed, self.epoch)
        samples = self.experiment.method.likelihood_samples if self.method.independent else 1
        keys = [key, *((*key, sample) for sample in range(1, samples))]
        orders = [torch.randperm(len(self.task.train), generator=keyed_generator(*key)) for key in keys]
        return (torch.stack(orders) if self.method.independent else orders[0]).to(self.device)

    def _kl_weight(self, step: int) -> float:
        config = self.experiment.method
        return annealed(config.kl_weight, config.anneal, self.epoch + step / self.steps_per_epoch)

    def _check_finite(self, sums: Tensor, step: int) -> None:
        nll, kl = float(self.workers.sum(sums[0].clone())), float(sums[1])
        if not math.isfinite(nll + kl):
            sums_are = f"nll sum {nll}, kl sum {kl}, KL estimate not finite at {int(sums[3])} of the steps"
            raise Diverged(f"loss is not finite by step {step} of epoch {self.epoch + 1}: {sums_are}")

    def _keep_best(self, metrics: dict[str, float]) -> dict[str, float]:
        """Remember the weights of the lowest validation NLL; at the end go back to them and measure them in full."""
        if metrics["val/nll"] < self.best_nll:
            self.best_nll, self.best_epoch = metrics["val/nll"], self.epoch
            self._best.clear()  # else there were three of every weight meanwhile
            self._best = {name: value.clone() for name, value in self.method.state_dict().items()}
        if not self.done:
            return metrics
        self.method.load_state_dict(self._best)
        return self.evaluate("val")

    def _measure(
        self, part: str, split: Split, prediction: AnyPrediction, outliers: AnyPrediction | None
    ) -> dict[str, float]:
        if outliers is not None and not outliers.is_finite:
            raise Diverged(f"predictions for {part} outliers are not finite after epoch {self.epoch}")
        measures = self.evaluator.measures(prediction, split.labels, outliers)
        named = {f"{part}/{name}": value for name, value in measures.items()}
        self._check_measures(named)
        return named

    def _check_measures(self, measures: dict[str, float]) -> None:
        bad = ", ".join(f"{name} {value}" for name, value in measures.items() if not math.isfinite(value))
        if bad:
            raise Diverged(f"measures are not finite after epoch {self.epoch}: {bad}")

    def _predict(self, part: str, samples: int) -> tuple[Split, AnyPrediction, AnyPrediction | None]:
        split = self.task.validation if part == "val" else self.task.test
        outliers = self.task.outliers_validation if part == "val" else self.task.outliers_test
        noise = self._noise(part, self.epoch, samples)
        predict = partial(self.evaluator.predict, self.method, noise=noise, workers=self.workers)
        return split, predict(split.inputs), None if outliers is None else predict(outliers)

    def _curve(self) -> dict[str, Any]:
        """The `curve` of a figure where the task has one, under the weight samples of the test."""
        if self.task.curve is None:
            return {}
        noise = self._noise("test", self.epoch, self.experiment.evaluation.samples)
        parts = (self.task.curve.inputs.to(self.task.test.inputs), self.task.train.inputs)
        predictions = [self.evaluator.predict(self.method, inputs, noise, self.workers) for inputs in parts]
        return {"curve": curve_details(self.task, *predictions)}

    def _noise(self, purpose: str, step: int, samples: int, kind: type[Noise] = Noise) -> Noise:
        return kind(self.experiment.seed, purpose, step, range(samples), self.device, self.dtype)
