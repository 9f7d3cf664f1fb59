"""Export trained weights: `python -m bbh_dist.export --run DIR --output FILE`."""

from collections.abc import Sequence
from pathlib import Path

from bbh_dist.command_line import Parser, RunFailed, path, run
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.output import check_new

_METHOD = "method."


def main(arguments: Sequence[str]) -> None:
    """Parse, check, write the weights of the newest whole checkpoint to one file, say what was written."""
    given = _parser().parse_args(arguments)
    folder, output = Path(given.run), Path(given.output)
    _check(folder, output)

    # Imported here: --help and mistakes need no torch.
    from bbh_dist.trained import checkpoint_in
    from bbh_dist.training.checkpoints import CheckpointError, export_checkpoint

    checkpoint = checkpoint_in(folder)
    prefix = "" if given.all else _METHOD
    names = [name for name in checkpoint.shapes if name.startswith(prefix)]
    if not names:
        raise ConfigError(Mistake(str(checkpoint.path), "holds no weights of a method: --all exports what there is"))
    try:
        export_checkpoint(checkpoint, output, prefix)
    except CheckpointError as error:
        raise RunFailed(str(error)) from error
    print(f"{output}: {len(names)} tensors, {output.stat().st_size:,} bytes, epoch {checkpoint.epoch}")


def _parser() -> Parser:
    result = Parser(
        "python -m bbh_dist.export",
        "Write the weights of a run's newest whole checkpoint to one safetensors file.",
        "python -m bbh_dist.export --run runs/digits5_bbh --output digits5_bbh.safetensors",
    )
    add = result.add_argument
    add(
        "--run",
        type=path,
        required=True,
        metavar="DIR",
        help="folder of a run, of its checkpoints, or of one checkpoint",
    )
    add("--output", type=path, required=True, metavar="FILE", help="the file to write; must not exist")
    add("--all", action="store_true", help="also the optimiser's state and the best weights, under their full names")
    return result


def _check(folder: Path, output: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(Mistake("--run", "no such folder", got=str(folder)))
    check_new(str(output), "--output")


if __name__ == "__main__":
    run(main)
