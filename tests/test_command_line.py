"""The front door: exit codes, one line per mistake, nothing started or written, --help with an example."""

import subprocess
import sys
from pathlib import Path

import pytest

from bbh_dist import benchmark, train, tune
from bbh_dist.command_line import RunFailed, run
from bbh_dist.config import load_space, to_yaml

sys.path.insert(0, str(Path(__file__).parent / "config"))
from broken_spaces import BROKEN

GOOD = """
base: {task: digits5, method: {name: map}, epochs: 1}
search: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}
objectives: [{metric: val/nll, direction: minimize}]
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBH_DATA", raising=False)
    # `keep_to` and `run` set these for a whole process, which here is the test run's.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)


def exit_code(main: object, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(main, arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize(("content", "fragments"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_space_is_one_line_and_exit_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, fragments: tuple[str, ...]
) -> None:
    (tmp_path / "space.yaml").write_bytes(content)
    assert exit_code(tune.main, "--space", "space.yaml") == 2
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    for fragment in fragments:
        assert fragment in errors
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def test_a_broken_space_is_refused_without_importing_ray_or_torch(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(GOOD.replace("epochs: 1", "epochs: 0"))
    script = (
        "import sys; from bbh_dist import tune\n"
        "try: tune.main(['--space', 'space.yaml'])\n"
        "except Exception as error: print(type(error).__name__, *(name in sys.modules for name in ('ray', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ConfigError", "False", "False"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "task=mnist", "--set", "network=lenet"], "notMNIST"),
        (["--set", "task=npz:nothing.npz"], "nothing.npz: no such file"),
        (["--set", "network=lenet"], "lenet needs images"),
        (["--set", "batch_size=5000"], "must be at most the 541 training examples"),
        (["--name", "../escape"], "--name: must be letters"),
        (["--resume"], "there is no run to resume"),
        (["--storage", "/proc/nowhere"], "--storage: cannot be written"),
        (["--tracking-uri", "http://127.0.0.1:9"], "--tracking-uri: the tracking store must answer"),
        (["--tracking-uri", "sqlite:////proc/nowhere/x.db"], "--tracking-uri: the tracking store must answer"),
        (["--json", "missing/out.json"], "--json: cannot be written"),
        (["--workers", "101"], "parallel.workers: must be at most batch_size, 100, got 101"),
        (["--trials", "0"], "--trials 0: trials: must be"),
        (["--seeds", "0"], "--seeds 0: final.seeds: must not be empty"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    (tmp_path / "space.yaml").write_text(GOOD)
    assert exit_code(tune.main, "--space", "space.yaml", *arguments) == 2
    errors = capfd.readouterr().err
    assert line in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--methods", "map,bhb"], '--methods: must be rows of the suite, of map, bbh, got "bhb" (did you mean bbh?)'),
        (["--seeds", "0"], "--seeds 0: seeds: must not be empty"),
        (["--quick"], "--quick: the suite has no quick setting"),
        (["--set", "network=lenet"], "rows.map.network: lenet needs images"),
        (["--set", "task=mnist", "--set", "network=lenet"], "notMNIST"),
        (["--workers", "101"], "parallel.workers: must be at most batch_size, 100, got 101"),
        (["--resume"], "there is no run to resume"),
        (["--json", "missing/out.json"], "--json: cannot be written"),
    ],
)
def test_a_suite_that_cannot_work_is_one_line_and_exit_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    (tmp_path / "suite.yaml").write_text(
        "base: {task: digits5}\nrows: {map: {method.name: map}, bbh: {method.name: bbh}}\n"
    )
    assert exit_code(benchmark.main, "--suite", "suite.yaml", *arguments) == 2
    errors = capfd.readouterr().err
    assert line in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "\0" * 300])
def test_a_damaged_record_is_one_line_and_left_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "space.yaml").write_text(GOOD)
    folder = tmp_path / "runs" / "space"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(load_space(tmp_path / "space.yaml", [], [])))
    (folder / "run.json").write_text(content)
    assert exit_code(tune.main, "--space", "space.yaml", "--resume") == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert str(folder / "run.json") in errors
    assert (folder / "run.json").read_text() == content


def test_a_password_in_a_uri_is_never_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.yaml").write_text(GOOD)
    assert exit_code(tune.main, "--space", "space.yaml", "--tracking-uri", "http://me:secret@127.0.0.1:9") == 2
    out, errors = capfd.readouterr()
    assert "secret" not in out + errors
    assert "me:***@127.0.0.1:9" in errors


@pytest.mark.parametrize("command", [tune.main, train.main, benchmark.main])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], command: object) -> None:
    assert exit_code(command, "--help") == 0
    assert "example:\n  python -m bbh_dist." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RunFailed("training diverged"), 1, "failed: training diverged"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("bug"), 1, "ZeroDivisionError: bug"),
    ],
)
def test_ends_have_their_codes(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str) -> None:
    def main(arguments: object) -> None:
        raise error

    assert exit_code(main) == code
    assert line in capsys.readouterr().err
