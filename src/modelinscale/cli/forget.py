"""``mis forget``"""

import sys
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(
    key: Annotated[
        list[str], typer.Option("--key", "-k", help="Who, as the source names them; may be given several times. - reads lines from standard input.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    file: File = None,
    json: Json = False,
) -> None:
    """Remove a person from the lake, quarantine and packages; list the models that learned from them."""
    from modelinscale.api import Project

    persons = [line.strip() for line in sys.stdin] if key == ["-"] else key
    _show.forgotten(Project(file).forget([one for one in persons if one], dry_run=dry_run), as_json=json)
