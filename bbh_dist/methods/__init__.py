"""Approximate posteriors, one file each."""

import torch

from bbh_dist.config import MapMethod, MethodConfig, MnfMethod
from bbh_dist.methods.bbh import BayesByHypernet
from bbh_dist.methods.map import MAP
from bbh_dist.methods.method import Method
from bbh_dist.methods.mnf import MultiplicativeNormalizingFlows
from bbh_dist.networks import Network
from bbh_dist.sharding import ALONE, Shards

__all__ = ["MAP", "BayesByHypernet", "Method", "MultiplicativeNormalizingFlows", "build_method"]


def build_method(config: MethodConfig, network: Network, generator: torch.Generator, shards: Shards = ALONE) -> Method:
    """The method that an experiment names, or a shard of it; `generator` decides its initial parameters."""
    if isinstance(config, MapMethod):
        return MAP(config, network, generator, shards)
    if isinstance(config, MnfMethod):
        return MultiplicativeNormalizingFlows(config, network, generator, shards)
    return BayesByHypernet(config, network, generator, shards)
