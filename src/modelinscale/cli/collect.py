"""``mis collect``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, Quiet


def command(file: File = None, json: Json = False, quiet: Quiet = False) -> None:
    """Bring new rows into the lake; rows that break the contract go to quarantine."""
    from modelinscale.api import Project

    with _show.progress(quiet=quiet or json) as progress:
        outcome = Project(file).run(until="collect", progress=progress)
    _show.outcome(outcome, as_json=json)
