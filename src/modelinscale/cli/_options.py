"""Options several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
File = Annotated[Path | None, typer.Option("--file", "-f", help="The model.yaml, or the folder it lies in. Default: the one here.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
PackageOption = Annotated[
    Path | None, typer.Option("--package", "-p", help="A package folder. Default: the champion of the model.yaml here.", show_default=False)
]
Version = Annotated[str | None, typer.Option("--version", "-v", help="A version or alias from the registry, such as 3 or challenger.", show_default=False)]
