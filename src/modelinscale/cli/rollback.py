"""``mis rollback``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(file: File = None, json: Json = False) -> None:
    """Make the champion before this one the champion again."""
    from modelinscale.api import Project

    _show.moved(Project(file).rollback(), as_json=json)
