"""What an id in a tracking store stands for."""

from pathlib import Path

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked
from bbh_dist.storage import RunFolder, is_plain_name
from bbh_dist.tracking.sender import KEY_TAG, key_tag
from bbh_dist.tracking.store import reason


def folder_of_run(uri: str, run_id: str, storage: Path) -> Path:
    """The folder in which a run keeps its checkpoints: it has the run's name, and the key of the run's tag.

    Raises:
        ConfigError: the store does not answer, or has no such run; its folder is not there, or is now another run's.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        run = MlflowClient(tracking_uri=uri).get_run(run_id)
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        rule = f"is no folder, and no run of the tracking store {masked(uri)} ({reason(error, uri)})"
        raise ConfigError(Mistake("--run", rule, got=run_id)) from error
    name = run.info.run_name or ""
    if not is_plain_name(name):
        raise ConfigError(Mistake("--run", "is a run that has no folder of its name", got=run_id))
    folder = storage / name
    if not folder.is_dir():
        rule = f"its folder is not there, name it or its --storage: {folder}"
        raise ConfigError(Mistake("--run", rule, got=run_id))
    if run.data.tags.get(KEY_TAG) != key_tag(RunFolder(folder).record().get("tracking_key", ""), name):
        rule = f"its folder is not there, that of its name is another run's: {folder}"
        raise ConfigError(Mistake("--run", rule, got=run_id))
    return folder
