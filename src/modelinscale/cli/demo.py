"""``mis demo``"""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import Json


def command(
    folder: Annotated[Path, typer.Argument(help="Where the demo's project goes; made if it is not there.")] = Path("demo"),
    days: Annotated[int, typer.Option("--days", min=30, max=400, help="Days of card payments to simulate.")] = 120,
    json: Json = False,
) -> None:
    """Go the whole way once: simulated card payments to a fraud model that answers over HTTP."""
    from modelinscale.api import demo

    with _show.progress(quiet=json) as progress:
        _show.demo(demo(folder, days=days, progress=progress, say=_show.say(quiet=json)), as_json=json)
