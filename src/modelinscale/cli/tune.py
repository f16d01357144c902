"""``mis tune``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, Quiet


def command(
    file: File = None,
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="Settings to try, instead of `tune.trials`.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-w", min=0, help="Trials at once, instead of `tune.workers`.", show_default=False)] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look for the settings that learn best; `mis run` then trains with them."""
    from modelinscale.api import Project

    with _show.tuning(quiet=quiet or json) as (progress, watch):
        tuned = Project(file).tune(trials=trials, workers=workers, progress=progress, watch=watch)
    _show.tuned(tuned, as_json=json)
