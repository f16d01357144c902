"""The command line: one file a command, only `_show` prints."""

import atexit
import os
import sys
import threading
from typing import NoReturn

from modelinscale.core.errors import MisError


def script() -> NoReturn:
    """What the command ``mis`` runs: `main`, then out at once.

    Taking down the interpreter and its native libraries object by object costs up to half a second after the last word is said; threads that must end
    are waited for, exit handlers run and output is flushed, the rest is left to the operating system.
    """
    code: int | str | None = 1
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> None:
    """One command, from ``sys.argv``: leaves with 0, 1 (failed) or 2 (wrong use)."""
    import typer

    from modelinscale.cli import _show
    from modelinscale.cli._app import app

    # What typer raises for a command line it cannot understand; the class has no public name that all its versions share.
    misuse: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    as_json = "--json" in sys.argv
    threading.excepthook = lambda thread: _show.crashed(thread.exc_value, as_json=False) if isinstance(thread.exc_value, Exception) else None
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
    except Exception as error:  # noqa: BLE001 - whatever it is: Python's own way of telling would show values and secrets
        _show.crashed(error, as_json=as_json)
        sys.exit(1)
    if code == 130:  # typer's own word for Ctrl-C
        _show.stopped()
    sys.exit(code if isinstance(code, int) else 0)
