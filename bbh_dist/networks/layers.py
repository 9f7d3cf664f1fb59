"""What a layer is, apart from where its weights come from: shapes, fan-in and names.

Legend of shapes: S weight samples, B batch, I inputs, O outputs, C channels, H height, W width, K kernel side.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One weight tensor of a network; its first axis counts the output units."""

    name: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def is_kernel(self) -> bool:
        """Whether it multiplies inputs; a bias is added."""
        return len(self.shape) > 1

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def scale(self) -> float:
        """Standard deviation at which a weight starts: He's sqrt(2 / fan_in) for kernels, 1/sqrt(fan_in) for biases.

        Source: He et al. 2015, equation 10, for ReLU networks.
        """
        return math.sqrt((2.0 if self.is_kernel else 1.0) / self.fan_in)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: (O, I) kernel and (O,) bias."""

    inputs: int
    outputs: int

    def tensors(self, name: str) -> list[TensorSpec]:
        """The layer's weight tensors, kernel first."""
        return [
            TensorSpec(f"{name}.weight", (self.outputs, self.inputs), self.inputs),
            TensorSpec(f"{name}.bias", (self.outputs,), self.inputs),
        ]


@dataclass(frozen=True)
class Conv2d:
    """A square convolution, `padding` zeros on every side: (O, C, K, K) kernel and (O,) bias, if it has one."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True

    def tensors(self, name: str) -> list[TensorSpec]:
        """The layer's weight tensors, kernel first."""
        fan_in = self.inputs * self.kernel**2
        kernel = TensorSpec(f"{name}.weight", (self.outputs, self.inputs, self.kernel, self.kernel), fan_in)
        return [kernel, TensorSpec(f"{name}.bias", (self.outputs,), fan_in)] if self.bias else [kernel]


LayerSpec = Dense | Conv2d
