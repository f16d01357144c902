"""A request and a reply, as plain values."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from modelinscale.serve._connection import Connection

JSON = b"application/json"
BINARY = b"application/octet-stream"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"


class Reply(NamedTuple):
    """What goes back, before the connection adds length, date and request id."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""
    """Further header lines, each ending in CR LF."""


class Route(NamedTuple):
    """What answers a path: its name in the metrics, and the function for each method it knows."""

    name: str
    methods: "dict[str, Callable[[Request], None]]"
    model: str | None = None
    """The model the path names."""
    version: str | None = None
    """The version the path names."""

    @property
    def allow(self) -> str:
        """The value of the header ``Allow``."""
        return ", ".join(sorted({*self.methods, *(("HEAD",) if "GET" in self.methods else ())}))


@dataclass(slots=True, eq=False)
class Request:
    """One request, filled while it arrives."""

    connection: "Connection"
    method: str
    path: str
    """The path as sent, without the query."""
    headers: dict[bytes, bytes]
    """Names in lower case; of a repeated header the values joined by a comma."""
    id: str
    """The client's ``X-Request-Id`` where it is harmless, else one of ours."""
    keep_alive: bool
    http10: bool = False
    route: Route | None = None
    body: bytes | bytearray = b""
    refused: Reply | None = None
    """The reply when the head alone showed that the request cannot be answered."""
    alive: bool = True
    """False once nobody waits for the answer any more."""
    complete_at: float = 0.0
    """When the last byte had arrived, on the monotonic clock."""

    def answer(self, reply: Reply) -> None:
        """Sends the reply, unless the client has gone or was told off already."""
        if self.alive:
            self.connection.reply(self, reply)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


_LINES = {int(s): f"HTTP/1.1 {int(s)} {_phrase(int(s))}\r\ncontent-type: ".encode() for s in HTTPStatus}


def render(reply: Reply, request_id: str, date: bytes, *, close: bool, http10: bool = False, head_only: bool = False) -> bytes:
    """The bytes of a reply. A reply to HEAD carries the length of what GET would have sent."""
    connection = b"connection: close\r\n" if close else b"connection: keep-alive\r\n" if http10 else b""
    return b"".join(
        (
            _LINES[reply.status],
            reply.content_type,
            b"\r\ncontent-length: ",
            str(len(reply.body)).encode(),
            b"\r\ndate: ",
            date,
            b"\r\nx-request-id: ",
            request_id.encode("latin-1"),
            b"\r\n",
            reply.headers,
            connection,
            b"\r\n",
            b"" if head_only else reply.body,
        )
    )
