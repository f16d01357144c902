"""``mis plan``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(file: File = None, json: Json = False) -> None:
    """Show what `mis run` would do and what is done already. Changes nothing."""
    from modelinscale.api import Project

    _show.plan(Project(file).plan(), as_json=json)
