"""Optuna's journal after a crash or on a damaged disk: what is lost is said, nothing is replaced in silence."""

import time
from pathlib import Path

import pytest

from bbh_dist.cluster.jobs import Outcome
from bbh_dist.cluster.journal import JOURNAL
from bbh_dist.cluster.optuna_study import OptunaJobs
from bbh_dist.config import ConfigError, Experiment, MapMethod, Objective, Parameter, Sampler, SearchSpace

SPACE = SearchSpace(
    base=Experiment(task="digits5", method=MapMethod(name="map")),
    search={"optimizer.lr": Parameter(loguniform=[1e-4, 1e-1])},
    objectives=[Objective(metric="val/nll", direction="minimize")],
    sampler=Sampler(name="random", seed=3),
    trials=4,
)


def ended(folder: Path, count: int) -> bytes:
    """A journal of a study of which some trials have ended."""
    jobs = OptunaJobs(SPACE, folder)
    for _ in range(count):
        jobs.ended(jobs.next_job(), Outcome("COMPLETE", {"epoch": 1, "val/nll": 0.5}, 1.0))
    return (folder / JOURNAL).read_bytes()


def refusal(folder: Path) -> str:
    before = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else None
    with pytest.raises(ConfigError) as caught:
        OptunaJobs(SPACE, folder, begun=True)
    after = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else None
    assert before == after
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_line_that_was_cut_off_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ended(tmp_path, 2)
    (tmp_path / JOURNAL).write_bytes(whole[:-7])  # the end of the record that told Optuna of the last trial
    jobs = OptunaJobs(SPACE, tmp_path, begun=True)
    assert "its last line was not written to the end and is left out" in capsys.readouterr().err
    assert jobs.remaining == 3
    assert jobs.next_job().number == 1
    jobs = OptunaJobs(SPACE, tmp_path, begun=True)  # what was written after it can be read
    assert (jobs.remaining, capsys.readouterr().err) == (3, "")


def test_a_damaged_line_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    lines = ended(tmp_path, 2).splitlines(keepends=True)
    for damage in (b"\x00\x00\xff\n", b"{\n", b"[1]\n"):
        (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:4], damage, *lines[5:]]))
        assert f"{JOURNAL}:5: is damaged: put a good copy of the file back" in refusal(tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"{}\n")
    assert "is no journal of Optuna's" in refusal(tmp_path)


def test_a_journal_that_is_gone_is_missed(tmp_path: Path) -> None:
    ended(tmp_path, 1)
    (tmp_path / JOURNAL).write_bytes(b"")
    assert "is missing or empty though the study has begun" in refusal(tmp_path)
    (tmp_path / JOURNAL).unlink()
    assert "is missing or empty though the study has begun" in refusal(tmp_path)


def test_another_studys_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ended(tmp_path / "a", 1)
    (tmp_path / "a").rename(tmp_path / "b")
    assert "must hold the study b and no other, got a" in refusal(tmp_path / "b")


def test_the_lock_of_a_killed_process_is_not_waited_for(tmp_path: Path) -> None:
    ended(tmp_path, 1)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(JOURNAL)
    started = time.monotonic()
    OptunaJobs(SPACE, tmp_path, begun=True).next_job()
    assert time.monotonic() - started < 25  # Optuna waits 30 s


def test_proposals_that_were_cut_off_are_not_proposed_again(tmp_path: Path) -> None:
    jobs = OptunaJobs(SPACE, tmp_path)
    cut_off = [jobs.next_job().params for _ in range(2)]  # and no trial had ended
    again = OptunaJobs(SPACE, tmp_path)
    proposed = [again.next_job().params for _ in range(4)]
    assert proposed[:2] == cut_off
    assert not [params for params in proposed[2:] if params in cut_off]
