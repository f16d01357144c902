"""The life of a server process: open the packages, listen, answer until told to stop."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.core.errors import UsageError
from modelinscale.core.logs import log
from modelinscale.package import Package, open_package
from modelinscale.serve._app import Application
from modelinscale.serve._server import Server
from modelinscale.serve._stats import Stats

if TYPE_CHECKING:
    from modelinscale.serve import Serve

_log = log(__name__)


def run(folders: Sequence[Path], settings: "Serve", ready: Callable[[int], None]) -> None:
    """See `modelinscale.serve.serve`."""
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a server must run in the main thread of a process: signals arrive there.", fix="Start `mis serve` as a process of its own.")
    packages: dict[str, Package] = {}
    for folder in folders:
        package = open_package(folder)
        if package.name in packages:
            raise UsageError(f"two packages are named {package.name!r}.", fix="Serve them from two servers, or give one another name in its model.yaml.")
        packages[package.name] = package
    loop = _new_loop()
    try:
        loop.run_until_complete(_main(packages, settings, ready, loop))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _main(packages: dict[str, Package], settings: "Serve", ready: Callable[[int], None], loop: asyncio.AbstractEventLoop) -> None:
    asked, cut = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (cut if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    stats = Stats()
    app = Application(packages, settings, stats, loop)
    server = Server(app, settings, stats, loop)
    app.server = server
    app.warm()
    try:
        port = await server.start()
        _log.info("serving", extra={"host": settings.host, "port": port, "models": ",".join(packages)})
        ready(port)
        await asked.wait()
        await server.stop(cut)
    finally:
        app.close()
    _log.info("stopped")


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed; plain asyncio, which is slower, elsewhere."""
    try:
        import uvloop
    except ImportError:
        _log.warning("uvloop is not installed: the server runs on asyncio, which needs about twice the time a request")
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
