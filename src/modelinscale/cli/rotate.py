"""``mis rotate``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(file: File = None, json: Json = False) -> None:
    """Bring the pseudonyms in the lake to the newest key of data.pseudonym_key."""
    from modelinscale.api import Project

    _show.rotated(Project(file).rotate(), as_json=json)
