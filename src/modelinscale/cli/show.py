"""``mis show``"""

from typing import Annotated, Literal

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(
    what: Annotated[str, typer.Argument(help="project, lake, rows, collect, quarantine or card.")] = "project",
    file: File = None,
    json: Json = False,
) -> None:
    """Show what there is: versions of the model, of the table, its newest rows, the last collect's report, quarantined rows, the model card."""
    from modelinscale.api import Project
    from modelinscale.core.errors import UsageError, did_you_mean

    known: tuple[Literal["project", "lake", "rows", "collect", "quarantine", "card"], ...] = ("project", "lake", "rows", "collect", "quarantine", "card")
    if what not in known:
        raise UsageError(f"there is nothing called {what!r} to show.{did_you_mean(what, known)}", fix=f"Known: {', '.join(known)}.")
    project = Project(file)
    if what == "card":
        _show.text("card", project.card(), as_json=json)
    else:
        _show.described(what, project.describe(what), as_json=json)
