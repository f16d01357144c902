"""``mis predict``"""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, PackageOption, Quiet, Version


def command(
    rows: Annotated[str, typer.Argument(help="A data file (csv, parquet, jsonl), or a pattern in quotes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .csv, .jsonl or .parquet, one line for each row.")],
    file: File = None,
    package: PackageOption = None,
    version: Version = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first cell that cannot be read, instead of treating it as missing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer every row of a file, however large, in constant memory."""
    from modelinscale.api import predict

    with _show.progress(quiet=quiet or json) as progress:
        scored = predict(rows, out=out, file=file, package=package, version=version, strict=strict, progress=progress)
    _show.scored(scored, as_json=json)
