import atexit
import gc
from collections.abc import Iterator

import pytest
import torch

atexit.register(gc.freeze)  # the system takes it all: looking for garbage before takes four seconds


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: on a busy machine a second thread costs ten times what it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
