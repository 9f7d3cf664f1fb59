"""What operations cost by their shapes, as they are run; on the meta device nothing is computed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_EMPTY = {
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
    _aten.lift_fresh,
}
_POOLINGS = {_aten.max_pool2d_with_indices}
_CONVOLUTIONS = {_aten.convolution, _aten.convolution_backward}


@dataclass(frozen=True)
class Operation:
    """One call, or `calls` alike, of an operation; flops and bytes are of all of them."""

    kind: str
    """matmul, convolution, pooling, random, view, update, or other."""
    flops: int
    touched_bytes: int
    """Of inputs and results."""
    channels: int = 0
    """Of a convolution's input."""
    calls: int = 1
    name: str = ""


class Trace(TorchDispatchMode):
    """Operations run inside, and the memory of the tensors that they made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.live_bytes = self.peak_bytes = 0
        self.saved_bytes = 0
        """What autograd keeps of tensors made inside, at its largest."""
        self._made: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._narrow: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._saved: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    @property
    def flops(self) -> int:
        """Floating-point operations of matrix products and convolutions."""
        return sum(operation.flops for operation in self.operations)

    def __enter__(self) -> Self:
        super().__enter__()
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, traceback)
        super().__exit__(kind, error, traceback)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        packet = func.overloadpacket
        given = {id(tensor.untyped_storage()) for tensor in inputs}
        for output in outputs:
            if id(output.untyped_storage()) not in given:
                self._watch(output.untyped_storage())
        if packet is _aten._to_copy and inputs[0].dtype == torch.bfloat16:
            # Kernels widen numbers as they read them.
            self._narrow[outputs[0].untyped_storage()] = inputs[0].nbytes
        elif packet not in _EMPTY:
            self.operations.append(self._operation(func, args, kwargs, result, inputs, outputs))
        return result

    def _operation(
        self, func: Any, args: Any, kwargs: Any, result: Any, inputs: list[Tensor], outputs: list[Tensor]
    ) -> Operation:
        packet, name = func.overloadpacket, str(func)
        if func.is_view or packet in (_aten._unsafe_view, _aten.detach):
            return Operation("view", 0, 0, name=name)
        touched = sum(map(self._touched, inputs)) + sum(map(self._touched, outputs))
        if packet in _POOLINGS:
            return Operation("pooling", 0, inputs[0].nbytes, name=name)
        formula: Callable[..., int] | None = flop_registry.get(packet)
        if formula is None:
            return Operation("other", 0, touched, name=name)
        flops = int(formula(*args, **kwargs, out_val=result))
        if packet in _CONVOLUTIONS:
            images = inputs[1] if packet is _aten.convolution_backward else inputs[0]
            return Operation("convolution", flops, touched, channels=images.shape[1], name=name)
        return Operation("matmul", flops, touched, name=name)

    def _touched(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        return min(tensor.nbytes, self._narrow.get(storage, storage.nbytes()))

    def _watch(self, storage: Any) -> None:
        if storage in self._made:
            return
        size = storage.nbytes()
        self._made[storage] = size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live_bytes -= size

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage in self._made:
            self._saved[storage] = storage.nbytes()
            self.saved_bytes = max(self.saved_bytes, sum(self._saved.values()))
        return tensor


def _tensors(tree: Any) -> list[Tensor]:
    leaves: Iterable[Any] = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
