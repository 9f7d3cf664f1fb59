"""What a fault costs in seconds: `python tests/cluster/fault_costs.py --repeats 3`, on an otherwise idle machine.

Prints medians, and the least and the most. Of runs of two workers: how much longer the command took than one to which
nothing happened, from start to end. Of a study of one-worker trials: how long it took until trials were running again.
"""

import argparse
import functools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from kill_study import Study, wait
from training_processes import lose_driver, lose_nothing, lose_worker


def of_two_workers(folder: Path) -> dict[str, float]:
    """What the death of a worker and that of the driver cost a run of two workers."""
    whole, worker, driver = (
        seconds(functools.partial(lose, folder, lose.__name__)) for lose in (lose_nothing, lose_worker, lose_driver)
    )
    return {"worker of two killed": worker - whole, "driver of two workers killed, --resume at once": driver - whole}


def of_a_node(folder: Path) -> dict[str, float]:
    """What the loss of one of three nodes costs a run of two workers on two of them."""
    own = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    own += ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    script = str(Path(__file__).with_name("lose_node.py"))
    took = {}
    for lost in ("node", "nothing"):
        (folder / lost).mkdir()
        line = [*own, sys.executable, script, str(folder / lost), "2", lost]
        took[lost] = seconds(functools.partial(subprocess.run, line, check=True, capture_output=True))
    return {"node lost": took["node"] - took["nothing"]}


def of_a_study(folder: Path) -> dict[str, float]:
    """What deaths and an interrupt cost a study of one-worker trials."""
    costs = {}
    with Study(folder, trials=3, epochs=100_000) as study:
        study.start()
        wait(lambda: len(study.workers()) > 1, "no trials run")
        time.sleep(5)
        before = study.workers()
        costs["worker of a one-worker trial killed"] = seconds(
            lambda: os.kill(before[0], signal.SIGKILL), lambda: len(set(study.workers()) - {before[0]}) == len(before)
        )
        costs["driver of a study killed, until nothing of it runs"] = seconds(study.kill_driver)
        costs["--resume, until trials run"] = seconds(study.start, lambda: len(study.workers()) > 1)
        time.sleep(5)
        costs["Ctrl-C, until all has ended"] = seconds(study.interrupt)
    return costs


def seconds(act: Callable[[], object], until: Callable[[], bool] = lambda: True) -> float:
    """From an act to what follows, or to its end."""
    started = time.monotonic()
    act()
    wait(until, "it does not come true")
    return time.monotonic() - started


def main() -> None:
    """Measure all and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    repeats = parser.parse_args().repeats
    found: defaultdict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats):
        for measure in (of_two_workers, of_a_node, of_a_study):
            with tempfile.TemporaryDirectory() as folder:
                for name, value in measure(Path(folder)).items():
                    found[name].append(value)
                    print(f"[{repeat + 1}/{repeats}] {name}: {value:.1f} s", file=sys.stderr, flush=True)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f}-{max(values):.1f})")


if __name__ == "__main__":
    main()
