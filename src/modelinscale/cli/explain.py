"""``mis explain``"""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, Quiet


def command(
    rows: Annotated[str | None, typer.Argument(help="A data file whose rows are explained. Left out: the test rows together.", show_default=False)] = None,
    by: Annotated[str | None, typer.Option("--by", help="How: see `mis kinds explain`. Default: what suits the model.", show_default=False)] = None,
    given: Annotated[str | None, typer.Option("--with", help='Settings of it as JSON: \'{"immutable": ["age"], "to": "yes"}\'.', show_default=False)] = None,
    n_rows: Annotated[int, typer.Option("--rows", min=2, help="Test rows to look at, each class as often as there.")] = 2000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for page and JSON. Default: in the store.", show_default=False)] = None,
    file: File = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what the answers rest on, over the test rows or row by row, and whether that holds when it is tried."""
    from modelinscale.api import Project

    with _show.progress(quiet=quiet or json) as progress:
        told = Project(file).explain(rows, by=by, settings=given, n_rows=n_rows, out=out, progress=progress)
    _show.explained(told, as_json=json)
