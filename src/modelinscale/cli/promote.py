"""``mis promote``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(version: Annotated[str, typer.Argument(help="A version or alias, such as 3 or challenger.")], file: File = None, json: Json = False) -> None:
    """Make a version the champion: the one `mis serve` and `mis predict` use."""
    from modelinscale.api import Project

    _show.moved(Project(file).promote(version), as_json=json)
