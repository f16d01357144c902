"""The command line: one file a command, only `_show` prints."""

import sys

from modelinscale.core.errors import MisError


def main() -> None:
    """What the command ``mis`` runs: exit 0, 1 (failed) or 2 (wrong use)."""
    import typer

    from modelinscale.cli import _show
    from modelinscale.cli._app import app

    # What typer raises for a command line it cannot understand; the class has no public name that all its versions share.
    misuse: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except MisError as error:
        _show.failed(error, as_json=as_json)
        sys.exit(error.exit_code)
    except misuse as error:
        sys.exit(_show.misused(error, as_json=as_json))
    except (KeyboardInterrupt, typer.Abort):
        _show.stopped()
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone: nothing left to say
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
