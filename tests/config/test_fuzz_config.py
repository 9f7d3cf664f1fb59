"""Whatever stands in a file, loading it succeeds or raises ConfigError with lines that a terminal can show."""

import tempfile
from pathlib import Path

import yaml
from broken_spaces import VALID
from hypothesis import given, settings
from hypothesis import strategies as st

from bbh_dist.config import (
    ConfigError,
    Experiment,
    SearchSpace,
    SuitePlan,
    load_experiment,
    load_space,
    load_suite,
    to_yaml,
)

quick = settings(derandomize=True, deadline=None, max_examples=120, database=None)

DECIMAL = VALID.replace("1e-3", "0.001").replace("1e-4", "0.0001").replace("1e-1", "0.1")  # PyYAML reads YAML 1.1
EXPERIMENT = yaml.safe_dump(yaml.safe_load(DECIMAL)["base"])
SUITE = """base: {task: digits5, network: mlp:5, optimizer.lr: 0.002}
rows:
  map: {method: {name: map}}
  bbh: {method.name: bbh, method.generator: {kind: layerwise, hidden: [8]}}
seeds: [0, 1]
settings: {map: map.yaml}
quick: {epochs: 1, evaluation: {samples: 5}}
reference: bbh
published: {source: nowhere, figures: {map: {test/error: 0.5}}}
"""
PATHS = [
    ("base",),
    ("base", "task"),
    ("base", "method"),
    ("base", "method", "name"),
    ("base", "method", "kl_weight"),
    ("base", "method", "generator", "hidden"),
    ("base", "optimizer", "gradient_clip"),
    ("base", "parallel"),
    ("search",),
    ("search", "optimizer.lr"),
    ("search", "optimizer.lr", "choice"),
    ("search", "optimizer.lr", "loguniform"),
    ("search", "optimizer.lr", "when"),
    ("search", "method.divergence", "choice"),
    ("objectives",),
    ("objectives", 0, "metric"),
    ("scheduler", "metric"),
    ("sampler", "seed"),
    ("final", "seeds"),
    ("wibble",),
]
SUITE_PATHS = [
    ("base",),
    ("base", "optimizer.lr"),
    ("rows",),
    ("rows", "map"),
    ("rows", "bbh", "method.generator"),
    ("seeds",),
    ("settings",),
    ("settings", "map"),
    ("quick",),
    ("quick", "evaluation"),
    ("reference",),
    ("published",),
    ("published", "figures"),
    ("wibble",),
]
SNIPPETS = (
    "!!bool x",
    "!!int ''",
    "&a [*a]",
    "*a",
    "- ",
    "? ",
    "{",
    "]",
    "\t",
    "\0",
    "\ud7ff",
    "%TAG",
    "---",
    "<<: ",
    '"\\ud800"',
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def load(raw: bytes, assignments: tuple[str, ...] = ()) -> list[Experiment | SearchSpace | SuitePlan]:
    """What the bytes load as; fails where anything but a ConfigError of printable lines comes out."""
    loaded: list[Experiment | SearchSpace | SuitePlan] = []
    refusals: list[ConfigError] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_bytes(raw)
        for loader in (load_experiment, load_space, load_suite):
            try:
                loaded.append(loader(path, assignments))
            except ConfigError as error:
                refusals.append(error)
    for error in refusals:
        assert error.mistakes
        assert all(str(mistake).isprintable() for mistake in error.mistakes)
    return loaded


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid file with slices deleted, doubled, or replaced."""
    text = draw(st.sampled_from([VALID, EXPERIMENT, SUITE]))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        middle = draw(st.sampled_from(["", text[start:end] * 2, *SNIPPETS]) | st.text(max_size=6))
        text = text[:start] + middle + text[end:]
    return text


@given(st.binary(max_size=200))
@quick
def test_any_bytes(raw: bytes) -> None:
    load(raw)


@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@?, \n\t\\0x", max_size=60))
@quick
def test_any_text(text: str) -> None:
    load(text.encode("utf-8", "surrogatepass"))


@given(mutated())
@quick
def test_mutated_files(text: str) -> None:
    load(text.encode("utf-8", "surrogatepass"))


def with_value(text: str, path: tuple[str | int, ...], value: object) -> bytes:
    """The file with another value under a key."""
    data = yaml.safe_load(text)
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return yaml.safe_dump(data, sort_keys=False).encode()


@given(st.sampled_from(PATHS), values)
@quick
def test_any_value_under_a_known_key(path: tuple[str | int, ...], value: object) -> None:
    """What still loads is written and loaded again without a change."""
    for model in load(with_value(DECIMAL, path, value)):
        assert model in load(to_yaml(model).encode())


@given(st.sampled_from(SUITE_PATHS), values)
@quick
def test_any_value_under_a_known_key_of_a_suite(path: tuple[str | int, ...], value: object) -> None:
    load(with_value(SUITE, path, value))


def test_the_suite_that_is_mutated_loads() -> None:
    without_settings = SUITE.replace("settings: {map: map.yaml}\n", "")
    assert [type(loaded) for loaded in load(without_settings.encode())] == [SuitePlan]


@given(st.sampled_from(PATHS).map(lambda path: ".".join(map(str, path))) | st.text(max_size=8), st.text(max_size=12))
@quick
def test_any_assignment(key: str, value: str) -> None:
    load(VALID.encode(), (f"{key}={value}",))
