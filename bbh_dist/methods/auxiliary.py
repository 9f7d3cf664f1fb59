"""The auxiliary posterior r(z | w) of multiplicative normalizing flows (Louizos & Welling 2017, equations 12 to 16).

    log r(z | w) = log N(NF_r(z); b_1 t, exp(b_2 t)) + log |det NF_r|,   t = mean of tanh(c^T w)

c^T w is a sum over the units that have a multiplier, so the mean is over outputs (dense) or places in the filters
(convolution), whose tanh the authors' code leaves out. Given z it is Gaussian, and drawn as such.
Legend: S weight samples, K kernels, U units of one, R weights of a unit, Z units of all kernels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbh_dist.flows import Flows
from bbh_dist.methods.multipliers import Multiplied
from bbh_dist.noise import Noise

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


class AuxiliaryPosterior(nn.Module):
    """What is guessed of the multipliers of some kernels once their weights are seen."""

    def __init__(self, kernels: Sequence[Multiplied], flows: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kernels = kernels
        self.units = [kernel.units for kernel in kernels]
        self.weights_per_unit = [kernel.weights_per_unit for kernel in kernels]
        self.flows = Flows(self.units, flows, hidden, generator)
        self.c = nn.Parameter(torch.randn(sum(self.units), generator=generator))
        self.b = nn.Parameter(0.1 * torch.randn(2, sum(self.units), generator=generator))

    def log_density(self, z: Tensor, means: Sequence[Tensor], variances: Sequence[Tensor], noise: Noise) -> Tensor:
        """log r(z | w) (S,), nats, of multipliers (S, Z), each with a draw of w given it.

        Weights have for each kernel means z mu, of which mu (U, R) is given, and variances (U, R).
        """
        start, log_determinant = self.flows(z)
        told = self._told(z, means, variances, noise)
        of_units = torch.cat([t[:, None].expand(-1, units) for t, units in zip(told, self.units, strict=True)], 1)
        mean, log_variance = (self.b[:, None] * of_units).unbind()
        square = (start - mean).square() * torch.exp(-log_variance)
        return log_determinant - (0.5 * (square + log_variance) + LOG_ROOT_2PI).sum(1)

    def _told(self, z: Tensor, means: Sequence[Tensor], variances: Sequence[Tensor], noise: Noise) -> list[Tensor]:
        """t (S,) of each kernel."""
        weighted, squares = (self.c * z).split(self.units, 1), self.c.square().split(self.units)
        mean = torch.cat([part @ mu for part, mu in zip(weighted, means, strict=True)], 1)
        variance = torch.cat([part @ square for part, square in zip(squares, variances, strict=True)])
        eps = noise.normal("told", sum(self.weights_per_unit))
        bent = torch.tanh(torch.addcmul(mean, eps, variance.sqrt()))
        return [part.mean(1) for part in bent.split(self.weights_per_unit, 1)]
