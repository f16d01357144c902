"""``mis collect``"""

from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json, Quiet


def command(
    file: File = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what arrives later, until stopped (Ctrl-C, or SIGTERM).")] = False,
    every: Annotated[
        str | None, typer.Option("--every", help="With --follow: how often rows are committed. Default: `data.follow.every`, 5s.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring new rows into the lake; rows that break the contract go to quarantine."""
    from modelinscale.api import Project
    from modelinscale.core.errors import UsageError

    if not follow:
        if every is not None:
            raise UsageError("--every is how often --follow commits.", fix="Add --follow; to collect once a day, see `mis deploy schedule --help`.")
        with _show.progress(quiet=quiet or json) as progress:
            outcome = Project(file).run(until="collect", progress=progress)
        _show.outcome(outcome, as_json=json)
        return
    from modelinscale.core.units import seconds
    from modelinscale.pipeline._follow import stopping

    project = Project(file)
    with stopping() as stop, _show.following(quiet=quiet, as_json=json) as news:
        found = project.follow(stop=stop, news=news, every_s=None if every is None else seconds(every))
    _show.followed(found, as_json=json)
