"""MLflow: the only folder that imports it."""

from bbh_dist.tracking.tracker import Status, Tracker, tracking_uri, ui_command

__all__ = ["Status", "Tracker", "tracking_uri", "ui_command"]
