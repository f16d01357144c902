"""``mis demo``"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import Json


def command(
    folder: Annotated[Path, typer.Argument(help="Where the demo's project goes; made if it is not there.")] = Path("demo"),
    days: Annotated[
        int | None,
        typer.Option("--days", min=60, max=3650, help="Days of card payments to simulate. Default: as before in that folder, else 120.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Go the whole way once: simulated card payments to a fraud model that answers over HTTP."""
    from modelinscale.demo import demo

    done = demo(folder, days=days, progress=partial(_show.progress, quiet=json), tell=_show.demo_stage(quiet=json))
    _show.demo(done, as_json=json)
