"""Kills driver and workers of one study at random, resumes it each time, and checks what is there in the end.

    python tests/cluster/kill_study.py --seed 0 --driver-kills 20 --worker-kills 20 --trials 40

The study is a search on digits5 with trials that complete, are pruned, and diverge; they should take 5 to 20 seconds
each, by `--epochs`, so that no more than a few end between two kills. Prints a line per kill and exits with 1, and the
broken promise, as soon as one is broken: exactly `--trials` trials in true states, each number once, no trial that had
ended run again or changed, no run RUNNING in MLflow, every (metric, step) once, every complete trial with the values
of a training that nobody interrupted, no process left.
An interrupt is a Ctrl-C: SIGINT to the driver's whole process group; it ends with 130, and leaves runs KILLED.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import torch
from marked_processes import AGENTS, processes_of
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from bbh_dist.config import load_space, override
from bbh_dist.tasks import load_task
from bbh_dist.training import Trainer

SPACE = """
base:
  task: digits5
  network: mlp:16
  method: {name: map}
  optimizer: {name: sgd, lr: 0.01}
  epochs: {epochs}
  batch_size: 4
search:
  optimizer.lr: {loguniform: [0.005, 0.05]}
  method.prior_stddev: {choice: [0.3, 0.5, 1.0, 2.0, 1.0e-6]}     # the last one diverges
objectives: [{metric: val/nll, direction: minimize}]
scheduler: {name: asha, grace_epochs: {grace}, reduction_factor: 2}
final: {top: 1, seeds: [0, 1]}
"""
_TITLES = ("ray::OneWorkerTrial", "ray::ResourceTrainable")
"""Of the processes of trials' actors: the first while they wait, the second, a class that Tune makes, in an epoch."""
_PATIENCE_SECONDS = 600.0
_LONGEST_WAIT_SECONDS = 3.0
_SPREAD_OVER = 0.9
"""Of the trials, so that none of the kills finds a study that has ended."""


class Study:
    """The study as one sees it from outside: a command, its processes, its journal and its tracking store."""

    def __init__(self, folder: Path, trials: int, seed: int = 0, epochs: int = 60) -> None:
        self.folder, self.trials_asked, self.epochs = folder, trials, epochs
        space = SPACE.replace("{epochs}", str(epochs)).replace("{grace}", str(max(1, epochs // 3)))
        (folder / "space.yaml").write_text(space)
        self.temporary = Path(tempfile.mkdtemp(prefix="k-"))  # Ray's sockets need a short path
        self.store = f"sqlite:///{folder / 'mlflow.db'}"
        self.arguments = ["--space", "space.yaml", "--name", "killed", "--trials", str(trials), "--storage", "runs"]
        self.arguments += ["--tracking-uri", self.store, "--set", f"sampler.seed={seed}"]
        self.run_folder = folder / "runs" / "killed"
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: dict[int, FrozenTrial] = {}

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def start(self, *program: str) -> subprocess.Popen[bytes]:
        """A driver, that goes on with what there is; by another program that takes the same arguments."""
        resume = ["--resume"] if self.run_folder.exists() else []
        command = [sys.executable, *(program or ("-m", "bbh_dist.tune")), *self.arguments, *resume]
        with open(self.folder / "output.txt", "ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self.process

    def running(self) -> subprocess.Popen[bytes]:
        """The driver; one is started where there is none."""
        if self.process is None:
            return self.start()
        code = self.process.poll()
        if code == 0:
            raise SystemExit("the study was over before the last kill: give it more --trials")
        check(code is None, f"the driver ended by itself with {code}: {self.last_output()}")
        return self.process

    def is_done(self) -> bool:
        """Whether the driver has come to its end."""
        return self.process is not None and self.process.poll() == 0

    def last_output(self) -> str:
        """The last lines that drivers wrote."""
        return "\n".join((self.folder / "output.txt").read_text(errors="replace").splitlines()[-15:])

    def workers(self) -> list[int]:
        """Process ids of the actors in which trials run now."""
        processes = [] if self.process is None else family(self.process.pid)
        return [pid for pid, line in processes if any(title in line for title in _TITLES)]

    def processes(self, but: tuple[str, ...] = ()) -> list[int]:
        """All that drivers have started, orphans as well, but those whose titles begin with `but`."""
        return processes_of(self.temporary, but)

    def temporary_folders(self) -> list[Path]:
        """What drivers have left of their temporary folders."""
        return list(self.temporary.glob("bbh-*"))

    def trials(self) -> list[FrozenTrial]:
        """The trials as Optuna reads them back."""
        path = self.run_folder / "optuna.journal"
        if not path.exists() or not path.stat().st_size:
            return []
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        return [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]

    def count_ended(self) -> int:
        """How many trials have ended."""
        return sum(trial.state.is_finished() for trial in self.trials())

    def wait_for(self, ended: int) -> None:
        """Let the study run until so many trials have ended."""
        while self.count_ended() < ended:
            self.running()
            time.sleep(1)

    def note_ended(self) -> None:
        """Remember trials that have ended, and see that those of before are as they were."""
        now = {trial.number: trial for trial in self.trials() if trial.state.is_finished()}
        for number, trial in self.ended.items():
            check(now.get(number) == trial, f"trial {number} had ended and was changed: {trial} {now.get(number)}")
        self.ended = now

    def kill_driver(self) -> None:
        """SIGKILL the driver; everything that works for it has to go with it."""
        self.running().kill()
        self.has_ended(cleanly=False)

    def interrupt(self, number: signal.Signals = signal.SIGINT, *, all_processes: bool = True) -> None:
        """Ctrl-C, as a terminal sends it to all processes of the driver's group, or another signal.

        Trials wait, runs are KILLED, and there is nothing left to be cleaned up.
        """
        process = self.running()
        (os.killpg if all_processes else os.kill)(process.pid, number)
        code = self.has_ended()
        check(code == 130, f"an interrupted driver ended with {code}: {self.last_output()}")
        left = [run.info.run_name for run in runs(self.store)[1] if run.info.status == "RUNNING"]
        check(not left, f"an interrupt left runs RUNNING: {left}")
        left = [str(trial.number) for trial in self.trials() if trial.state.name == "RUNNING"]
        check(not left, f"an interrupt left trials RUNNING: {left}")
        check(not self.temporary_folders(), "an interrupt left temporary folders")

    def has_ended(self, *, cleanly: bool = True) -> int:
        """The driver's exit code; what it had started has gone, what had ended has not changed.

        Of a driver that did not end cleanly Ray's agents may be left: whoever resumes does not wait for them.
        """
        assert self.process is not None
        code = self.process.wait(_PATIENCE_SECONDS)
        self.process = None
        wait(lambda: not self.processes(but=() if cleanly else AGENTS), "processes are left")
        self.note_ended()
        return code

    def kill_worker(self, chance: random.Random) -> None:
        """SIGKILL a process in which a trial runs."""
        while True:
            wait(lambda: bool(self.running() and self.workers()), "no trial runs")
            time.sleep(chance.uniform(0, _LONGEST_WAIT_SECONDS))
            self.running()
            workers = self.workers()  # some trials may have ended meanwhile
            with contextlib.suppress(ProcessLookupError):
                if workers:
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    return


def check(holds: bool, promise: str) -> None:
    """End with what is broken, unless it holds."""
    if not holds:
        raise SystemExit(f"broken: {promise}")


def wait(until: Callable[[], bool], otherwise: str) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not until():
        check(time.monotonic() < deadline, otherwise)
        time.sleep(0.05)


def family(pid: int) -> list[tuple[int, str]]:
    """A process's descendants: their ids and command lines."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[tuple[int, str]]] = {}
    for line in listed.splitlines()[1:]:
        child, parent, arguments = line.split(None, 2)
        children.setdefault(int(parent), []).append((int(child), arguments))
    found, parents = [], [pid]
    while parents:
        more = children.get(parents.pop(), [])
        found += more
        parents += [child for child, _ in more]
    return found


def runs(store: str) -> tuple[MlflowClient, list[Run]]:
    """All runs of the tracking store."""
    client = MlflowClient(tracking_uri=store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, client.search_runs(experiments, max_results=5000)


def duplicates(client: MlflowClient, run: Run) -> Iterator[str]:
    """Metrics of a run that stand twice at a step."""
    for name in run.data.metrics:
        steps = Counter(point.step for point in client.get_metric_history(run.info.run_id, name))
        twice = [step for step, count in steps.items() if count > 1]
        if twice:
            yield f"{run.info.run_name}: {name} at {twice}"


def epochs_of(client: MlflowClient, run: Run) -> list[int]:
    """The epochs of which a run has metrics: all of these of every one, in order."""
    names = [name for name in run.data.metrics if name.startswith(("train/", "val/", "posterior/"))]
    steps = {name: [point.step for point in client.get_metric_history(run.info.run_id, name)] for name in names}
    reported = steps.get("val/nll", [])
    for name in names:
        check(steps[name] == reported, f"{run.info.run_name} has {name} of {steps[name]}, val/nll of {reported}")
    check(reported == list(range(1, len(reported) + 1)), f"{run.info.run_name} has epochs {reported}")
    return reported


def check_end(study: Study) -> str:
    """Hold the finished study to its promises; the counts of trials' states."""
    study.note_ended()
    trials = study.trials()
    check(
        [trial.number for trial in trials if "invalid" not in trial.user_attrs] == list(range(study.trials_asked)),
        f"not {study.trials_asked} trials, each number once: {[trial.number for trial in trials]}",
    )
    client, found = runs(study.store)
    by_name = Counter(run.info.run_name for run in found)
    names = {"study killed", *(f"trial-{trial.number}" for trial in trials)}
    finals = {name for name in by_name if name.startswith("final-")}
    check(set(by_name) == names | finals and len(finals) == 2, f"other runs in MLflow: {sorted(by_name)}")
    check(max(by_name.values()) == 1, f"several runs of a name: {by_name.most_common(3)}")
    twice = [text for run in found for text in duplicates(client, run)]
    check(not twice, f"a (metric, step) twice: {twice}")
    runs_by_name = {run.info.run_name: run for run in found}
    for trial in trials:
        check_trial(client, trial, runs_by_name[f"trial-{trial.number}"], study)
    for name in ("study killed", *finals):
        check(runs_by_name[name].info.status == "FINISHED", f"{name} is {runs_by_name[name].info.status} in MLflow")
    for name in finals:
        epochs = len(epochs_of(client, runs_by_name[name]))
        check(epochs == study.epochs, f"{name} has {epochs} epochs of {study.epochs}")
    values = Counter(str(trial.params) for trial in trials)
    check(max(values.values()) == 1, f"a proposal was repeated: {values.most_common(1)}")
    states = Counter(_end(trial) for trial in trials)
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _end(trial: FrozenTrial) -> str:
    if trial.state.name != "FAIL":
        return trial.state.name
    return "FAIL (diverged)" if "not finite" in trial.user_attrs.get("reason", "") else "FAIL (worker lost)"


def check_trial(client: MlflowClient, trial: FrozenTrial, run: Run, study: Study) -> None:
    """A trial's state is what happened, in Optuna and in MLflow."""
    name, state = f"trial {trial.number}", trial.state.name
    epochs_reported = len(epochs_of(client, run))
    check(state in ("COMPLETE", "PRUNED", "FAIL"), f"{name} is {state}")
    status = "FAILED" if state == "FAIL" else "FINISHED"
    check(run.info.status == status, f"{name} is {state}, its run {run.info.status}")
    check(run.data.tags.get("state") == state, f"{name} is {state}, its tag {run.data.tags.get('state')}")
    if state == "COMPLETE":
        check(epochs_reported == study.epochs, f"{name} is complete with {epochs_reported} epochs of {study.epochs}")
        check(run.data.metrics["val/nll"] == trial.values[0], f"{name} has another value in MLflow")
        reported = [point.value for point in client.get_metric_history(run.info.run_id, "val/nll")]
        alone = uninterrupted(study, trial)  # equal for one worker; two add in another order
        check(reported == pytest.approx(alone, rel=1e-6), f"{name} has {reported}, uninterrupted {alone}")
    if state == "PRUNED":
        check(0 < epochs_reported <= study.epochs, f"{name} is pruned after {epochs_reported} epochs")
    reason = trial.user_attrs.get("reason") or ""
    if state == "FAIL":  # it diverged, or its worker was killed more often than it is started again
        check("not finite" in reason or "died" in reason, f"{name} failed: {reason or 'without a reason'}")


def uninterrupted(study: Study, trial: FrozenTrial) -> list[float]:
    """The validation NLL after each epoch where the trial's experiment is trained in this process."""
    torch.set_num_threads(1)
    chosen = {key: float(value) for key, value in trial.params.items()}
    experiment = override(load_space(study.run_folder / "config.yaml").base, chosen)
    trainer = Trainer(experiment, load_task(experiment.task, study.folder))
    return [trainer.run_epoch()["val/nll"] for _ in range(experiment.epochs)]


def main() -> None:
    """Kill, resume, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"seed": 0, "driver-kills": 20, "worker-kills": 20, "interrupts": 0, "trials": 40, "epochs": 300}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and leave nothing
    kills = ["driver"] * given.driver_kills + ["worker"] * given.worker_kills + ["interrupt"] * given.interrupts
    folder = tempfile.TemporaryDirectory(prefix="kill-")
    with folder, Study(Path(folder.name), given.trials, given.seed, given.epochs) as study:
        kill_and_resume(study, kills, random.Random(given.seed))
        finish(study)
        print(f"whole after {len(kills)} kills: {check_end(study)}")


def kill_and_resume(study: Study, kills: list[str], chance: random.Random) -> None:
    """All kills in random order, spread over the study, at random moments."""
    chance.shuffle(kills)
    for number, kind in enumerate(kills):
        study.wait_for(ended=int(_SPREAD_OVER * study.trials_asked * number / len(kills)))
        if kind == "worker":
            study.kill_worker(chance)
        else:
            study.running()
            if chance.random() > 1 / 3:  # else while it starts
                wait(lambda: bool(study.running() and study.workers()), "no trial runs")
            elif kind == "interrupt":  # as soon as the driver has got to its work
                wait(lambda: bool(study.running() and (study.run_folder / "lease.json").exists()), "no driver works")
            time.sleep(chance.uniform(0, 2 * _LONGEST_WAIT_SECONDS))
            (study.interrupt if kind == "interrupt" else study.kill_driver)()
        print(f"[{number + 1}/{len(kills)}] {kind}, {study.count_ended()} trials have ended", flush=True)


def finish(study: Study) -> None:
    """Let the study come to its end."""
    process = study.running()
    wait(lambda: process.poll() is not None, "the study does not come to its end")
    check(study.is_done(), f"the driver ended with {process.returncode}: {study.last_output()}")
    wait(lambda: not study.processes(), "processes are left")
    check(not study.temporary_folders(), "temporary folders are left")


if __name__ == "__main__":
    main()
