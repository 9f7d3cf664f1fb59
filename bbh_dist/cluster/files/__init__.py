"""Cluster files of `ray up`, and the rules that Ray lets pass: every mistake with its line."""

from bbh_dist.cluster.files.check import check_file
from bbh_dist.cluster.files.document import ClusterFile, read_file

__all__ = ["ClusterFile", "check_file", "read_file"]
