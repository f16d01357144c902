"""``mis contract``: to and from the Open Data Contract Standard."""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json

app = typer.Typer(no_args_is_help=True, help="Exchange the contract of the rows with other tools (Open Data Contract Standard).")


@app.callback()
def _all() -> None:
    """Exchange the contract of the rows with other tools (Open Data Contract Standard)."""


@app.command(name="export")
def write(
    file: File = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write, such as shop.odcs.yaml. Left out: it is shown.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Write the contract: columns, key, checks, personal columns."""
    from modelinscale.api import Project

    found = Project(file).export_contract()
    _show.contract(found.document, found.told, out, as_json=json)


@app.command(name="import")
def read(
    contract: Annotated[Path, typer.Argument(help="A contract file (.odcs.yaml).", show_default=False)],
    table: Annotated[str | None, typer.Option("--table", help="Which of its tables, if it has several.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Show a contract as the `data` part of a model.yaml; `contract: FILE` under `data` takes it in as it is."""
    from modelinscale.api import import_contract

    found = import_contract(contract, table)
    _show.contract({"data": found.plain()}, found.told, None, as_json=json)
