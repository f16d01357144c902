"""``mis deploy``: one command a target."""

from pathlib import Path
from typing import Annotated

import typer

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json

app = typer.Typer(no_args_is_help=True, help="Write what the project needs to run somewhere else.")


@app.callback()
def _all() -> None:
    """Write what the project needs to run somewhere else."""


@app.command()
def schedule(
    file: File = None,
    every: Annotated[str | None, typer.Option("--every", help="How often: 15m, 6h, 1d.", show_default=False)] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="When, as cron writes it: '0 3 * * *'.", show_default=False)] = None,
    verb: Annotated[str, typer.Option("--verb", help="run, collect or update.")] = "run",
    form: Annotated[str, typer.Option("--as", help="systemd, cron or kubernetes.")] = "systemd",
    image: Annotated[str | None, typer.Option("--image", help="For Kubernetes: the image to run.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder to write the files to. Left out: they are shown.", show_default=False)] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Put it into force on this machine (systemd, cron).")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say whether it is in force.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what --apply did.")] = False,
    json: Json = False,
) -> None:
    """Run a command of the project at set times: a systemd timer, a line of cron, a CronJob of Kubernetes."""
    from modelinscale.api import Project

    settings = {k: v for k, v in {"every": every, "cron": cron, "verb": verb, "as": form, "image": image}.items() if v is not None}
    found = Project(file).deploy("schedule", settings, out=out, apply=apply, status=status, undo=undo)
    _show.deployed(found, as_json=json)
