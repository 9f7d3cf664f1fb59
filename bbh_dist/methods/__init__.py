"""Approximate posteriors, one file each."""

from typing import Any

import torch

from bbh_dist.config import BbbMethod, BbhMethod, DropoutMethod, EnsembleMethod, MapMethod, MethodConfig, MnfMethod
from bbh_dist.methods.bbb import BayesByBackprop
from bbh_dist.methods.bbh import BayesByHypernet
from bbh_dist.methods.dropout import Dropout
from bbh_dist.methods.ensemble import Ensemble
from bbh_dist.methods.map import MAP
from bbh_dist.methods.method import Method
from bbh_dist.methods.mnf import MultiplicativeNormalizingFlows
from bbh_dist.networks import Network
from bbh_dist.sharding import ALONE, Shards

__all__ = [
    "MAP",
    "BayesByBackprop",
    "BayesByHypernet",
    "Dropout",
    "Ensemble",
    "Method",
    "MultiplicativeNormalizingFlows",
    "build_method",
]

_METHODS: dict[type[MethodConfig], Any] = {
    MapMethod: MAP,
    EnsembleMethod: Ensemble,
    DropoutMethod: Dropout,
    BbbMethod: BayesByBackprop,
    MnfMethod: MultiplicativeNormalizingFlows,
    BbhMethod: BayesByHypernet,
}


def build_method(config: MethodConfig, network: Network, generator: torch.Generator, shards: Shards = ALONE) -> Method:
    """The method that an experiment names, or a shard of it; `generator` decides its initial parameters."""
    method: Method = _METHODS[type(config)](config, network, generator, shards)
    return method
