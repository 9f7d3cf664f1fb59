"""A network written once over abstract layers, whatever gives the layers their weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from bbh_dist.networks.layers import LayerSpec, TensorSpec
from bbh_dist.networks.normalisation import GroupNormalisation, Normalisation

Layer = Callable[[str, Tensor], Tensor]
"""`layer(name, x)`: the named layer applied to activations with the sample axis first."""


class Network(ABC):
    """A function from inputs to logits that asks for its layers by name.

    `layers` names them in order. Calling it with x of shape (S or 1, B, ...) gives logits (S, B, C):
    an input that all weight samples share has a sample axis of 1.
    """

    layers: dict[str, LayerSpec]
    dropped: tuple[str, ...]
    """The layers whose inputs dropout acts on."""
    normalisation: Normalisation = GroupNormalisation()
    """Between layers, where the network has it."""

    @abstractmethod
    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of inputs (S or 1, B, ...)."""

    @property
    def tensors(self) -> list[TensorSpec]:
        """All weight tensors, in the order of the layers."""
        return [tensor for name, layer in self.layers.items() for tensor in layer.tensors(name)]

    @property
    def size(self) -> int:
        """Number of weights and biases, D."""
        return sum(tensor.size for tensor in self.tensors)


def check_images(name: str, input_shape: Sequence[int], smallest_side: int) -> None:
    """See that a network gets images that are large enough for it.

    Raises:
        ValueError: inputs are not images (channels, height, width) with sides of at least `smallest_side`.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest_side:
        raise ValueError(
            f"{name} needs images (channels, height, width) of at least {smallest_side} x {smallest_side}, "
            f"got {tuple(input_shape)}"
        )
