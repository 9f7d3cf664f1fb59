"""Folders of runs: names stay inside, nothing is replaced in silence, one driver at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bbh_dist.config import ConfigError
from bbh_dist.storage import RunFolder, open_folder

BAD_NAMES = {
    "parent": "../x",
    "grandparent": "a/../../x",
    "dots": "..",
    "dot": ".",
    "hidden": ".x",
    "option": "-x",
    "absolute": "/tmp/x",
    "encoded": "..%2Fx",
    "backslash": "..\\x",
    "NUL": "x\0y",
    "newline": "x\n",
    "space": "a b",
    "5 kB": "x" * 5_000,
    "101 letters": "x" * 101,
    "right to left": "x\u202egnp.y",
    "other letters": "\u0661\u0662",
    "empty": "",
}


def message(*arguments: str | bool | None) -> str:
    with pytest.raises(ConfigError) as caught:
        open_folder(*arguments)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


def made(root: Path, name: str) -> RunFolder:
    folder, _ = open_folder(str(root), name, "stem", False)
    folder.create("epochs: 3\n", {"run_id": name})
    return folder


@pytest.mark.parametrize("kind", BAD_NAMES)
@pytest.mark.parametrize("resume", [False, True])
def test_a_name_that_is_no_plain_name_is_refused(tmp_path: Path, kind: str, resume: bool) -> None:
    assert message(str(tmp_path / "runs"), BAD_NAMES[kind], "stem", resume).startswith("--name: must be letters")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "a.b_c-D9", "9", "x" * 100, "a..b"])
def test_a_plain_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    folder, stands = open_folder(str(tmp_path), name, "stem", False)
    assert (folder.path, folder.name, stands) == (tmp_path / name, name, False)
    assert not folder.path.exists()


@pytest.mark.parametrize("stem", ["../../x", "/etc", "..", "", "\u202e", "x" * 5_000, "\0", "-rf", "a b"])
def test_any_stem_makes_a_folder_inside(tmp_path: Path, stem: str) -> None:
    folder, _ = open_folder(str(tmp_path), None, stem, False)
    folder.create("", {})
    assert [folder.path] == list(tmp_path.iterdir())


def test_stems_are_numbered_where_taken_and_the_last_is_resumed(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder, stands = open_folder(str(tmp_path), None, "bbh", False)
        assert not stands
        folder.create("", {})
        names.append(folder.name)
    assert names == ["bbh", "bbh-2", "bbh-3"]
    folder, stands = open_folder(str(tmp_path), None, "bbh", True)
    assert (folder.name, stands) == ("bbh-3", True)


@pytest.mark.parametrize(
    ("standing", "new", "resumed"),
    [
        (["bbh", "bbh-3"], "bbh-4", "bbh-3"),
        (["bbh-2"], "bbh-3", "bbh-2"),
        (["bbh-9", "bbh-10"], "bbh-11", "bbh-10"),
        (["bbh", "bbh-1", "bbh-02", "bbh-x", "xbbh-7", "bbh-7x"], "bbh-2", "bbh"),
    ],
)
def test_a_gap_hides_no_run(tmp_path: Path, standing: list[str], new: str, resumed: str) -> None:
    for name in standing:
        (tmp_path / name).mkdir()
    assert open_folder(str(tmp_path), None, "bbh", False)[0].name == new
    assert open_folder(str(tmp_path), None, "bbh", True)[0].name == resumed


def test_a_file_is_a_name_that_is_taken_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "bbh").touch()
    assert open_folder(str(tmp_path), None, "bbh", False)[0].name == "bbh-2"
    assert message(str(tmp_path), "bbh", "stem", False).startswith("--name: stands already")
    for name in ("bbh", None):
        assert message(str(tmp_path), name, "bbh", True) == f"--resume: there is no run to resume, got {tmp_path}/bbh"


def test_of_two_starts_under_one_number_the_second_is_refused(tmp_path: Path) -> None:
    first, second = (open_folder(str(tmp_path), None, "bbh", False)[0] for _ in range(2))
    with first.making(), pytest.raises(ConfigError, match="--storage: cannot be written: File exists"), second.making():
        pytest.fail("the folder was given twice")
    assert first.path.is_dir()


def test_resume_needs_what_stands_and_a_new_run_what_does_not(tmp_path: Path) -> None:
    made(tmp_path, "x")
    folder, stands = open_folder(str(tmp_path), "x", "stem", True)
    assert (folder.path, stands) == (tmp_path / "x", True)
    assert message(str(tmp_path), "x", "stem", False).startswith("--name: stands already: add --resume")
    assert message(str(tmp_path), "y", "stem", True).startswith("--resume: there is no run to resume")
    assert message(str(tmp_path), None, "y", True).startswith("--resume: there is no run to resume")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    folder = made(tmp_path, "x")
    assert folder.config() == "epochs: 3\n"
    assert folder.record() == {"run_id": "x"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "\udcff", None])
def test_a_damaged_record_or_configuration_is_one_line(tmp_path: Path, content: str | None) -> None:
    folder = made(tmp_path, "x")
    for name in ("run.json", "config.yaml"):
        (folder.path / name).unlink()
        if content is not None:
            (folder.path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"run\.json: (cannot be read|must hold a JSON object)") as caught:
        folder.record()
    assert "\n" not in str(caught.value)
    if content in (None, "\udcff"):
        with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read"):
            folder.config()


def test_a_folder_that_a_killed_process_had_only_begun_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    folder = made(tmp_path, "x")
    assert folder.has_record()
    (folder.path / "run.json").rename(folder.path / ".run.json.4711")  # as it is for a moment
    assert not folder.has_record()
    (folder.path / "optuna.journal").touch()
    with pytest.raises(ConfigError, match=r"run\.json: is missing, beside optuna\.journal: put it back"):
        folder.has_record()


def test_a_record_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, "x")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_text", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pathlib.Path.{name}", fail)
            with pytest.raises(OSError, match="No space"):
                folder.write_record({"run_id": "y"})
        assert folder.record() == {"run_id": "x"}
    folder.write_record({"run_id": "z"})
    assert json.loads((folder.path / "run.json").read_text()) == {"run_id": "z"}
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "run.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder, _ = open_folder(str(tmp_path / "file"), "x", "stem", False)
    with pytest.raises(ConfigError, match="--storage: cannot be written: Not a directory"):
        folder.create("", {})


HOLD = """
import sys
from pathlib import Path
from bbh_dist.storage import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = made(tmp_path, "x")
    line = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"^--resume: another process works on it now"), folder.lock():
            pytest.fail("the lock was given twice")
        other.kill()
    with folder.lock():
        pass
    with folder.lock():
        pass
