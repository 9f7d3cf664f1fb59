"""An archive that is replaced while a run rests is told before anything is mixed."""

from pathlib import Path

import numpy as np
import pytest
from front_door import contents, exit_code

from bbh_dist.tasks import DataError
from bbh_dist.tasks.own_files import check_own_files, own_hashes

JOB = "task: 'npz:own.npz'\nmethod: {name: map}\nnetwork: mlp:5\nepochs: 1\nbatch_size: 9\n"


def archive(shift: float) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(30, 4)), random.normal(shift, 2, 30)
    np.savez("own.npz", x_train=x, y_train=y, x_test=x, y_test=y)


def test_a_run_goes_on_and_predicts_with_its_own_data_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    Path("job.yaml").write_text(JOB)
    archive(3.0)
    assert exit_code("train", "--name", "run") == 0
    np.savez("in.npz", x=np.zeros((2, 4)))
    predict = ("predict", "--run", "runs/run", "--input", "in.npz", "--output", "out.npz")
    assert exit_code(*predict, complete=False) == 0
    Path("out.npz").unlink()
    archive(30.0)
    before = contents(tmp_path)
    capfd.readouterr()
    for command in (("train", "--name", "run", "--resume"), predict):
        assert exit_code(*command, complete=command[0] == "train") == 2
        out, errors = capfd.readouterr()
        assert (out, errors.count("\n")) == ("", 1)
        assert "own.npz: was changed since the run began; put the old file back" in errors
    assert contents(tmp_path) == before
    archive(3.0)
    assert exit_code("train", "--name", "run", "--resume") == 0


def test_only_files_whose_hash_is_known_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(b"data")
    tasks = ["digits5", f"npz:{file}", f"npz:{file}"]
    hashes = own_hashes(tasks)
    assert list(hashes) == [f"npz:{file}"]
    check_own_files(tasks, hashes)
    file.unlink()
    check_own_files(tasks, {})
    with pytest.raises(DataError, match=r"a\.npz: cannot be read: No such file"):
        check_own_files(tasks, hashes)
