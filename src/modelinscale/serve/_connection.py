"""One client's connection: HTTP/1.1 taken apart, every amount and every wait bounded, answers in the order of the requests."""

import asyncio
import itertools
import math
import os
import re
import time
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from modelinscale.core.errors import RequestError
from modelinscale.serve._message import Reply, Request, render

if TYPE_CHECKING:
    from modelinscale.serve._server import Server

MAX_URL = 8 << 10
MAX_HEAD = 32 << 10
"""Bytes of all header names and values together, trailers included."""
MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests of one client that may wait for the one before them; then its bytes are left in the kernel."""
MAX_IGNORED = 64 << 10
"""Bytes of a refused request's body that are read so that the connection can be used again; above that it is closed."""
LINGER_S = 5.0
"""How long a refused client may go on sending into the void. Closing at once would reset the connection and take our answer with it."""

_IDLE, _HEAD, _BODY, _DEAF = range(4)
_HARMLESS = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_PREFIX = os.urandom(6).hex()
_numbers = itertools.count()


class Connection(asyncio.Protocol):
    """Parses requests one after the other and sends their answers in order. Does nothing by itself in time: the server's sweep calls `check`."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._settings = server.settings
        self._now = time.monotonic  # not the loop's clock: uvloop's counts whole milliseconds
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _IDLE
        self._begun = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._wire_bytes = 0
        self._upgrade = False
        self._request: Request | None = None
        self._queue: deque[Request] = deque()
        self._busy: Request | None = None
        self._advancing = False
        self._paused_reading = False
        self._paused_writing = False
        self._eof = False
        self._read_by = self._work_by = self._write_by = math.inf

    # What the transport tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._read_by = self._now() + self._settings.header_timeout
        if not self._server.welcome(self):
            self._stop(self._server.busy(f"{self._settings.max_connections} connections are open, which is all this server takes."))

    def connection_lost(self, error: Exception | None) -> None:
        for request in (self._busy, self._request, *self._queue):
            if request is not None:
                request.alive = False
                self._server.release(request)
        if self._busy is not None:
            self._server.working -= 1
        self._busy = self._request = None
        self._queue.clear()
        self._phase = _DEAF
        self._read_by = self._work_by = self._write_by = math.inf
        self._server.farewell(self)

    def eof_received(self) -> bool:
        """A client may close its sending side and still wait for answers."""
        self._eof = True
        return (self._busy is not None or bool(self._queue)) and self._phase != _DEAF

    def pause_writing(self) -> None:
        self._paused_writing = True
        self._write_by = self._now() + self._settings.idle_timeout

    def resume_writing(self) -> None:
        self._paused_writing = False
        self._write_by = math.inf
        self._advance()

    def data_received(self, data: bytes) -> None:
        if self._phase == _DEAF:
            return
        begun, fresh = self._begun, self._phase == _IDLE
        self._feed(data)
        if self._phase == _HEAD and self._begun <= begun + fresh:
            # All of this data belongs to one unfinished head: the parser keeps it, so it has to count although no header is complete.
            self._wire_bytes += len(data)
            if self._wire_bytes > MAX_HEAD + MAX_URL:
                self._refuse(RequestError(f"the head of the request is larger than {MAX_HEAD + MAX_URL} bytes.", fix="Send fewer headers.", status=431))

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None  # our own mistake, not the client's: the loop logs it and closes the connection
        except httptools.HttpParserError as error:
            self._refuse(RequestError(f"this is not HTTP/1.1: {error}.", fix="Send a request as RFC 9112 has it.", status=400))

    def _without_upgrade(self, rest: bytes) -> None:
        """Goes on in plain HTTP/1.1 when a client offers another protocol (Java's client offers h2c with every first request).

        The parser stops behind such a head, so the head is read again without the offer, and then the body.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._phase == _DEAF:
            return
        method, url = self._upgrading
        if method == b"CONNECT":
            self._refuse(RequestError("this server is no proxy: CONNECT is not answered.", fix="Send GET or POST.", status=405))
            return
        kept = [b"%s: %s\r\n" % (n, v) for n, v in self._headers if n.lower() not in (b"upgrade", b"connection", b"http2-settings")]
        self._feed(b"%s %s HTTP/1.1\r\n%s\r\n" % (method, url, b"".join(kept)) + rest)

    # What the parser tells us. An exception here would be our bug.

    def on_message_begin(self) -> None:
        self._begun += 1
        self._url, self._headers, self._head_bytes, self._wire_bytes, self._upgrade = b"", [], 0, 0, False
        if self._phase != _DEAF:
            self._phase = _HEAD
            self._read_by = self._now() + self._settings.header_timeout

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_URL:
            self._refuse(RequestError(f"the address is longer than {MAX_URL} bytes.", fix="Send rows in the body of a POST.", status=414))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._phase == _HEAD:
            self._headers.append((name, value))
        if self._head_bytes > MAX_HEAD or len(self._headers) > MAX_HEADERS:
            self._refuse(RequestError(f"more than {MAX_HEADERS} headers or {MAX_HEAD} bytes of them.", fix="Send fewer headers.", status=431))

    def on_headers_complete(self) -> None:
        if self._phase == _DEAF:
            return
        method = self._parser.get_method()
        if self._parser.should_upgrade():
            self._upgrade, self._upgrading = True, (method, self._url)
            return
        headers = {name.lower(): value for name, value in self._headers}
        if len(headers) != len(self._headers):
            headers = {low: b",".join(value for name, value in self._headers if name.lower() == low) for low in headers}
        version = self._parser.get_http_version()
        request = Request(
            connection=self,
            method=method.decode("latin-1"),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            headers=headers,
            id=_request_id(headers),
            keep_alive=self._parser.should_keep_alive(),
            http10=version == "1.0",
        )
        self._request = request
        self._phase = _BODY
        self._wire_bytes = 0
        self._read_by = self._now() + self._settings.body_timeout
        expects = headers.get(b"expect")
        try:
            self._check_head(request, version, expects)
            request.route = self._server.app.route(request)
        except RequestError as error:
            request.refused = self._server.app.refusal(request, error)
            size = int(headers.get(b"content-length", b"0"))
            if error.status in _FATAL or size > MAX_IGNORED or expects is not None:
                self._refuse_request(request)
            return
        if expects is not None and not request.http10:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_head(self, request: Request, version: str, expects: bytes | None) -> None:
        headers, limit = request.headers, self._settings.max_body
        if version not in ("1.1", "1.0"):
            raise RequestError(f"HTTP {version} is not spoken here.", fix="Send HTTP/1.1.", status=505)
        if (version == "1.1" and b"host" not in headers) or b"," in headers.get(b"host", b""):
            raise RequestError("exactly one Host header is needed.", fix="Send the header Host.", status=400)
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise RequestError("of transfer codings only `chunked` is read.", fix="Compress with Content-Encoding: gzip.", status=501)
        if expects is not None and expects.lower() != b"100-continue":
            raise RequestError("the only expectation met here is 100-continue.", fix="Leave the header Expect out.", status=417)
        if int(headers.get(b"content-length", b"0")) > limit:
            raise _too_large(limit)

    def on_body(self, body: bytes) -> None:
        request = self._request
        if self._phase == _DEAF or request is None:
            return
        if request.refused is not None:
            self._wire_bytes += len(body)
            if self._wire_bytes > MAX_IGNORED:
                self._refuse_request(request)
            return
        if not request.body:
            request.body = body
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += body
        if len(request.body) > self._settings.max_body:
            self._refuse(_too_large(self._settings.max_body))
        elif not self._server.hold(len(body)):
            request.refused = self._server.busy("the requests in work fill all the memory this server gives them.", request)
            self._refuse_request(request)

    def on_message_complete(self) -> None:
        if self._upgrade or self._phase == _DEAF:
            return
        request, self._request = self._request, None
        assert request is not None
        self._phase = _IDLE
        self._read_by = math.inf
        request.complete_at = self._now()
        self._queue.append(request)
        if len(self._queue) >= MAX_PIPELINED and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        self._advance()

    # Answers.

    def _refuse(self, error: RequestError) -> None:
        """Ends the connection with an error about what is arriving just now, after the answers still owed."""
        if self._phase == _DEAF:
            return
        if self._request is not None:
            self._request.refused = self._server.app.refusal(self._request, error)
            self._refuse_request(self._request)
        else:
            self._stop(self._server.app.refusal(None, error))

    def _refuse_request(self, request: Request) -> None:
        self._request = None
        request.keep_alive = False
        self._enqueue_last(request)

    def _stop(self, reply: Reply) -> None:
        self._enqueue_last(Request(self, "", "", {}, _request_id({}), keep_alive=False, refused=reply))

    def _enqueue_last(self, request: Request) -> None:
        request.complete_at = self._now()
        self._phase = _DEAF
        self._read_by = math.inf
        self._queue.append(request)
        self._advance()

    def _advance(self) -> None:
        """Starts the next request once the one before is answered. A loop, not a recursion: hundreds may wait in one packet."""
        if self._advancing:
            return
        self._advancing = True
        while self._queue and self._busy is None and not self._paused_writing:
            request = self._queue.popleft()
            self._busy = request
            self._server.working += 1
            if request.refused is not None:
                self.reply(request, request.refused)
                continue
            self._work_by = self._now() + self._settings.timeout
            self._server.app.handle(request)
        self._advancing = False
        if self._paused_reading and len(self._queue) < MAX_PIPELINED // 2 and not self._transport.is_closing():
            self._paused_reading = False
            self._transport.resume_reading()

    def reply(self, request: Request, reply: Reply) -> None:
        """Sends the answer of the request in work, and closes or goes on to the next."""
        if request is not self._busy:
            return
        server, self._busy, self._work_by = self._server, None, math.inf
        request.alive = False
        server.release(request)
        server.working -= 1
        now = self._now()
        server.stats.answered(request.route.name if request.route else "none", reply.status, now - request.complete_at)
        last = not request.keep_alive or (server.draining and not self._queue) or (self._eof and not self._queue)
        self._transport.write(render(reply, request.id, server.date, close=last, http10=request.http10, head_only=request.method == "HEAD"))
        if last:
            self._close(linger=request.refused is not None and not self._eof)
        else:
            if self._phase == _IDLE:
                self._read_by = now + self._settings.idle_timeout
            self._advance()

    def _close(self, *, linger: bool) -> None:
        self._queue.clear()
        self._phase = _DEAF
        if linger and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._read_by = self._now() + LINGER_S
            if self._paused_reading:
                self._transport.resume_reading()
        else:
            self._transport.close()

    # Time.

    def check(self, now: float) -> None:
        """Ends what takes too long: an answer (503), a head or a body (408), silence, a client that does not read."""
        if now > self._work_by and self._busy is not None:
            request = self._busy
            request.keep_alive = False
            self.reply(request, self._server.busy(f"no answer within {self._settings.timeout:g} s.", request))
        elif now > self._write_by:
            self._transport.abort()
        elif now > self._read_by and self._busy is None:
            if self._phase == _DEAF:
                self._transport.abort()
            elif self._phase == _IDLE:
                self._transport.close()
            else:
                part = "head" if self._phase == _HEAD else "body"
                self._refuse(RequestError(f"the {part} of the request did not arrive in time.", fix="Send it faster, or in smaller parts.", status=408))

    def leave(self) -> None:
        """The server is going: closes now if nothing is in work; otherwise the last answer will."""
        if self._busy is None and not self._queue and self._phase == _IDLE:
            self._transport.close()

    def abort(self) -> None:
        """Drops the connection and what is in work."""
        self._transport.abort()


_FATAL = frozenset({400, 413, 501, 505})
"""Refusals after which the bytes that follow cannot be trusted or are too many."""


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes.", fix="Send fewer rows at once, or raise `serve.max_body`.", status=413)


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id")
    if given is not None and _HARMLESS.fullmatch(given):
        return given.decode("latin-1")
    return f"{_PREFIX}{next(_numbers):08x}"
