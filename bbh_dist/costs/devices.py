"""Machines that are not at hand: GPUs by their data sheets."""

from functools import cache
from importlib.resources import files

import yaml

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.config.errors import nearest
from bbh_dist.costs.machine import Machine

CPU = "cpu"
_OPERATION_SECONDS = 1e-5
_OVERHEAD_BYTES = 1 << 30
"""Allowances, not measurements: to launch an operation from Python, and for the CUDA context, the libraries' work
space, and blocks of a head while it is swept."""


def device_names() -> list[str]:
    """Names of devices that can be planned for."""
    return [CPU, *_sheets()]


def check_device(name: str) -> None:
    """See that a device is known.

    Raises:
        ConfigError: it is not.
    """
    known = device_names()
    if name not in known:
        rule = f"must be one of {', '.join(known)}"
        raise ConfigError(Mistake("--device", rule, got=name, suggestion=nearest(name, known)))


def sheet_machine(name: str) -> Machine:
    """One GPU of a node, at the throughputs of its data sheet in float32, which is what training asks for."""
    sheet = _sheets()[name]
    return Machine(
        name=name,
        bandwidth=sheet["bandwidth"],
        matmul_flops=sheet["fp32_flops"],
        conv_flops=((1, sheet["fp32_flops"]),),
        operation_seconds=_OPERATION_SECONDS,
        link_bandwidth=sheet["link_bandwidth"],
        memory_bytes=int(sheet["memory_bytes"]),
        overhead_bytes=_OVERHEAD_BYTES,
    )


@cache
def _sheets() -> dict[str, dict[str, float]]:
    sheets: dict[str, dict[str, float]] = yaml.safe_load(files("bbh_dist.costs").joinpath("devices.yaml").read_text())
    return sheets
