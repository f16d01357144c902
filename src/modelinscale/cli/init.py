"""``mis init``"""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import Json


def command(
    data: Annotated[list[str], typer.Argument(help="Data files of one type (csv, parquet, jsonl), or a pattern in quotes.")],
    target: Annotated[str, typer.Option("--target", "-t", help="The column to predict.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("model.yaml"),
    name: Annotated[str | None, typer.Option("--name", help="The model's name. Default: the data file's.", show_default=False)] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="auto, or a family: linear, trees, mlp.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Look at data and write a commented model.yaml."""
    from modelinscale.api import init

    drafted = init(data, target=target, out=out, name=name, model=model, force=force)
    _show.drafted(drafted, as_json=json)
