"""``mis kinds``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import Json


def command(folder: Annotated[str | None, typer.Argument(help="One folder, such as features; all, if left out.")] = None, json: Json = False) -> None:
    """List what `type:` may name: sources, checks, features, models, metrics and so on."""
    from modelinscale.api import kinds

    _show.kinds(kinds(folder), as_json=json)
