"""Adversarial images: FGSM and PGD against the loss averaged over weight samples, for every method.

An attack knows the posterior but not what will be drawn from it: its gradients are of weight samples of their own
(purpose "attack"), and its images are judged by the samples of the test measures. So a posterior is not credited with a
guess about its own noise, eps = 0 is the clean measure exactly, and for a point estimate or an ensemble, which have no
noise, the attack sees what it is judged by. Each step of PGD draws anew, so that it follows the expected loss and not
that of some samples (expectation over transformation, Athalye et al. 2018).

The loss is -log p(label) of each weight sample, averaged over samples: the mean of the gradients. The gradient of the
mean prediction's -log p would weigh each sample by the probability that it gives to the label.
Legend: N images, E values of eps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.evaluation.prediction import mean_over_samples
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Split

_ALONE = Workers()
PURPOSE = "attack"


def fgsm(
    method: Method,
    clean: Split,
    epsilons: Sequence[float],
    pixel_range: tuple[float, float],
    noise: Noise,
    workers: Workers = _ALONE,
) -> Tensor:
    """Images (E, N, ...) x + eps * sign(gradient of the loss), clipped to the pixel range; one gradient for all eps.

    Source: Goodfellow et al. 2015, equation in section 4.
    """
    gradient = loss_gradient(method, clean, replace(noise, purpose=PURPOSE), workers)
    steps = _per_image(epsilons, clean.inputs) * gradient.sign()
    return (clean.inputs + steps).clamp(*pixel_range)


def pgd(
    method: Method,
    clean: Split,
    epsilons: Sequence[float],
    pixel_range: tuple[float, float],
    noise: Noise,
    steps: int,
    step_per_epsilon: float,
    workers: Workers = _ALONE,
) -> Tensor:
    """Images (E, N, ...) after `steps` steps of eps * `step_per_epsilon` along the sign of the gradient.

    After each step they are projected to the ball |change| <= eps of every pixel and clipped to the pixel range. The
    first step starts from the image itself, and all eps go together, so that weights are drawn once for all.
    Source: Kurakin et al. 2017, equation 3; Madry et al. 2018, equation 3, without the random start.
    """
    size = _per_image(epsilons, clean.inputs)
    low = (clean.inputs - size).clamp_min(pixel_range[0])
    high = (clean.inputs + size).clamp_max(pixel_range[1])
    attacked = clean.inputs.expand_as(low)
    labels = clean.labels.repeat(len(epsilons))
    for step in range(steps):
        fresh = replace(noise, purpose=PURPOSE).after(step * len(noise), len(noise))
        gradient = loss_gradient(method, Split(attacked.flatten(0, 1), labels), fresh, workers)
        moved = attacked + step_per_epsilon * size * gradient.sign().view_as(attacked)
        attacked = torch.minimum(torch.maximum(moved, low), high)
    return attacked


def loss_gradient(method: Method, split: Split, noise: Noise, workers: Workers = _ALONE) -> Tensor:
    """(N, ...): gradient at each input of -log p(label) as a mean over weight samples, the same on every worker.

    No graph of the method's parameters is built, whatever generates the weights.
    """

    def summed(logits: Callable[[Tensor], Tensor], x: Tensor, places: range) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            # In double precision: where a network is sure, 1 - p(label) is rounded away in single.
            logits_SBC = logits(x).double()
            labels = split.labels[places.start : places.stop].repeat(len(logits_SBC))
            loss = F.cross_entropy(logits_SBC.flatten(0, 1), labels, reduction="sum")
        return torch.autograd.grad(loss, x)[0].double()

    with _frozen(method):
        return mean_over_samples(summed, method, split.inputs, noise, workers).to(split.inputs.dtype)


@contextmanager
def _frozen(method: Method) -> Iterator[None]:
    """No parameter asks for a gradient meanwhile: a forward pass then keeps only what the gradient of inputs needs."""
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _per_image(epsilons: Sequence[float], inputs: Tensor) -> Tensor:
    """(E, 1, ...): eps, to be multiplied with images (N, ...)."""
    return inputs.new_tensor(list(epsilons)).view(-1, *[1] * inputs.dim())
