"""How long costs take on a machine."""

import math

from bbh_dist.costs.machine import Machine
from bbh_dist.costs.step import StepCosts
from bbh_dist.costs.trace import Operation


def predicted_seconds(costs: StepCosts, machine: Machine) -> float:
    """Time of a step: its operations one after another, then what goes over the wire."""
    operations = sum(_operation_seconds(operation, costs, machine) for operation in costs.operations)
    return operations + sum(costs.wire.values()) / machine.link_bandwidth


def _operation_seconds(operation: Operation, costs: StepCosts, machine: Machine) -> float:
    """The longest of what it computes, moves and draws, and what any operation takes."""
    calls = operation.calls
    touched = operation.touched_bytes // calls
    seconds = touched / machine.bytes_per_second(touched)
    if operation.flops:
        flops = operation.flops // calls
        rate = machine.flops_per_second(operation.kind, operation.channels, flops) * 4 / costs.element_bytes
        seconds = max(seconds, flops / rate)
    rate = {"random": machine.random_numbers, "pooling": machine.pooled_numbers}.get(operation.kind, math.inf)
    seconds = max(seconds, touched / costs.element_bytes / rate)
    return calls * (seconds + machine.operation_seconds)
