"""``mis train``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, Quiet


def command(file: File = None, json: Json = False, quiet: Quiet = False) -> None:
    """Do what is not done yet, up to the trained model."""
    from modelinscale.api import Project

    with _show.progress(quiet=quiet or json) as progress:
        outcome = Project(file).run(until="train", progress=progress)
    _show.outcome(outcome, as_json=json)
