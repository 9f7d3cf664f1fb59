"""Search-space files with exactly one mistake each: `(name, bytes, fragments of the one line that must come out)`."""

VALID = """\
base:
  task: digits5
  method:
    name: bbh
    generator: {kind: single, noise_dim: 4}
    kl_weight: 1.0
    kl_samples: 5
  optimizer: {lr: 1e-3}
  epochs: 3
  batch_size: 64
search:
  optimizer.lr:
    loguniform: [1e-4, 1e-1]
  method.divergence:
    choice: [semi_implicit, gaussian]
  method.semi_implicit.initial_stddev:
    float: [0.1, 0.5]
    when: {method.divergence: semi_implicit}
objectives:
  - metric: val/nll
    direction: minimize
scheduler: {name: asha, grace_epochs: 1}
sampler: {name: tpe, seed: 1}
trials: 4
final:
  top: 1
  seeds: [0, 1]
"""


def _spoiled(old: str, new: str) -> bytes:
    """The valid file with its only `old` replaced."""
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new).encode()


_ALIAS_BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"

_SEARCH, _OBJECTIVES = VALID.index("search:"), VALID.index("objectives:")
_NOTHING_SEARCHED = f"{VALID[:_SEARCH]}search: {{}}\n{VALID[_OBJECTIVES:]}".encode()

BROKEN: list[tuple[str, bytes, tuple[str, ...]]] = [
    # What is no mapping at all.
    ("empty file", b"", (":1: ", "the file is empty")),
    ("comments only", b"# nothing yet\n", (":1: ", "the file is empty")),
    ("list at the top", b"- task: digits5\n", (":1: ", "a mapping is expected at the top", '[{"task": "digits5"}]')),
    ("text at the top", b"digits5\n", (":1: ", "a mapping is expected at the top", '"digits5"')),
    # What is no YAML of ours.
    ("not UTF-8", VALID.replace("digits5", "digits\xe9").encode("latin-1"), (":2: ", "must be UTF-8 text")),
    ("UTF-16", VALID.encode("utf-16"), (":1: ", "must be UTF-8 text")),
    ("NUL", _spoiled("digits5", "digits\0"), (":2: ", "character is not allowed", r"\u0000")),
    ("tabs", _spoiled("  epochs", "\tepochs"), (":9: ", "tabs are not allowed here, use spaces")),
    ("unclosed bracket", _spoiled("1e-1]", "1e-1"), (":14: ", "not valid YAML", "expected ',' or ']'")),
    (
        "tag",
        _spoiled("digits5", "!!python/name:os.system x"),
        (":2: base.task: ", "tags are not supported, got !!python/name:os.system"),
    ),
    ("plain tag", _spoiled("task: digits5", "task: !!bool maybe"), (":2: base.task: ", "tags are not supported")),
    ("tagged key", _spoiled("trials:", "!!int trials:"), (":24: ", "tags are not supported")),
    ("duplicate key", _spoiled("trials: 4", "trials: 4\ntrials: 5"), (":25: trials: ", "this key stands twice")),
    ("alias bomb", _ALIAS_BOMB, (":1: ", "anchors and aliases are not supported")),
    ("alias to itself", b"base: &a [*a]\n", (":1: ", "not supported")),
    ("over-large file", VALID.encode() + b"#" * 1_000_000, ("must be at most 1000000 bytes",)),
    ("two documents", VALID.encode() + b"---\ntrials: 5\n", (":28: ", "must be one document")),
    ("deep nesting", _spoiled("digits5", "[" * 40 + "]" * 40), (":2: ", "nested at most 32 levels")),
    ("very deep nesting", b"base: " + b"[" * 100_000, (":1: ", "nested at most 32 levels")),
    ("key that is no text", _spoiled("trials: 4", "[trials]: 4"), (":24: ", "keys must be text")),
    ("half a surrogate pair", _spoiled("digits5", r'"npz:\ud800"'), (":2: base.task: ", "must be Unicode text")),
    # Keys.
    ("unknown key", _spoiled("trials: 4", "trails: 4"), (":24: trails: unknown key", "(did you mean trials?)")),
    ("unknown key, none near", _spoiled("trials: 4", "wibble: 4"), (":24: wibble: unknown key; known here: base",)),
    ("unknown nested key", _spoiled("noise_dim", "noise_dims"), (":5: base.method.generator.noise_dims", "noise_dim?")),
    ("unknown method key", _spoiled("name: bbh", "name: bbh\n    dropout: 1"), (":5: base.method.dropout", "known")),
    ("missing key", _spoiled("  task: digits5\n", ""), (":1: base.task: required key is missing",)),
    ("missing method name", _spoiled("    name: bbh\n", ""), (":3: base.method.name: ", "missing, one of map, ")),
    (
        "unknown searched key",
        _spoiled("optimizer.lr:", "optimiser.lr:"),
        (":12: search.optimiser.lr: ", "optimizer.lr?"),
    ),
    (
        "unknown kind of range",
        _spoiled("loguniform", "loguniforn"),
        (":13: ", "unknown key (did you mean loguniform?)"),
    ),
    # Types and values.
    ("wrong type", _spoiled("epochs: 3", "epochs: three"), (":9: base.epochs: must be an integer", '"three"')),
    ("true is no number", _spoiled("epochs: 3", "epochs: true"), (":9: base.epochs: must be an integer", "true")),
    ("3.0 is no integer", _spoiled("epochs: 3", "epochs: 3.0"), (":9: base.epochs: must be an integer", "3.0")),
    ("text for a mapping", _spoiled("sampler: {name: tpe, seed: 1}", "sampler: tpe"), (":23: ", "must be a mapping")),
    ("unknown word", _spoiled("name: tpe", "name: tpee"), (":23: sampler.name: must be one of", "(did you mean tpe?)")),
    ("unknown task", _spoiled("digits5", "digit5"), (":2: base.task: must be one of", "(did you mean digits5?)")),
    ("unknown method", _spoiled("name: bbh", "name: bhh"), (":4: base.method.name: ", '"bhh" (did you mean bbh?)')),
    ("unknown network", _spoiled("task: digits5", "task: digits5\n  network: mlp:0"), (":3: base.network: ", "mlp:0")),
    ("noise_dim 0", _spoiled("noise_dim: 4", "noise_dim: 0"), (":5: base.method.generator.noise_dim: ", "got 0")),
    ("negative kl_weight", _spoiled("kl_weight: 1.0", "kl_weight: -1"), (":6: base.method.kl_weight: ", "got -1")),
    ("infinite kl_weight", _spoiled("kl_weight: 1.0", "kl_weight: .inf"), (":6: base.method.kl_weight: ", "finite")),
    ("overflowing kl_weight", _spoiled("kl_weight: 1.0", "kl_weight: 1e999"), (":6: ", "must be a finite", "1e999")),
    (
        "one sample for a nearest-neighbour KL",
        _spoiled("kl_samples: 5", "kl_samples: 1\n    divergence: knn"),
        (":7: base.method.kl_samples: must be at least 2 for the knn divergence", "got 1"),
    ),
    (
        "more workers than the batch",
        _spoiled("batch_size: 64", "batch_size: 64\n  parallel: {workers: 65}"),
        (":11: base.parallel.workers: must be at most batch_size, 64", "got 65"),
    ),
    # What is searched.
    ("nothing searched", _NOTHING_SEARCHED, (":11: search: must not be empty, got {}",)),
    (
        "low above high",
        _spoiled("[1e-4, 1e-1]", "[1e-1, 1e-4]"),
        (":13: ", "low must be less than high", "[0.1, 0.0001]"),
    ),
    ("log range with 0", _spoiled("[1e-4, 1e-1]", "[0, 1e-1]"), (":13: search.optimizer.lr.loguniform: ", "positive")),
    ("range of one value", _spoiled("[1e-4, 1e-1]", "[1e-4]"), (":13: ", "must have at least 2 values", "[0.0001]")),
    ("range beyond the key's", _spoiled("[1e-4, 1e-1]", "[1e-4, 1e9]"), (":13: search.optimizer.lr: ", "1000000000.0")),
    ("two kinds", _spoiled("    float:", "    choice: [0.1]\n    float:"), (":16: ", "exactly one of choice", "float")),
    ("empty choices", _spoiled("[semi_implicit, gaussian]", "[]"), (":15: search.method.divergence.choice: ", "empty")),
    (
        "duplicate choices",
        _spoiled("[semi_implicit, gaussian]", "[knn, knn]"),
        (":15: ", "choices must differ", '"knn"'),
    ),
    ("impossible choice", _spoiled(", gaussian]", ", gausian]"), (":15: search.method.divergence: ", "gaussian?")),
    (
        "searched workers beyond the batch",
        _spoiled("optimizer.lr:\n    loguniform: [1e-4, 1e-1]", "parallel.workers:\n    int: [1, 99]"),
        (":13: search.parallel.workers.int: must be the same in all trials, set it in base",),
    ),
    (
        "searched batch below the workers",
        _spoiled("64\nsearch:", "64\n  parallel: {workers: 8}\nsearch:\n  batch_size: {choice: [4, 64]}"),
        (":13: search.batch_size: the value 4 makes parallel.workers wrong: must be at most batch_size", "got 8"),
    ),
    (
        "searched method",
        _spoiled("optimizer.lr:\n    loguniform: [1e-4, 1e-1]", "method.name:\n    choice: [bbh, map]"),
        (
            ":13: search.method.name: ",
            'the value "map" makes method.likelihood_samples wrong: only the ',
            " or bbh method has this key",
        ),
    ),
    (
        "when on an unknown key",
        _spoiled("when: {method.d", "when: {methods.d"),
        (":18: ", "initial_stddev.when: ", "(did you mean method.divergence?)"),
    ),
    (
        "when on a value never taken",
        _spoiled("{method.divergence: semi_implicit}", "{method.divergence: knn}"),
        (":18: search.method.semi_implicit.initial_stddev.when: ", "that method.divergence never takes", '"knn"'),
    ),
    (
        "when cyclic",
        _spoiled("gaussian]", "gaussian]\n    when: {method.semi_implicit.initial_stddev: 0.2}"),
        (":11: search: `when` conditions form a cycle", "method.divergence"),
    ),
    # What is optimised, and how often.
    (
        "unknown objective",
        _spoiled("val/nll", "val/nl"),
        (":20: objectives.0.metric: ", '"val/nl" (did you mean val/nll?)'),
    ),
    ("test objective", _spoiled("val/nll", "test/nll"), (":20: ", "test data is never searched on", "val/nll?")),
    (
        "test metric for the scheduler",
        _spoiled("name: asha", "name: asha, metric: test/nll"),
        (":22: scheduler.metric: test data is never searched on", "(did you mean val/nll?)"),
    ),
    (
        "repeated objective",
        _spoiled("minimize\n", "minimize\n  - {metric: val/nll, direction: maximize}\n"),
        (":19: objectives: each metric may be an objective once",),
    ),
    ("bad direction", _spoiled("minimize", "minimise"), (":21: objectives.0.direction: ", "(did you mean minimize?)")),
    ("trials 0", _spoiled("trials: 4", "trials: 0"), (":24: trials: must be greater than or equal to 1, got 0",)),
    ("seeds empty", _spoiled("[0, 1]\n", "[]\n"), (":27: final.seeds: must not be empty, got []",)),
    ("seeds repeated", _spoiled("[0, 1]\n", "[1, 1]\n"), (":27: final.seeds: seeds must differ, got [1, 1]",)),
    ("bad seed in a list of lines", _spoiled("[0, 1]\n", "\n    - 0\n    - x\n"), (":29: final.seeds.1: ", '"x"')),
]
