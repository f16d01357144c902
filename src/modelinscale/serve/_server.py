"""The listening side: sockets, the sweep that keeps time, and going away without losing an answer."""

import asyncio
import errno
import os
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

from modelinscale.core.errors import MisError, RequestError
from modelinscale.core.logs import log
from modelinscale.serve._connection import Connection
from modelinscale.serve._message import Reply, Request, Route
from modelinscale.serve._stats import Stats

if TYPE_CHECKING:
    from modelinscale.serve import Serve

BACKLOG = 1024
GRACE_S = 0.1
"""How long a server that was told to stop goes on as before, at least: clients may have connected and sent already, unread by us."""

_log = log(__name__)


class App(Protocol):
    """What answers requests."""

    def route(self, request: Request) -> Route:
        """What will answer; looks at the head only. Raises `RequestError`."""

    def handle(self, request: Request) -> None:
        """Answers now or later, through ``request.answer``. Never raises what a client can cause."""

    def refusal(self, request: Request | None, error: RequestError) -> Reply:
        """The error as the reader of this path expects it."""


class Server:
    """Connections and what they share."""

    def __init__(self, app: App, settings: "Serve", stats: Stats, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.settings = settings
        self.stats = stats
        self.loop = loop
        self.draining = False
        self.working = 0
        """Requests whose answer is being made."""
        self.date = formatdate(usegmt=True).encode()
        self._held = 0
        self._connections: set[Connection] = set()
        shortest = min(settings.timeout, settings.header_timeout, settings.body_timeout, settings.idle_timeout)
        self._tick_s = min(max(shortest / 4, 0.05), 0.5)

    # For connections.

    def welcome(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        self._connections.add(connection)
        return len(self._connections) <= self.settings.max_connections

    def farewell(self, connection: Connection) -> None:
        """The connection is gone."""
        self._connections.discard(connection)

    def hold(self, n_bytes: int) -> bool:
        """Counts bytes of bodies kept in memory; False when they are too many. They count until `release`."""
        self._held += n_bytes
        return self._held <= self.settings.max_waiting

    def release(self, request: Request) -> None:
        """The body of the request is not needed any more."""
        self._held -= len(request.body)
        request.body = b""

    def busy(self, why: str, request: Request | None = None) -> Reply:
        """503 with `Retry-After`."""
        return self.app.refusal(request, RequestError(why, fix="Try again in a moment.", status=503))

    @property
    def n_connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    # Life.

    async def start(self) -> int:
        """Listens; returns the port. Raises `MisError` when the address cannot be had."""
        sockets = _listen(self.settings.host, self.settings.port)
        self._listeners = [await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG) for sock in sockets]
        self._sweep()
        return int(sockets[0].getsockname()[1])

    def _sweep(self) -> None:
        now = time.monotonic()
        self.date = formatdate(usegmt=True).encode()
        for connection in tuple(self._connections):
            connection.check(now)
        self._timer = self.loop.call_later(self._tick_s, self._sweep)

    async def stop(self, cut: asyncio.Event) -> None:
        """Not ready any more; then takes no new connection; then answers what is in work, for at most ``settings.drain``; then closes.

        ``cut`` ends the waiting.
        """
        self.draining = True
        _log.info("stopping", extra={"in_work": self.working, "connections": len(self._connections)})
        await _either(cut, max(self.settings.unready, GRACE_S))
        await _polled()
        for listener in self._listeners:
            listener.close()
        end = time.monotonic() + self.settings.drain
        await _polled()
        while self._connections and time.monotonic() < end and not cut.is_set():
            for connection in tuple(self._connections):
                connection.leave()
            await _either(cut, 0.02)
        if self.working:
            _log.warning("stopped with requests unanswered", extra={"n_requests": self.working})
        for connection in tuple(self._connections):
            connection.abort()
        self._timer.cancel()
        await asyncio.sleep(0)


async def _polled() -> None:
    """Lets the loop look at its sockets, also when it comes late to this because of a long batch."""
    for _ in range(3):
        await asyncio.sleep(0)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, at most so long."""
    if seconds <= 0 or event.is_set():
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for every address of the host, all on one port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise MisError(f"there is no address {host!r} to listen on ({error}).", fix="Give --host 127.0.0.1, or 0.0.0.0 for every address.") from error
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        one = socket.socket(family, kind, protocol)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port, *address[2:]))
            one.listen(BACKLOG)
            one.setblocking(False)
        except OSError as error:
            one.close()
            # A host such as localhost may have an IPv6 address on a machine that does not speak it.
            if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            for other in sockets:
                other.close()
            raise _refused(host, port, error) from error
        port = port or int(one.getsockname()[1])
        sockets.append(one)
    return sockets


def _refused(host: str, port: int, error: OSError) -> MisError:
    if error.errno == errno.EADDRINUSE:
        return MisError(
            f"port {port} on {host} is in use by another program.", fix=f"Stop that program, or give another port (--port {port + 1}), or 0 for a free one."
        )
    if error.errno == errno.EACCES:
        return MisError(f"port {port} on {host} is not open to this user.", fix="Ports below 1024 are for the administrator: give --port 8080.")
    if error.errno == errno.EADDRNOTAVAIL:
        return MisError(f"{host} is not an address of this machine.", fix="Give --host 127.0.0.1, or 0.0.0.0 for every address.")
    return MisError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}.", fix="Give another --host or --port.")
