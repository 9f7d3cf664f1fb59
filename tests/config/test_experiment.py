"""Experiments: defaults, bounds, and what is said of mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest
from config_files import BBH, ENSEMBLE, FULL, MAP, experiment, message, write
from pydantic import ValidationError

from bbh_dist.config import (
    BbbMethod,
    BbhMethod,
    DropoutMethod,
    EnsembleMethod,
    Experiment,
    load_experiment,
    override,
    to_yaml,
)


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    found = experiment(tmp_path)
    method = found.method
    assert isinstance(method, BbhMethod)
    assert (method.generator.kind, method.generator.hidden) == ("single", (64, 256, 512))
    assert (method.generator.noise_dim, method.generator.shared_noise) == (8, True)
    assert (method.divergence, method.prior_stddev, method.kl_weight) == ("semi_implicit", 1.0, 1.0)
    assert (method.semi_implicit.inner_samples, method.semi_implicit.initial_stddev) == (None, 0.2)
    assert method.semi_implicit.stddev == "tensor"
    assert (method.discriminator.hidden, method.discriminator.pretraining_steps) == ((64, 64, 64), 100)
    assert (method.discriminator.gradient_clip, method.discriminator.lr) == (5.0, 1e-3)
    assert (method.kl_samples, method.likelihood_samples, method.likelihood) == (5, 1, "mean_log")
    assert (method.anneal.start, method.anneal.epochs) == (0.0, 0.0)
    assert (found.network, found.epochs, found.batch_size, found.seed) == ("mlp", 20, 100, 0)
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.schedule) == ("adam", 1e-3, "constant")
    assert found.optimizer.gradient_clip is None
    assert (found.precision, found.checkpoint_every_epochs, found.early_stop.patience) == ("float32", 1, 0)
    assert (found.evaluation.samples, found.evaluation.epoch_samples) == (100, 20)
    attacks = found.evaluation.attacks
    assert (attacks.examples, found.evaluation.shifts) == ({}, False)
    assert attacks.epsilons == pytest.approx([0.05 * step for step in range(9)])
    assert (attacks.fgsm_samples, attacks.pgd_samples) == (100, 20)
    assert attacks.pgd_steps * attacks.pgd_step_per_epsilon == 2.5
    assert (found.parallel.workers, found.parallel.cpus_per_worker, found.parallel.use_gpu) == (1, None, False)


@pytest.mark.parametrize(("text", "samples"), [(MAP, 1), (BBH, 5), (ENSEMBLE, 10)])
def test_samples_per_step(tmp_path: Path, text: str, samples: int) -> None:
    assert experiment(tmp_path, text).method.samples_per_step == samples


def test_an_ensemble_has_the_papers_members(tmp_path: Path) -> None:
    method = experiment(tmp_path, ENSEMBLE).method
    assert isinstance(method, EnsembleMethod)
    assert (method.members, method.prior_stddev, method.kl_weight) == (10, 1.0, 1.0)


@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (2, 2), (3, 1), (4, 2), (5, 5), (20, 10)])
def test_members_are_split_evenly_over_workers(tmp_path: Path, workers: int, shards: int) -> None:
    assert experiment(tmp_path, ENSEMBLE, f"parallel.workers={workers}").shards(workers) == shards


def test_shards_that_do_not_divide_the_members_are_refused(tmp_path: Path) -> None:
    line = message(experiment, tmp_path, ENSEMBLE, "parallel={workers: 8, shards: 4}")
    assert line == "--set parallel={workers: 8, shards: 4}: parallel.shards: must divide method.members, 10, got 4"
    assert experiment(tmp_path, ENSEMBLE, "parallel={workers: 8, shards: 2}").shards(8) == 2


def test_likelihood_samples_count_too(tmp_path: Path) -> None:
    assert experiment(tmp_path, BBH, "method.likelihood_samples=9").method.samples_per_step == 9


def test_experiments_are_frozen(tmp_path: Path) -> None:
    found = experiment(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        found.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        found.optimizer.lr = 0.1


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("epochs=true", "epochs: must be an integer, got true"),
        ("epochs=3.0", "epochs: must be an integer, got 3.0"),
        ("epochs='3'", 'epochs: must be an integer, got "3"'),
        ("optimizer.lr='1'", 'optimizer.lr: must be a number, got "1"'),
        ("optimizer.lr=true", "optimizer.lr: must be a number, got true"),
        ("parallel.use_gpu=1", "parallel.use_gpu: must be true or false, got 1"),
        ("parallel.use_gpu=yes", 'parallel.use_gpu: must be true or false, got "yes"'),
        ("parallel={workers: 2, compile: true}", "parallel.compile: must be false with several workers, got true"),
        ("task=5", "task: must be text, got 5"),
        ("task='npz:'", "task: must be one of toy, digits5, mnist, cifar5, npz:FILE"),
        ("network=mlp:64-", "network: must be one of mlp, lenet"),
        ("network=mlp:1000000", "network: must be one of mlp, lenet"),
        (
            "network=wrn-16-0",
            "network: must be one of mlp, lenet, preact-resnet, resnet18, wrn-28-10, mlp:64-32",
        ),
        ("network=wrn-16", "network: must be one of mlp, lenet"),
        ("optimizer=adam", 'optimizer: must be a mapping of keys, got "adam"'),
        ("method=map", 'method: must be a mapping of keys, got "map"'),
        ("method.generator.hidden=64", "method.generator.hidden: must be a list, got 64"),
        ("method.generator.hidden=[]", "method.generator.hidden: must not be empty"),
        ("method.generator.hidden=[64.0]", "method.generator.hidden.0: must be an integer, got 64.0"),
        ("method.discriminator.weights=0", "method.discriminator.weights: must be greater than or equal to 1, got 0"),
        ("method.semi_implicit.stddev=layer", "method.semi_implicit.stddev: must be one of tensor, unit"),
        ("method={name: ensemble, members: 0}", "method.members: must be greater than or equal to 1, got 0"),
        ("seed=-1", "seed: must be greater than or equal to 0, got -1"),
        ("evaluation.attacks.epsilons=[]", "evaluation.attacks.epsilons: must not be empty"),
        ("evaluation.attacks.epsilons=[-0.1]", "evaluation.attacks.epsilons.0: must be greater than or equal to 0"),
        ("evaluation.attacks.epsilons=[0.1,0.1]", "evaluation.attacks.epsilons: must rise, by at least 0.0001 each"),
        ("evaluation.attacks.fgsm_examples=-1", "evaluation.attacks.fgsm_examples: must be greater than or equal to 0"),
        ("evaluation.attacks.fgsm=5", "evaluation.attacks.fgsm: unknown key"),
        (f"batch_size={10**30}", "batch_size: must be less than"),
    ],
)
def test_values_are_strictly_typed_and_bounded(tmp_path: Path, assignment: str, rule: str) -> None:
    line = message(experiment, tmp_path, BBH, assignment)
    assert line.startswith(f"--set {assignment}: {rule}")


@pytest.mark.parametrize(
    "network", ["mlp", "mlp:64-32", "lenet", "resnet18", "wrn-28-10", "wrn-16-4", "wrn-10-1", "wrn-1000-1"]
)
def test_networks_that_are_known(tmp_path: Path, network: str) -> None:
    assert experiment(tmp_path, BBH, f"network={network}").network == network


@pytest.mark.parametrize(
    ("network", "suggestion"),
    [("resnet-18", "resnet18"), ("wrn28-10", "wrn-28-10"), ("lanet", "lenet")],
)
def test_a_mistyped_network_is_told_the_nearest(tmp_path: Path, network: str, suggestion: str) -> None:
    line = message(experiment, tmp_path, BBH, f"network={network}")
    assert line.endswith(f'got "{network}" (did you mean {suggestion}?)')


@pytest.mark.parametrize(
    ("network", "suggestion"), [("wrn-27-10", "wrn-28-10"), ("wrn-4-3", "wrn-10-3"), ("wrn-18-2", "wrn-16-2")]
)
def test_a_wide_residual_network_has_whole_blocks(tmp_path: Path, network: str, suggestion: str) -> None:
    line = message(experiment, tmp_path, BBH, f"network={network}")
    rule = "network: must have a depth of 10, 16, 22, 28 or another 6 n + 4"
    assert line == f'--set network={network}: {rule}, got "{network}" (did you mean {suggestion}?)'


def test_whole_numbers_serve_where_a_number_is_wanted(tmp_path: Path) -> None:
    lr = experiment(tmp_path, BBH, "optimizer.lr=1").optimizer.lr
    assert (lr, type(lr)) == (1.0, float)


@pytest.mark.parametrize("divergence", ["knn", "gaussian", "semi_implicit"])
def test_only_the_discriminator_takes_one_sample(tmp_path: Path, divergence: str) -> None:
    one = ("method.kl_samples=1", "method.divergence=discriminator")
    assert experiment(tmp_path, BBH, *one).method.samples_per_step == 1
    line = message(experiment, tmp_path, BBH, one[0], f"method.divergence={divergence}")
    assert "must be at least 2" in line


@pytest.mark.parametrize("key", ["generator", "divergence", "semi_implicit", "kl_samples"])
def test_map_refuses_the_keys_of_bbh(tmp_path: Path, key: str) -> None:
    text = f"task: digits5\nmethod:\n  name: map\n  {key}: 5\n"
    line = message(experiment, tmp_path, text)
    assert line == f"{tmp_path}/file.yaml:4: method.{key}: only the bbh method has this key"


def test_a_key_of_several_methods_names_them(tmp_path: Path) -> None:
    line = message(experiment, tmp_path, MAP, "method.likelihood_samples=5")
    assert re.search(r": method.likelihood_samples: only the bbb( or \w+)* or bbh method has this key$", line)


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ("{name: dropout, rate: 1.0}", "method.rate: must be less than or equal to 0.99, got 1.0"),
        ("{name: dropout, rate: -0.1}", "method.rate: must be greater than or equal to 0, got -0.1"),
        ("{name: dropout, rate: half}", 'method.rate: must be a number, got "half"'),
        ("{name: dropout, likelihood_samples: 2}", "method.likelihood_samples: only the "),
        (
            "{name: bbb, estimator: locl}",
            'method.estimator: must be one of reparameterised, local, flipout, got "locl" (did you mean local?)',
        ),
        ("{name: bbb, initial_log_variance: 11}", "method.initial_log_variance: must be less than or equal to 10"),
        ("{name: bbb, initial_stddev: 0}", "method.initial_stddev: must be greater than or equal to 0.000001, got 0"),
        (
            "{name: bbb, initial_stddev: 0.2, initial_log_variance: -8}",
            "method.initial_stddev: must not stand beside initial_log_variance, which says the same, got 0.2",
        ),
    ],
)
def test_settings_of_the_baselines_are_checked(tmp_path: Path, method: str, rule: str) -> None:
    line = message(experiment, tmp_path, MAP, f"method={method}")
    assert f": {rule}" in line


def test_defaults_of_the_baselines_are_the_documented_ones(tmp_path: Path) -> None:
    dropout = experiment(tmp_path, MAP, "method={name: dropout}").method
    assert dropout == DropoutMethod(name="dropout", rate=0.5, prior_stddev=1.0)
    bbb = experiment(tmp_path, MAP, "method={name: bbb}").method
    assert isinstance(bbb, BbbMethod)
    assert (bbb.estimator, bbb.initial_log_variance, bbb.initial_stddev) == ("reparameterised", -9.0, None)
    assert bbb.likelihood_samples == 1


def test_unknown_keys_below_a_method_name_those_of_that_method(tmp_path: Path) -> None:
    line = message(experiment, tmp_path, MAP, "method.wibble=1")
    assert line.endswith("method.wibble: unknown key; known here: name, prior_stddev, kl_weight, anneal")
    line = message(experiment, tmp_path, BBH, "method.map=1")
    assert "method.map: unknown key; known here: name, prior_stddev" in line
    assert "generator" in line


def test_flags_are_named_as_the_place(tmp_path: Path) -> None:
    path = write(tmp_path, BBH)
    assert load_experiment(path, flags=[("--workers", "parallel.workers", 2)]).parallel.workers == 2
    line = message(load_experiment, path, (), [("--workers", "parallel.workers", 0)])
    assert line == "--workers: parallel.workers: must be greater than or equal to 1, got 0"


@pytest.mark.parametrize("text", [BBH, MAP, ENSEMBLE, FULL])
def test_a_resolved_experiment_loads_again(tmp_path: Path, text: str) -> None:
    found = experiment(tmp_path, text)
    assert experiment(tmp_path, to_yaml(found)) == found


def test_override_validates_again(tmp_path: Path) -> None:
    found = experiment(tmp_path, FULL)
    changed = override(found, {"optimizer.lr": 0.5, "method.generator.hidden": [8, 8]})
    assert isinstance(changed.method, BbhMethod)
    assert (changed.optimizer.lr, changed.method.generator.hidden) == (0.5, (8, 8))
    assert found.optimizer.lr == 1e-7
    assert override(found, {}) == found


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("optimizer.lr", -1.0, "trial optimizer.lr: optimizer.lr: must be greater than 0, got -1.0"),
        ("optimiser.lr", 1.0, "trial optimiser.lr: optimiser: unknown key (did you mean optimizer?)"),
        ("batch_size", 2, "trial: parallel.workers: must be at most batch_size, 2, got 4"),
    ],
)
def test_override_refuses_what_is_no_experiment(tmp_path: Path, key: str, value: Any, line: str) -> None:
    assert message(override, experiment(tmp_path, FULL), {key: value}).startswith(line)


@pytest.mark.parametrize(
    ("network", "given", "kind"),
    [
        ("preact-resnet", None, "batch"),
        ("preact-resnet", "reference", "reference"),
        ("preact-resnet", "group", "group"),
        ("resnet18", None, "group"),
        ("wrn-16-4", "batch", "batch"),
        ("mlp", None, "group"),
    ],
)
def test_normalisation_is_that_of_the_network(network: str, given: str | None, kind: str) -> None:
    settings = {"task": "cifar5", "network": network, "method": {"name": "map"}, "normalisation": given}
    assert Experiment.model_validate(settings).normalisation_kind == kind


@pytest.mark.parametrize("network", ["mlp", "mlp:64-32", "lenet"])
def test_networks_without_normalisation_take_none(tmp_path: Path, network: str) -> None:
    line = message(experiment, tmp_path, MAP, f"network={network}", "normalisation=batch")
    assert f'normalisation: must be left out: {network} does not normalise, got "batch"' in line
