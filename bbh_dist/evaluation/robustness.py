"""What a final run is put to beyond its test data: attacks at every eps, rotated and mixed images."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from bbh_dist.config import Attacks, Evaluation
from bbh_dist.evaluation.attacks import fgsm, pgd
from bbh_dist.evaluation.metrics import measure
from bbh_dist.evaluation.prediction import Prediction, predict
from bbh_dist.evaluation.shifts import shift_curves
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Split, Task

_ALONE = Workers()
_MEASURES = ("error", "entropy", "entropy_auc")


def robustness(
    method: Method, task: Task, clean: Prediction, evaluation: Evaluation, noise: Noise, workers: Workers = _ALONE
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics `adversarial/ATTACK/MEASURE@EPS`, and curves: `attacks` by name and a list of `shifts`.

    Only what is asked for is there.

    `clean` is the prediction for all test data under `noise`, whose samples also judge the attacked images. The
    measures are the error in percent, the entropy AUC, and the mean entropy in nats; a curve has the accuracy, too.

    Raises:
        ValueError: the task has no range of pixels, or no images are chosen.
        DataError: the chosen images are not those that are meant.
    """
    curves: dict[str, Any] = {}
    attacks = {
        name: attack_curve(name, method, task, clean, evaluation.attacks, noise, workers)
        for name in evaluation.attacks.examples
    }
    if attacks:
        curves["attacks"] = attacks
    if evaluation.shifts:
        if task.shifts is None:
            raise ValueError(f"{task.name} has no images that are chosen to be rotated and mixed")
        curves["shifts"] = shift_curves(method, task.test, task.shifts, noise, workers)
    return _metrics(attacks), curves


def attack_curve(
    name: str,
    method: Method,
    task: Task,
    clean: Prediction,
    attacks: Attacks,
    noise: Noise,
    workers: Workers = _ALONE,
) -> dict[str, Any]:
    """`examples`, and at each of `epsilons` `error` [%], `accuracy` [%], `entropy` [nats] and `entropy_auc`.

    All eps are attacked and judged together, so that weights are drawn once for all; with batch statistics, which they
    would share, one after another; masks of dropout, which each image has of its own, are those of the clean
    prediction at every eps. At 0 the clean prediction stands.
    """
    first = slice(0, min(attacks.examples[name], len(task.test)))
    images = Split(task.test.inputs[first], task.test.labels[first])
    positive = [epsilon for epsilon in attacks.epsilons if epsilon > 0]
    found = [_part(clean, first)] * (len(attacks.epsilons) - len(positive))
    for some in _together(method, positive):
        attacked = _attacked(name, method, task, images, some, attacks, noise, workers)
        found += _judged(method, attacked, noise, workers)
    measures = [measure(prediction, images.labels) for prediction in found]
    curve: dict[str, Any] = {name: [each[name] for each in measures] for name in _MEASURES}
    accuracy = [100 - error for error in curve["error"]]
    return {"examples": len(images), "epsilons": list(attacks.epsilons), "accuracy": accuracy, **curve}


def _together(method: Method, epsilons: list[float]) -> list[list[float]]:
    """Which of them may be evaluated in one go."""
    if method.network.normalisation.together is not None:
        return [[epsilon] for epsilon in epsilons]
    return [epsilons] if epsilons else []


def _attacked(
    name: str,
    method: Method,
    task: Task,
    images: Split,
    epsilons: list[float],
    attacks: Attacks,
    noise: Noise,
    workers: Workers,
) -> Tensor:
    """Images (E, N, ...) as the named attack leaves them."""
    if task.pixel_range is None:
        raise ValueError(f"{task.name} has no range of pixels that an attack could keep to")
    if name == "fgsm":
        noise = replace(noise, samples=range(attacks.fgsm_samples))
        return fgsm(method, images, epsilons, task.pixel_range, noise, workers)
    noise = replace(noise, samples=range(attacks.pgd_samples))
    steps, length = attacks.pgd_steps, attacks.pgd_step_per_epsilon
    return pgd(method, images, epsilons, task.pixel_range, noise, steps, length, workers)


def _judged(method: Method, attacked: Tensor, noise: Noise, workers: Workers) -> list[Prediction]:
    """Predictions for images (E, N, ...) at each eps; all in one go where an image's place changes nothing."""
    if method.noise_by_place:
        return [predict(method, images, noise, workers) for images in attacked]
    together, count = predict(method, attacked.flatten(0, 1), noise, workers), attacked.shape[1]
    return [_part(together, slice(start, start + count)) for start in range(0, len(attacked) * count, count)]


def _metrics(attacks: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {
        f"adversarial/{name}/{quantity}@{epsilon:g}": value
        for name, curve in attacks.items()
        for quantity in _MEASURES
        for epsilon, value in zip(curve["epsilons"], curve[quantity], strict=True)
    }


def _part(prediction: Prediction, places: slice) -> Prediction:
    return Prediction(prediction.probabilities[places], prediction.expected_entropy[places])
