"""``mis vacuum``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(
    file: File = None,
    older_than: Annotated[str, typer.Option("--older-than", help="Versions younger than this stay: 12h, 30d.")] = "30d",
    keep: Annotated[int, typer.Option("--keep", min=1, help="So many of the newest versions stay, however old.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove old versions of the table. Those that a model was trained on stay, and the one in use."""
    from modelinscale.api import Project

    _show.vacuumed(Project(file).vacuum(older_than, keep_versions=keep, dry_run=dry_run), as_json=json)
