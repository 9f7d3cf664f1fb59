"""Work shared by several workers: who holds which rows and evaluates which samples, and what travels between them."""

from bbh_dist.sharding.batch import batch_total
from bbh_dist.sharding.group import Group
from bbh_dist.sharding.parts import SampleShare, part
from bbh_dist.sharding.shards import ALONE, PendingWeights, Shards
from bbh_dist.sharding.workers import Workers

__all__ = ["ALONE", "Group", "PendingWeights", "SampleShare", "Shards", "Workers", "batch_total", "part"]
