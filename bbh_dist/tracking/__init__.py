"""MLflow: the only folder that imports it."""

from bbh_dist.tracking.store import tracking_uri, ui_command
from bbh_dist.tracking.tracker import Status, Tracker

__all__ = ["Status", "Tracker", "tracking_uri", "ui_command"]
