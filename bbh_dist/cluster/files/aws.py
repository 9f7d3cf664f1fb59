"""Rules of AWS: where, which machines, how many, and what they have."""

import re
from collections.abc import Iterator
from typing import Any

from bbh_dist.cluster.files.document import ClusterFile
from bbh_dist.config.errors import Mistake, shown

PLACEHOLDER_IMAGE = "ami-0123456789abcdef0"
"""Of the file that comes with this project: images belong to a region and to a year."""
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")
_INSTANCE = re.compile(r"[a-z][a-z0-9-]*\.(?:nano|micro|small|medium|large|(?:[0-9]{1,2})?xlarge|metal(?:-[0-9]+xl)?)")
_IMAGE = re.compile(r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_WITH_GPU = re.compile(r"(?:g|p)[0-9]")
_TYPES = "available_node_types"


def mistakes(file: ClusterFile) -> Iterator[Mistake]:
    """What is wrong with the region, the node types and their numbers."""
    yield from _region(file)
    if not file.get("idle_timeout_minutes"):
        yield file.mistake(("idle_timeout_minutes",), "must be given and above 0: idle machines cost money")
    if not file.mapping(_TYPES):
        yield file.mistake((_TYPES,), "must have the node types: Ray's own are of Ubuntu 18.04, for which torch is not")
        return
    for name in file.mapping(_TYPES):
        yield from _machine(file, name)
        yield from _resources(file, name)
        yield from _counts(file, name)
    yield from _head(file)
    yield from _workers(file)


def images_to_choose(file: ClusterFile) -> list[str]:
    """Where the image still has to be chosen: `file:line`."""
    paths = [(_TYPES, name, "node_config", "ImageId") for name in file.mapping(_TYPES)]
    return [file.source.where(path) for path in paths if file.get(*path) == PLACEHOLDER_IMAGE]


def _region(file: ClusterFile) -> Iterator[Mistake]:
    region = file.get("provider", "region")
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        yield file.mistake(("provider", "region"), "must be a region of AWS, such as us-west-2", region)
        return
    for zone in str(file.get("provider", "availability_zone", default="")).split(","):
        if zone.strip() and not re.fullmatch(re.escape(region) + "[a-z]", zone.strip()):
            rule = f"must be zones of {region}, such as {region}a"
            yield file.mistake(("provider", "availability_zone"), rule, zone.strip())


def _machine(file: ClusterFile, name: str) -> Iterator[Mistake]:
    path = (_TYPES, name, "node_config")
    instance, image = file.get(*path, "InstanceType"), file.get(*path, "ImageId")
    if not isinstance(instance, str) or not _INSTANCE.fullmatch(instance):
        yield file.mistake((*path, "InstanceType"), "must be an instance type of AWS, such as g5.xlarge", instance)
    if not isinstance(image, str) or not _IMAGE.fullmatch(image):
        rule = "must be the ami-... of an image with Python 3.11 or later: Ray's own is of Ubuntu 18.04"
        yield file.mistake((*path, "ImageId"), rule, image)


def _resources(file: ClusterFile, name: str) -> Iterator[Mistake]:
    path = (_TYPES, name, "resources")
    resources, instance = file.mapping(*path), str(file.get(_TYPES, name, "node_config", "InstanceType"))
    if "CPU" not in resources:
        yield file.mistake(path, "must say how many CPUs are for training, such as {CPU: 4}; 0 for none")
    gpus = resources.get("GPU", 0)
    if _WITH_GPU.match(instance) and not gpus:
        yield file.mistake(path, f"must say how many GPUs {instance} has, such as {{CPU: 4, GPU: 1}}")
    if gpus and _INSTANCE.fullmatch(instance) and not _WITH_GPU.match(instance):
        yield file.mistake((*path, "GPU"), f"must be left out: an {instance} has no GPU", gpus)


def _counts(file: ClusterFile, name: str) -> Iterator[Mistake]:
    if name == file.get("head_node_type"):
        return
    path = (_TYPES, name)
    least, most = file.get(*path, "min_workers", default=0), file.get(*path, "max_workers")
    if most is None:
        yield file.mistake(path, "must have max_workers, or it may grow to that of the whole cluster")
    elif most < 1:
        yield file.mistake((*path, "max_workers"), "must be at least 1", most)
    if least < 0 or (most is not None and least > most):
        yield file.mistake((*path, "min_workers"), f"must be from 0 to max_workers, {shown(most)}", least)


def _head(file: ClusterFile) -> Iterator[Mistake]:
    head, known = file.get("head_node_type"), file.mapping(_TYPES)
    if head not in known:
        yield file.mistake(("head_node_type",), f"must be one of {', '.join(known)}", head)
        return
    path = (_TYPES, head)
    if file.get(*path, "max_workers", default=0) or file.get(*path, "min_workers", default=0):
        yield file.mistake(path, "must have no workers: there is one head")
    if file.get(*path, "node_config", "InstanceMarketOptions", "MarketType") == "spot":
        rule = "the head must be on-demand: with it the whole cluster would be taken away"
        yield file.mistake((*path, "node_config", "InstanceMarketOptions"), rule, "spot")


def _workers(file: ClusterFile) -> Iterator[Mistake]:
    """Numbers of the whole cluster."""
    head, most = file.get("head_node_type"), file.get("max_workers")
    types: dict[str, Any] = {name: kind for name, kind in file.mapping(_TYPES).items() if name != head}
    if not types:
        yield file.mistake((_TYPES,), "must have a node type beside the head's")
    if most is None or most < 1:
        yield file.mistake(("max_workers",), "must be given and at least 1, workers of all types together", most)
        return
    least = sum(kind.get("min_workers", 0) for kind in types.values())
    if least > most:
        yield file.mistake(("max_workers",), f"must be at least {least}, the sum of min_workers", most)
