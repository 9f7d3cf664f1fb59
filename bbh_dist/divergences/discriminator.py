"""KL(q || p) by a network that tells weights of q from weights of p (adversarial variational Bayes).

The best such network's logit is log q(w) / p(w), and its mean over q the divergence. As in the paper one network sees
the value of one weight at a time, whichever it is, so at its best it gives D KL(q_mean || p) of the mean q_mean of the
D marginals: at most the sum of their divergences, and equal to it where all are alike.
Source: Mescheder, Nowozin & Geiger 2017, equations 3.3 and 3.7; Pawlowski et al. 2017.
Legend: S weight samples, D weights, n of them chosen.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEAK = 0.1
_GAIN = math.sqrt(2 / (1 + _LEAK**2))
_DECAYS, _EPSILON = (0.9, 0.999), 1e-8


def _itself(tensor: Tensor) -> Tensor:
    return tensor


class Discriminator(nn.Module):
    """Leaky-ReLU layers from a weight, in units of the prior's standard deviation, to a logit, and their Adam.

    Parameters, one after another in `flat`, and moments are buffers: the optimiser of the posterior's parameters does
    not see them, and checkpoints have them as a part of the method. Start: He's for leaky ReLU.
    """

    flat: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor

    def __init__(
        self, hidden: Sequence[int], prior_stddev: float, lr: float, gradient_clip: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.prior_stddev, self.lr, self.gradient_clip = prior_stddev, lr, gradient_clip
        self.shapes = list(itertools.pairwise((1, *hidden, 1)))
        parts = []
        for inputs, outputs in self.shapes:
            kernel = torch.randn(outputs * inputs, generator=generator) * (_GAIN / math.sqrt(inputs))
            parts += [kernel, torch.zeros(outputs)]
        start = torch.cat(parts)
        self.register_buffer("flat", start)
        self.register_buffer("first_moment", torch.zeros_like(start))
        self.register_buffer("second_moment", torch.zeros_like(start))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, weights: Tensor) -> Tensor:
        """Logits, estimates of log q(w) / p(w) in nats, of weights of any shape; a gradient for the weights alone."""
        return self._logits(weights, self.flat)

    def fit(
        self, posterior: Tensor, prior: Tensor, counts: tuple[int, int], whole: Callable[[Tensor], Tensor] = _itself
    ) -> None:
        """Take a step on weights of q and of p: of the mean cross-entropy of either, summed.

        `counts` says how many there are of each over all shards, and `whole` sums a tensor over them.
        """
        with torch.enable_grad():
            flat = self.flat.detach().requires_grad_()
            of_posterior = F.softplus(-self._logits(posterior.detach(), flat)).sum() / counts[0]
            of_prior = F.softplus(self._logits(prior, flat)).sum() / counts[1]
            (gradient,) = torch.autograd.grad(of_posterior + of_prior, flat)
        self._step(whole(gradient).clamp_(-self.gradient_clip, self.gradient_clip))

    def _logits(self, weights: Tensor, flat: Tensor) -> Tensor:
        sizes = [size for inputs, outputs in self.shapes for size in (outputs * inputs, outputs)]
        parts = flat.split(sizes)
        x = weights[..., None] / self.prior_stddev
        for index, (inputs, outputs) in enumerate(self.shapes):
            x = F.linear(x, parts[2 * index].view(outputs, inputs), parts[2 * index + 1])
            x = F.leaky_relu(x, _LEAK) if index < len(self.shapes) - 1 else x
        return x[..., 0]

    def _step(self, gradient: Tensor) -> None:
        """Adam (Kingma & Ba 2015, algorithm 1)."""
        self.steps += 1
        self.first_moment.lerp_(gradient, 1 - _DECAYS[0])
        self.second_moment.lerp_(gradient.square(), 1 - _DECAYS[1])
        mean, square = (
            moment / (1 - decay ** self.steps.to(moment.dtype))
            for moment, decay in zip((self.first_moment, self.second_moment), _DECAYS, strict=True)
        )
        self.flat -= self.lr * mean / (square.sqrt() + _EPSILON)


def pick(samples: Sequence[Tensor], parts: Sequence[range], sizes: Sequence[int], places: Tensor) -> Tensor:
    """(S, own n) of the weights at some places of all tensors, one after another, that lie in a shard's parts.

    Shapes: `samples` a list of (S, own part of D_t), `parts` says which, `sizes` are D_t; `places` (n,) on the CPU.
    """
    picked, end = [], 0
    for part_SD, part, size in zip(samples, parts, sizes, strict=True):
        start, end = end, end + size
        own = places[(places >= start + part.start) & (places < start + part.stop)] - (start + part.start)
        picked.append(part_SD.index_select(1, own.to(part_SD.device)))
    return torch.cat(picked, dim=1)
