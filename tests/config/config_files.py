"""Files of experiments and spaces, and what loading them says."""

from pathlib import Path
from typing import Any

import pytest
from broken_spaces import VALID

from bbh_dist.config import (
    ConfigError,
    Experiment,
    SearchSpace,
    load_experiment,
    load_space,
)

BBH = "task: digits5\nmethod: {name: bbh}\n"
MAP = "task: digits5\nmethod: {name: map}\n"
ENSEMBLE = "task: digits5\nmethod: {name: ensemble}\n"
FULL = """\
task: "npz:1e-3"
network: mlp:64-32
method:
  name: bbh
  generator: {kind: layerwise, hidden: [16], noise_dim: 2, shared_noise: false}
  divergence: knn_marginal
  semi_implicit: {inner_samples: 3, initial_stddev: 1e-05}
  anneal: {start: 1, epochs: 2.5}
optimizer: {name: sgd, lr: 1e-7, schedule: cosine, gradient_clip: 3}
seed: 9223372036854775807
precision: float64
parallel: {workers: 4, use_gpu: true}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return path


def experiment(tmp_path: Path, text: str = BBH, *assignments: str) -> Experiment:
    return load_experiment(write(tmp_path, text), assignments)


def space(tmp_path: Path, *assignments: str, text: str = VALID) -> SearchSpace:
    return load_space(write(tmp_path, text), assignments)


def message(load: Any, *arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    assert len(caught.value.mistakes) == 1, str(caught.value)
    return str(caught.value)
