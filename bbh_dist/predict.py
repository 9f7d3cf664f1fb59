"""Predictions of a trained run for one's own inputs: `python -m bbh_dist.predict --run RUN --input FILE`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bbh_dist.command_line import Parser, RunFailed, path, run
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.output import check_new
from bbh_dist.store_uri import check_tracking_uri

if TYPE_CHECKING:
    import numpy as np

    from bbh_dist.evaluation import Prediction, RegressionPrediction

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MOST_SAMPLES = 100_000


def main(arguments: Sequence[str]) -> None:
    """Parse, check the inputs, predict, write an archive, say what was written."""
    given = _parser().parse_args(arguments)
    output = Path(given.output)
    check_new(given.output, "--output")
    if given.samples is not None and not 1 <= given.samples <= _MOST_SAMPLES:
        raise ConfigError(Mistake("--samples", f"must be from 1 to {_MOST_SAMPLES}", got=str(given.samples)))
    folder = _folder(given.run, given.storage, given.tracking_uri)

    from bbh_dist.tasks import data_directory  # imported here: --help and mistakes need no torch
    from bbh_dist.tasks.inputs import read_inputs
    from bbh_dist.trained import Trained

    file = Path(given.input)
    array = read_inputs(file)
    trained = Trained.of(folder, data_directory(given.data))
    samples = given.samples or trained.experiment.evaluation.samples
    inputs = trained.inputs(file, array)
    with Console(stderr=True).status(f"predicting {len(inputs):,} inputs under {samples} weight samples"):
        arrays = named(trained.predict(inputs, samples))
    _write(output, arrays)
    print(f"{output}: {len(array):,} predictions: {', '.join(arrays)}; checkpoint of epoch {trained.checkpoint.epoch}")


def named(prediction: "Prediction | RegressionPrediction") -> "dict[str, np.ndarray]":
    """Arrays (N, ...) by name.

    Of classes `probabilities` (N, C), `entropy` and `mutual_information` in nats; of numbers `mean`, `stddev` over
    weight samples and `predictive_stddev` with noise, in the units of the targets.
    """
    from bbh_dist.evaluation import Prediction

    names = ("mean", "stddev", "predictive_stddev")
    if isinstance(prediction, Prediction):
        names = ("probabilities", "entropy", "mutual_information")
    return {name: getattr(prediction, name).cpu().numpy() for name in names}


def _folder(named: str, storage: str | None, tracking_uri: str | None) -> Path:
    """The folder that is named, or that of the run whose id is.

    Raises:
        ConfigError: there is none.
    """
    if Path(named).is_dir():
        return Path(named)
    if not _RUN_ID.fullmatch(named):
        raise ConfigError(Mistake("--run", "no such folder, and no id of a run", got=named))
    from bbh_dist.tracking import tracking_uri as resolved
    from bbh_dist.tracking.names import folder_of_run

    check_tracking_uri(tracking_uri)
    return folder_of_run(resolved(tracking_uri), named, Path(storage or "runs"))


def _write(output: Path, arrays: "dict[str, np.ndarray]") -> None:
    """Write the archive, whole or not at all, where nothing stands."""
    import numpy as np

    temporary = output.with_name(f".{os.getpid()}.npz")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.link(temporary, output)  # fails where something has come to stand meanwhile
    except OSError as error:
        raise RunFailed(f"{output} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _parser() -> Parser:
    result = Parser(
        "python -m bbh_dist.predict",
        "Predict with a run's newest whole checkpoint: mean probabilities, entropy and mutual information (of a "
        "regression mean and standard deviations).\nThe inputs stand as x in an .npz archive, as the task's own data "
        "do (see bbh_dist/tasks/inputs.py).",
        "python -m bbh_dist.predict --run runs/digits5_bbh --input mine.npz --output predictions.npz",
    )
    add = result.add_argument
    add("--run", type=path, required=True, metavar="RUN_ID|DIR", help="folder of a run, or its id in MLflow")
    add("--input", type=path, required=True, metavar="FILE.npz", help="archive with the inputs, x")
    add("--output", type=path, required=True, metavar="FILE", help="the .npz archive to write; must not exist")
    add("--samples", type=int, metavar="N", help="weight samples (default: the run's evaluation.samples)")
    add("--data", type=path, metavar="DIR", help="where data sets lie (default: BBH_DATA, or data)")
    add("--storage", type=path, metavar="DIR", help="where runs keep their folders, to find an id (default: runs)")
    add(
        "--tracking-uri", metavar="URI", help="MLflow store, to find an id (default: MLFLOW_TRACKING_URI, or mlflow.db)"
    )
    return result


if __name__ == "__main__":
    run(main)
