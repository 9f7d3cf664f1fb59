"""Bad input: one line, exit 2, nothing started, nothing written; whatever the command and the mistake."""

import sys
from pathlib import Path

import pytest
from front_door import COMMANDS, FILES, contents, exit_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LONG = "x" * 5_000
BAD_PATHS = {
    "5 kB": (LONG, "at most 4095 bytes, each name in it at most 255"),
    "deep": ("a/" * 3_000, "at most 4095 bytes"),
    "empty": ("", "must not be empty"),
    "control characters": ("x\x1b[31m", "must be printable text"),
    "NUL": ("x\0y", "must be printable text"),
    "right to left": ("x\u202egnp", "must be printable text"),
    "no UTF-8": ("x\udcff", "must be printable text"),
}
PATH_OPTIONS = {
    "tune": ("--space", "--storage", "--data", "--json"),
    "train": ("--job", "--storage", "--data", "--json"),
    "benchmark": ("--suite", "--storage", "--data", "--json"),
    "plan": ("--job", "--data", "--json"),
    "speed": ("--figure", "--json"),
    "export": ("--run", "--output"),
    "predict": ("--run", "--input", "--output", "--data", "--storage"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a file for every command, in which the test is."""
    monkeypatch.chdir(tmp_path)
    for name in ("BBH_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def promises_any_memory() -> bool:
    """Whether Linux lets an allocation pass that cannot be kept."""
    setting = Path("/proc/sys/vm/overcommit_memory")
    return setting.exists() and setting.read_text().strip() == "1"


def refused(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str, *arguments: str, complete: bool = True
) -> str:
    """The one line in which a command refuses its arguments."""
    before = contents(folder)
    assert exit_code(command, *arguments, complete=complete) == 2
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    assert errors.rstrip("\n").isprintable()
    assert len(errors) < 600
    assert contents(folder) == before
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    return errors


@pytest.mark.parametrize("kind", BAD_PATHS)
@pytest.mark.parametrize(
    ("command", "option"), [(name, flag) for name, flags in PATH_OPTIONS.items() for flag in flags]
)
def test_a_path_that_can_be_none(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str, option: str, kind: str
) -> None:
    text, rule = BAD_PATHS[kind]
    line = refused(folder, capfd, command, option, text)
    assert line.startswith(f"{option}: ")
    assert rule in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "complete", "rule"),
    [
        ([], False, "required"),
        (["--wibble"], True, "unrecognized arguments: --wibble"),
        (["--json"], True, ""),
        ([f"--{LONG}"], True, "unrecognized arguments"),
    ],
)
def test_a_command_line_that_is_none(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    complete: bool,
    rule: str,
) -> None:
    line = refused(folder, capfd, command, *arguments, complete=complete)
    assert rule in line
    assert f"see python -m bbh_dist.{command}" in line


@pytest.mark.parametrize(
    ("command", "arguments", "rule"),
    [
        ("train", ["--seed", "x"], "--seed: invalid int value"),
        ("train", ["--seed", "-1"], "seed: must be greater than or equal to 0"),
        ("train", ["--seed", "9" * 30], "seed: must be less than"),
        ("train", ["--workers", "0"], "parallel.workers: must be greater than or equal to 1"),
        ("train", ["--workers", "100"], "a run needs 100 workers"),
        ("train", ["--workers", "8", "--set", "parallel.use_gpu=true"], "a run needs 8 workers"),
        ("train", ["--workers", "2", "--address", "127.0.0.1:9"], "--address: no Ray cluster answers"),
        ("train", ["--workers", "2", "--address", "ray://x:1"], "--address: must be auto or HOST:PORT"),
        ("train", ["--workers", "2", "--address", ""], "--address: must be auto or HOST:PORT"),
        ("train", ["--workers", "2", "--address", "head:\u00b2"], "--address: must be auto or HOST:PORT"),
        ("train", ["--workers", "2", "--address", "head..local:6379"], "--address: no Ray cluster answers"),
        ("train", ["--set", "parallel.cpus_per_worker=4000"], "a run needs 1 workers x 4000 CPUs"),
        ("train", ["--set", "parallel.cpus_per_worker=9999999"], "cpus_per_worker: must be less than or equal to 4096"),
        ("train", ["--set", f"task=npz:{LONG}"], "task: the file must have at most 4095 bytes"),
        ("train", ["--set", "epochs=!!python/object/apply:os.system [id]"], "tags are not supported"),
        ("train", ["--set", "__class__=1"], "__class__: unknown key"),
        ("train", ["--set", "task=npz:/dev/zero"], "not a file"),
        ("train", ["--json", "job.yaml"], "--json: stands already and holds no results"),
        ("tune", ["--seeds", "99999999999"], "--seeds: must be at most 1000"),
        ("tune", ["--trials", "9" * 30], "trials: must be less than"),
        ("benchmark", ["--seeds", "99999999999"], "--seeds: must be at most 1000"),
        ("benchmark", ["--methods", ""], "--methods: must be rows of the suite"),
        ("benchmark", ["--set", "settings.map=/dev/zero"], "must be at most 1000000 bytes"),
        ("plan", ["--input", "999999x999999x999999", "--classes", "3"], "--input: must be at most 3 sizes"),
        ("plan", ["--input", "1x" * 2_000 + "1", "--classes", "3"], "--input: must be at most 3 sizes"),
        ("plan", ["--input", "9", "--classes", "9" * 20], "--classes: must be from 2 to 1000000"),
        ("plan", ["--device"], "--device: expected at least one argument"),
        ("plan", ["--json", "space.yaml"], "--json: stands already and holds no results"),
        ("plan", ["--set", "method={name: bbh, generator: {hidden: [4611686018427387904]}}"], "equal to 1000000"),
        ("plan", ["--set", "method={name: bbh, discriminator: {hidden: [1000001]}}"], "equal to 1000000"),
        ("speed", ["--figure", "job.yaml"], "--figure: must end in .png"),
        ("speed", ["--figure", "x.pdf"], "--figure: must end in .png"),
        ("speed", ["--figure", "x.svg"], "--figure: must end in .png"),
        ("speed", ["--threads", "0"], "--threads: must be from 1"),
        ("speed", ["--hidden", "123456789012"], "--hidden: must be numbers from 1 to 65536"),
        ("speed", ["--hidden", "9" * 5_000], "--hidden: must be numbers from 1 to 65536"),
        ("tracking", [], "run/run.json: cannot be read"),
        ("export", ["--output", "job.yaml"], "--run: no such folder"),
        ("predict", ["--output", "job.yaml"], "--output: stands already"),
        ("predict", ["--samples", "0"], "--samples: must be from 1"),
        ("predict", [], "--run: no such folder, and no id of a run"),
    ],
)
def test_a_value_that_cannot_be(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str, arguments: list[str], rule: str
) -> None:
    assert rule in refused(folder, capfd, command, *arguments)


@pytest.mark.parametrize(
    ("command", "arguments"), [("tune", []), ("benchmark", []), ("train", ["--workers", "2", "--set", "batch_size=2"])]
)
def test_temporary_files_where_all_may_write(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
) -> None:
    """Ray pickles there."""
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    line = refused(folder, capfd, command, *arguments)
    assert line.startswith(f"TMPDIR: must not be writable by all: chmod o-w {shared}")


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> bytes:
    """A file that cannot be one: any bytes, or a good one with bytes in the middle that no YAML has."""
    raw, start = text.encode(), draw(st.integers(0, len(text)))
    inside = (
        raw[:start] + draw(st.sampled_from([b"\0", b"\xff", b"\t: [", b"\x1b[31m", b"!!python/name:os "])) + raw[start:]
    )
    return draw(st.binary(max_size=100) | st.just(inside))


@pytest.mark.parametrize(
    ("command", "file"), [("train", "job.yaml"), ("tune", "space.yaml"), ("benchmark", "suite.yaml")]
)
@given(data=st.data())
@settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_file_that_is_none(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str, file: str, data: st.DataObject
) -> None:
    (folder / file).write_bytes(data.draw(spoiled(FILES[file])))
    before = contents(folder)
    assert exit_code(command) == 2
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors
    assert all(line.isprintable() for line in errors.splitlines())
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("", "must not be empty"),
        ("sqlite://", "must be sqlite:///FILE"),
        ("sqlite:///", "must be sqlite:///FILE"),
        ("sqlite+pysqlite:///x.db", "must be sqlite:///FILE"),
        ("sqlite:///.", "must name a file, not a folder"),
        (f"sqlite:///{LONG}", "at most 4095 bytes"),
        ("sqlite:///x\x1b[31m.db", "must be printable text"),
        ("sqlite:///job.yaml", "file is not a database"),
        ("http://", "must name a host"),
        ("http://[::1", "must have a host and a port"),
        ("http://127.0.0.1:99999", "must have a host and a port"),
        ("postgresql://me:hidden", "must have a host and a port"),
        ("postgresql://me:hid@den@127.0.0.1/x", "must have %40 for an @"),
        ("postgresql://me:hid/den@127.0.0.1/x", "must have a host and a port"),
        ("postgresql://me:hidden@127.0.0.1:9/x", "no database answers there"),
        ("postgresql://me:hid den@127.0.0.1/x", "must have %20 for a space"),
        ("http://me:hid den@127.0.0.1:9", "must have %20 for a space"),
        ("postgresql://me:hid\tden@127.0.0.1/x", "must be printable text"),
        ("postgresql://127.0.0.1:9/x?user=me&password=hidden", "no database answers there"),
    ],
)
def test_a_tracking_store_that_is_none(folder: Path, capfd: pytest.CaptureFixture[str], uri: str, rule: str) -> None:
    """SQLAlchemy would try for two minutes, and print every password that it cannot read."""
    line = refused(folder, capfd, "train", "--tracking-uri", uri)
    assert line.startswith("--tracking-uri: ")
    assert rule in line
    assert not any(part in line for part in ("hidden", "hid@", "hid/", "den@"))


def test_a_tracking_store_of_the_environment_that_is_none(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hidden@127.0.0.1:9/x")
    line = refused(folder, capfd, "train")
    assert line.startswith("MLFLOW_TRACKING_URI: no database answers there")
    assert "hidden" not in line


def test_a_data_folder_of_the_environment_that_is_none(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBH_DATA", LONG)
    assert refused(folder, capfd, "train").startswith("BBH_DATA: must have at most 4095 bytes")


@pytest.mark.skipif(promises_any_memory(), reason="this kernel promises any memory that is asked for")
def test_what_does_not_fit_in_memory_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """4 TB for the weights between two layers."""
    assert exit_code("train", "--set", "network=mlp:999999-999999") == 1
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("failed: not enough memory: ")


def test_artifacts_cannot_leave_their_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stem of `...yaml` is `..`, and names experiment and artifacts."""
    work = folder / "work"
    monkeypatch.setenv("MPLCONFIGDIR", str(work / "runs"))
    work.mkdir()
    (work / "...yaml").write_text(FILES["job.yaml"])
    monkeypatch.chdir(work)
    assert exit_code("train", "--job", "...yaml", complete=False) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "work"])
    assert sorted(path.name for path in work.iterdir()) == ["...yaml", "mlartifacts", "mlflow.db", "runs"]
    assert [path.name for path in (work / "mlartifacts").iterdir()] == ["run"]
    assert len(list((work / "mlartifacts" / "run").glob("*/artifacts"))) == 1
