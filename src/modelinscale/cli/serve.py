"""``mis serve``"""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, PackageOption, Version


def command(
    file: File = None,
    package: PackageOption = None,
    version: Version = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on. Default: that of model.yaml (with --package: 127.0.0.1).", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one. Default: that of model.yaml (with --package: 8080).", show_default=False),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="The folder of the prediction log. Default: in the store of model.yaml (with --package: nowhere).", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Serve a package over HTTP until interrupted."""
    from modelinscale.serve import serve

    folder, settings = _show.served_what(file, package, version, host, port, log)
    serve([folder], settings, lambda bound: _show.serving(folder, settings.host, bound, as_json=json))
