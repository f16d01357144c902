"""The command line: one file a command, only `_show` prints."""

import sys

from modelinscale.core.errors import MisError


def main() -> None:
    """What the command ``mis`` runs: exit 0, 1 (failed) or 2 (wrong use)."""
    from modelinscale.cli import _show
    from modelinscale.cli._app import app

    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except MisError as error:
        _show.failed(error, as_json=as_json)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _show.stopped()
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone: nothing left to say
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 — the one place that turns click's refusals into our words and lets all else show its traceback
        import click

        if not isinstance(error, click.ClickException):
            if isinstance(error, click.exceptions.Abort):
                sys.exit(130)
            raise
        _show.misused(error, as_json=as_json)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
