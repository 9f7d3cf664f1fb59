"""The study's record: every trial in its true state, whatever happened; the seed decides what is proposed."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bbh_dist.cluster.jobs import Outcome
from bbh_dist.cluster.optuna_study import OptunaJobs
from bbh_dist.cluster.run import build_scheduler
from bbh_dist.config import Experiment, MapMethod, Objective, Parameter, Sampler, Scheduler, SearchSpace

SEARCH = {
    "optimizer.lr": Parameter(loguniform=[1e-4, 1e-1]),
    "batch_size": Parameter(logint=[8, 64]),
    "optimizer.name": Parameter(choice=["adam", "sgd"]),
    "optimizer.gradient_clip": Parameter(float=[0.5, 2.0], when={"optimizer.name": "sgd"}),
    "network": Parameter(choice=["mlp:16", "mlp:32-16"]),
}
OBJECTIVES = [
    Objective(metric="val/nll", direction="minimize"),
    Objective(metric="val/outlier_auroc", direction="maximize"),
]


def space(**changes: object) -> SearchSpace:
    base = Experiment(task="digits5", method=MapMethod(name="map"), epochs=9)
    fields = {"base": base, "search": SEARCH, "objectives": OBJECTIVES, "trials": 12, **changes}
    return SearchSpace.model_construct(**{**{n: f.default for n, f in SearchSpace.model_fields.items()}, **fields})


def complete(nll: float, auroc: float) -> Outcome:
    return Outcome("COMPLETE", {"epoch": 9, "val/nll": nll, "val/outlier_auroc": auroc}, seconds=1.0)


def run(jobs: OptunaJobs, count: int) -> list[dict]:
    """Proposals answered by a smooth function of the learning rate."""
    proposed = []
    for _ in range(count):
        job = jobs.next_job()
        proposed.append(job.params)
        rate = job.params["optimizer.lr"]
        jobs.ended(job, complete(abs(rate - 0.01), 1 - rate))
    return proposed


def test_states_are_what_happened(tmp_path: Path) -> None:
    jobs = OptunaJobs(space(), tmp_path)
    outcomes = [
        complete(0.3, 0.8),
        Outcome("PRUNED", {"epoch": 5}, 1.0),
        Outcome("FAIL", {}, 1.0, reason="loss is nan"),
    ]
    asked = [jobs.next_job() for _ in range(4)]
    for job, outcome in zip(asked, outcomes, strict=False):
        jobs.ended(job, outcome)
    states = [trial.state for trial in jobs.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert jobs.study.trials[0].values == [0.3, 0.8]
    assert jobs.study.trials[1].values is None
    assert jobs.study.trials[2].user_attrs["reason"] == "loss is nan"
    assert jobs.remaining == 9
    assert [row.state for row in jobs.rows()] == ["COMPLETE", "PRUNED", "FAIL"]


@pytest.mark.parametrize("politely", [True, False])
def test_a_trial_that_was_cut_off_is_run_again_under_its_number(tmp_path: Path, politely: bool) -> None:
    jobs = OptunaJobs(space(), tmp_path)
    run(jobs, 2)
    cut_off = jobs.next_job()
    if politely:
        jobs.interrupt()
        assert jobs.study.trials[2].state == TrialState.WAITING
    again = OptunaJobs(space(), tmp_path)
    assert again.study.trials[2].state == TrialState.WAITING
    job = again.next_job()
    assert (job.number, job.params, job.experiment) == (cut_off.number, cut_off.params, cut_off.experiment)
    again.ended(job, complete(0.1, 0.9))
    assert again.next_job().number == 3
    assert again.remaining == 9


def test_a_finished_study_has_nothing_left(tmp_path: Path) -> None:
    run(OptunaJobs(space(trials=3), tmp_path), 3)
    assert OptunaJobs(space(trials=3), tmp_path).remaining == 0
    assert OptunaJobs(space(trials=5), tmp_path).remaining == 2


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_seed_decides_every_proposal(tmp_path: Path, sampler: str) -> None:
    def proposals(name: str, seed: int) -> list[dict]:
        (tmp_path / name).mkdir()
        chosen = Sampler(name=sampler, seed=seed, startup_trials=4)
        return run(OptunaJobs(space(sampler=chosen), tmp_path / name), 10)

    first = proposals("a", 3)
    assert proposals("b", 3) == first
    assert proposals("c", 4) != first


def test_a_resumed_search_does_not_repeat_its_proposals(tmp_path: Path) -> None:
    random = space(sampler=Sampler(name="random", seed=3))
    first = run(OptunaJobs(random, tmp_path), 4)
    second = run(OptunaJobs(random, tmp_path), 4)
    assert not [params for params in second if params in first]


def test_proposals_keep_to_the_space(tmp_path: Path) -> None:
    jobs = OptunaJobs(space(trials=40), tmp_path)
    for params in run(jobs, 40):
        assert 1e-4 <= params["optimizer.lr"] <= 1e-1
        assert 8 <= params["batch_size"] <= 64
        assert ("optimizer.gradient_clip" in params) == (params["optimizer.name"] == "sgd")
    for number in range(40):
        assert jobs.experiment(number).batch_size == jobs.study.trials[number].params["batch_size"]


def test_pruned_trials_do_not_stop_a_search_of_several_objectives(tmp_path: Path) -> None:
    jobs = OptunaJobs(space(trials=24, sampler=Sampler(startup_trials=4)), tmp_path)
    for index in range(24):
        job = jobs.next_job()
        jobs.ended(job, complete(0.1 * index, 0.5) if index % 3 else Outcome("PRUNED", {"epoch": 2}, 1.0))
    assert jobs.remaining == 0


def test_importances_name_what_matters(tmp_path: Path) -> None:
    jobs = OptunaJobs(space(trials=40, sampler=Sampler(name="random", seed=1)), tmp_path)
    assert jobs.importances() == {}
    run(jobs, 40)
    shares = jobs.importances()["val/outlier_auroc"]
    assert max(shares, key=lambda key: shares[key]) == "optimizer.lr"


def test_proposals_that_make_no_experiment_are_failed_trials(tmp_path: Path) -> None:
    base = Experiment.model_validate({"task": "digits5", "method": {"name": "bbh", "divergence": "knn"}})
    search = {"method.kl_samples": Parameter(choice=[1, 5])}
    jobs = OptunaJobs(space(base=base, search=search, sampler=Sampler(name="random", seed=0)), tmp_path)
    taken = [jobs.next_job() for _ in range(6)]
    assert all(job.experiment.method.kl_samples == 5 for job in taken)
    failed = [trial for trial in jobs.study.trials if trial.state == TrialState.FAIL]
    assert failed
    assert "must be at least 2 for the knn divergence" in failed[0].user_attrs["reason"]


@pytest.mark.parametrize("directions", [OBJECTIVES[:1], OBJECTIVES])
def test_a_choice_that_always_fails_is_left_alone(tmp_path: Path, directions: list[Objective]) -> None:
    """Of two choices one diverges whatever else is chosen. The study's record keeps such trials as failed."""
    jobs = OptunaJobs(space(objectives=directions, trials=60, sampler=Sampler(startup_trials=6, seed=1)), tmp_path)
    failed = []
    for _ in range(60):
        job = jobs.next_job()
        rate, fails = job.params["optimizer.lr"], job.params["network"] == "mlp:16"
        failed.append(fails)
        diverged = Outcome("FAIL", {"epoch": 1}, 1.0, reason="epoch 2: the loss is not finite")
        jobs.ended(job, diverged if fails else complete(abs(rate - 0.01), 1 - rate))
    assert [trial.state == TrialState.FAIL for trial in jobs.study.trials] == failed
    assert sum(failed[20:]) <= 10  # half of them is chance


class _Trial:
    """As much of a Tune trial as ASHA looks at."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def test_asha_stops_the_weak_on_replayed_learning_curves() -> None:
    """Grace 3, reduction 3: at epochs 3 and 9 a trial goes on if it is among the best third of those seen there."""
    asha = build_scheduler(space(scheduler=Scheduler(name="asha", grace_epochs=3, reduction_factor=3)))
    assert asha is not None
    curves = {"good": 0.1, "middling": 0.5, "bad": 0.9, "better": 0.05}
    stopped = {}
    for name, level in curves.items():
        trial = _Trial(name)
        asha.on_trial_add(None, trial)
        for epoch in range(1, 10):
            result = {"epoch": epoch, "training_iteration": epoch, "val/nll": level + 1 / epoch}
            if asha.on_trial_result(None, trial, result) == "STOP":
                stopped[name] = epoch
                break
    assert stopped == {"middling": 3, "bad": 3}


@pytest.mark.parametrize(("epochs", "grace", "factor"), [(30, 5, 3), (9, 1, 3), (2, 5, 2), (81, 3, 3), (7, 2, 4)])
def test_asha_says_where_it_decides(epochs: int, grace: int, factor: int) -> None:
    """At other epochs, whose reports may wait, it lets every trial go on."""
    base = space().base.model_copy(update={"epochs": epochs})
    asked = Scheduler(name="asha", grace_epochs=grace, reduction_factor=factor)
    asha = build_scheduler(space(base=base, scheduler=asked))
    assert asha is not None
    decisions = {}
    for level in (0.0, 1.0):  # the second is worse, and stopped wherever it is looked at
        trial = _Trial(f"level {level}")
        asha.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            decisions[epoch] = asha.on_trial_result(None, trial, {"epoch": epoch, "val/nll": level})
    assert [epoch for epoch, decision in decisions.items() if decision == "STOP"] == asha.rungs


def test_asha_goes_on_with_the_trials_of_before(tmp_path: Path) -> None:
    """A resumed study prunes what one that was not cut off would have pruned."""
    searched = space(scheduler=Scheduler(name="asha", grace_epochs=3, reduction_factor=3))
    begun = OptunaJobs(searched, tmp_path)
    for level in (0.1, 0.5):
        epochs = [{"epoch": epoch, "val/nll": level + 1 / epoch} for epoch in range(1, 10 if level < 0.5 else 4)]
        values = {"val/nll": epochs[-1]["val/nll"], "val/outlier_auroc": 0.5}
        begun.ended(begun.next_job(), Outcome("COMPLETE" if level < 0.5 else "PRUNED", values, 1.0, epochs=epochs))
    begun.next_job()  # cut off
    curves = OptunaJobs(searched, tmp_path, begun=True).curves()
    assert [sorted(curve) for curve in curves] == [list(range(1, 10)), [1, 2, 3]]
    for ended, decision in ((curves, "STOP"), ((), "CONTINUE")):
        asha, trial = build_scheduler(searched, ended), _Trial("weak")
        assert asha is not None
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, {"epoch": 3, "val/nll": 1.2}) == decision


def test_a_trial_that_was_cut_off_is_not_pruned_by_those_that_it_pruned(tmp_path: Path) -> None:
    searched = space(scheduler=Scheduler(name="asha", grace_epochs=3))
    begun = OptunaJobs(searched, tmp_path)
    epochs = [{"epoch": 3, "val/nll": 0.1}]
    begun.ended(begun.next_job(), Outcome("PRUNED", epochs[-1], 1.0, epochs=epochs))
    begun.next_job()  # cut off
    resumed = OptunaJobs(searched, tmp_path, begun=True)
    assert resumed.curves() == []
    resumed.ended(resumed.next_job(), complete(0.05, 0.5))
    assert resumed.curves() == [{3: 0.1}]


def test_asha_takes_the_direction_of_its_metric() -> None:
    down = build_scheduler(space(scheduler=Scheduler(name="asha")))
    up = build_scheduler(space(scheduler=Scheduler(name="asha", metric="val/outlier_auroc")))
    other = build_scheduler(space(scheduler=Scheduler(name="asha", metric="val/entropy_auc")))
    assert [scheduler._mode for scheduler in (down, up, other)] == ["min", "max", "max"]
    assert build_scheduler(space()) is None


def test_storage_is_optunas_own_journal(tmp_path: Path) -> None:
    run(OptunaJobs(space(), tmp_path), 2)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    )
    assert len(optuna.load_study(study_name=tmp_path.name, storage=storage).trials) == 2
