from pathlib import Path
from typing import Any

import pytest

from bbh_dist.config import ConfigError
from bbh_dist.config.source import Source, parse_assignment, read_source, write_source

SCALARS = [
    ("1e-3", 1e-3),
    ("1E3", 1000.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("-2", -2),
    ("+7", 7),
    ("010", 10),
    ("09", 9),
    ("no", "no"),
    ("on", "on"),
    ("Yes", "Yes"),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("1_000", "1_000"),
    ("0o7", "0o7"),
    ("0x1F", "0x1F"),
    ("1:30", "1:30"),
    ("2024-01-01", "2024-01-01"),
    ("'5'", "5"),
    ('"true"', "true"),
    ("[1, two, 3.0]", [1, "two", 3.0]),
]


def read(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_source(path)


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_yaml_1_2_in_decimal(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, f"key: {text}\n").data["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["9" * 5000, ".nan", "-.inf", "1e999"])
def test_numbers_without_a_finite_value_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"some.yaml:1: key: "):
        read(tmp_path, f"key: {text}\n")


@pytest.mark.parametrize("word", ["1e-3", "no", "010", "true", "Null", "", "0o7", "1_0", "2024-01-01", "# x", "a\nb"])
def test_text_is_written_so_that_it_is_read_as_text(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, write_source({"key": word})).data == {"key": word}


def test_every_key_and_list_element_keeps_its_line(tmp_path: Path) -> None:
    source = read(tmp_path, "# a comment\na:\n  b:\n\n    c: 1\n  d: [2, 3]\ne:\n  - f: 4\n  - g:\n      5\n")
    lines = {"a": 2, "a.b": 3, "a.b.c": 5, "a.d": 6, "a.d.1": 6, "e": 7, "e.0.f": 8, "e.1.g": 9}
    for key, line in lines.items():
        path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        assert source.where(path) == f"{tmp_path}/some.yaml:{line}", key


def test_an_absent_key_is_placed_at_its_nearest_parent(tmp_path: Path) -> None:
    source = read(tmp_path, "x: 1\na:\n  b: 2\n")
    assert source.where(("a", "absent", "deeper")).endswith("some.yaml:2")
    assert source.where(("absent",)).endswith("some.yaml:1")


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    source = read_source(path)
    assert source.data == {"a": 1, "b": 2}
    assert source.where(("b",)) == f"{path}:2"


@pytest.mark.parametrize("name", ["absent.yaml", ".", "nul\0.yaml", "new\nline.yaml"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: ") as caught:
        read_source(f"{tmp_path}/{name}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optimizer.lr=1e-3", ["optimizer", "lr"], 1e-3),
        ("task=npz:a=b.npz", ["task"], "npz:a=b.npz"),
        ("final.seeds=[0, 1]", ["final", "seeds"], [0, 1]),
        ("method={name: map}", ["method"], {"name": "map"}),
        ("seed=", ["seed"], None),
        ("name=no", ["name"], "no"),
    ],
)
def test_assignments_are_split_and_read_as_yaml(text: str, key: list[str], value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["", "epochs", "=3", ".lr=1", "optimizer.=1", "optimizer..lr=1"])
def test_assignments_need_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="must be KEY=VALUE") as caught:
        parse_assignment(text)
    assert str(caught.value).startswith("--set: ")


@pytest.mark.parametrize("text", ["a=[", "a=&x 1", "a=!!str 1", "a={b: 1, b: 2}", "a=\x00", "a=\udcff"])
def test_assigned_values_are_as_safe_as_files(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_assignment(text)
    assert str(caught.value).startswith("--set a=")
    assert str(caught.value).isprintable()


def test_set_makes_the_mappings_on_the_way_and_takes_the_place() -> None:
    source = Source("job.yaml", {"a": {"b": 1}}, {("a",): "job.yaml:1", ("a", "b"): "job.yaml:2"})
    source.set(["a", "c", "d"], 5, "--set a.c.d=5")
    source.set(["a", "b"], 6, "--set a.b=6")
    assert source.data == {"a": {"b": 6, "c": {"d": 5}}}
    assert source.where(("a", "c", "d")) == "--set a.c.d=5"
    assert source.where(("a", "b")) == "--set a.b=6"
    assert source.where(("a",)) == "job.yaml:1"


def test_set_of_a_mapping_forgets_the_lines_below_it() -> None:
    source = Source("job.yaml", {"a": {"b": 1}}, {("a",): "job.yaml:1", ("a", "b"): "job.yaml:2"})
    source.set(["a"], {"b": 2}, "--set a={b: 2}")
    assert source.where(("a", "b")) == "--set a={b: 2}"


@pytest.mark.parametrize("value", [1, "text", None, [1]])
def test_set_below_what_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--set a\.b=1: a: has no keys below it, got "):
        Source("job.yaml", {"a": value}).set(["a", "b"], 1, "--set a.b=1")
