"""Ray is shut down while other threads go on, of which one leaves garbage that refers to Ray's objects."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = """
import gc, threading, time
from bbh_dist.cluster.session import cluster

class Cycle:
    def __init__(self, held): self.held, self.me = held, self

def litter():
    while held:
        Cycle(held.pop())
        others = [[] for _ in range(100)]  # so many containers that Python collects garbage all the time
        time.sleep(0.001)
        begun.set()

with cluster(None, False):
    import ray
    held, begun = [ray.put(number) for number in range(60_000)], threading.Event()
    threading.Thread(target=litter, daemon=True).start()
    begun.wait()
print("held", len(held) > 1_000, "collects", gc.isenabled())
"""


def test_garbage_of_other_threads_does_not_end_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "held True collects True\n"
