"""Importing torchvision beside a torch build that its compiled operators do not match.

torchvision's wheels are CUDA builds. Beside a CPU build of torch their operator library is not loaded and the import
dies with "operator torchvision::nms does not exist", though datasets and transforms are pure Python. Declaring the two
schemas that the import looks for is enough.
"""

import importlib

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Import torchvision, declaring `nms` and `qnms` where exactly their absence makes the import fail.

    Torchmetrics imports torchvision too where it is installed: call this before it.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", _SCHEMA)
        importlib.import_module("torchvision")
