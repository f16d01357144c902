"""``mis audit``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(
    verify: Annotated[bool, typer.Option("--verify", help="Prove that no line was changed, added or removed.")] = False,
    head: Annotated[bool, typer.Option("--head", help="Print the newest hash: kept elsewhere, it proves later that nothing was cut off.")] = False,
    anchor: Annotated[list[str] | None, typer.Option("--anchor", help="With --verify: a hash printed by --head before, that a line must have.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many of the newest lines to show.")] = 20,
    file: File = None,
    json: Json = False,
) -> None:
    """Show who did what when, from a log whose lines are chained by hashes."""
    from modelinscale.api import Project

    project = Project(file)
    if head:
        _show.text("head", project.audit.head(), as_json=json)
    elif verify or anchor:
        verdict = project.verify_audit(tuple(anchor or ()))
        _show.audit_verdict(verdict, as_json=json)
        raise typer.Exit(0 if verdict.whole else 1)
    else:
        _show.audit(list(project.audit.entries())[-last:], as_json=json)
