"""Track: what was run, which package versions there are, and which of them is in use."""

from pathlib import Path

from modelinscale.track._place import Placed, place
from modelinscale.track.trackers import CHALLENGER, CHAMPION, Main, Registered, Run, Tracker, Version, Write

__all__ = ["CHALLENGER", "CHAMPION", "Main", "Placed", "Registered", "Run", "Tracker", "Version", "Write", "open_tracker", "place"]


def open_tracker(folder: Path) -> Tracker:
    """The project's tracker, kept in ``folder`` (``STORE/track``). Touches nothing until it is used."""
    from modelinscale.track.trackers.mlflow import Mlflow

    return Mlflow(root=folder)
