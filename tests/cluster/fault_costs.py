"""What a fault costs in seconds: `python tests/cluster/fault_costs.py --repeats 3`, on an otherwise idle machine.

Prints medians, and the least and the most. Of runs of two workers: how much longer the command took than one to which
nothing happened, from start to end. Of a study of one-worker trials: how long it took until the processes in which
trials run stood again, or until nothing was left.
"""

import argparse
import functools
import os
import random
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
from training_processes import lose_driver, lose_node_command, lose_nothing, lose_worker


def of_two_workers(folder: Path, chance: random.Random) -> dict[str, float]:
    """What the death of a worker and that of the driver cost a run of two workers."""
    ways = {"whole": lose_nothing, "worker": functools.partial(lose_worker, chance=chance), "driver": lose_driver}
    took = {}
    for name, lose in ways.items():
        (folder / name).mkdir()  # each with a tracking store of its own, which takes seconds to make
        took[name] = seconds(functools.partial(lose, folder / name, "run"))
    return {
        "worker of two killed": took["worker"] - took["whole"],
        "driver of two workers killed, --resume at once": took["driver"] - took["whole"],
    }


def of_a_node(folder: Path, _: random.Random) -> dict[str, float]:
    """What the loss of one of three nodes costs a run of two workers on two of them."""
    took = {}
    for name, options in (("whole", ["--keep"]), ("lost", [])):
        (folder / name).mkdir()
        line = lose_node_command(folder / name, "2", *options)
        took[name] = seconds(functools.partial(subprocess.run, line, check=True, stdout=subprocess.DEVNULL))
    return {"node lost": took["lost"] - took["whole"]}


def of_a_study(folder: Path, _: random.Random) -> dict[str, float]:
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
        costs["driver of a study killed, until nothing that worked for it runs"] = seconds(study.kill_driver)
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
    with tempfile.TemporaryDirectory() as folder:
        lose_nothing(Path(folder), "warm-up")
    chance = random.Random(0)
    for repeat in range(repeats):
        for measure in (of_two_workers, of_a_node, of_a_study):
            with tempfile.TemporaryDirectory() as folder:
                for name, value in measure(Path(folder), chance).items():
                    found[name].append(value)
                    print(f"[{repeat + 1}/{repeats}] {name}: {value:.1f} s", file=sys.stderr, flush=True)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f}-{max(values):.1f})")


if __name__ == "__main__":
    main()
