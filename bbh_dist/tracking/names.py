"""What an id in a tracking store stands for."""

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked
from bbh_dist.tracking.store import reason


def run_name(uri: str, run_id: str) -> str:
    """Name of a run, which is that of its folder.

    Raises:
        ConfigError: the store does not answer, or has no such run.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return str(MlflowClient(tracking_uri=uri).get_run(run_id).info.run_name)
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        rule = f"is no folder, and no run of the tracking store {masked(uri)} ({reason(error, uri)})"
        raise ConfigError(Mistake("--run", rule, got=run_id)) from error
