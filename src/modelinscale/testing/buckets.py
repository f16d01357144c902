"""What the small object stores for tests share: objects in memory, answers over HTTP, and faults on demand. Each speaks one cloud's language on top of it."""

import hashlib
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

PAGE = 1000
"""Entries of a list that come at once."""
SECRET = "aHVzaC1odXNoLWtleS1vZi10ZXN0cw=="
"""What the clients prove to know (for Azure it must be base 64)."""


class Objects:
    """What is stored: bytes by ``bucket/key``, and parts of uploads that are not complete."""

    def __init__(self, *, forgetful: bool) -> None:
        self.lock = threading.Lock()
        self.held: dict[str, bytes] = {}
        self.parts: dict[str, dict[Any, bytes]] = {}
        self.times: dict[str, float] = {}
        self.numbers: dict[str, int] = {}
        """Of the write that made each object: no two writes have the same."""
        self._next = count(1_700_000_000_000_001)
        self.refused: dict[str, tuple[int, str]] = {}
        """Answers instead of objects: status and code by ``bucket/key``, ``bucket`` or ``PUT bucket``."""
        self.forgetful = forgetful
        """Whether it overwrites though told not to, as some imitations of S3 do."""
        self.writes_left: int | None = None
        """So many writes are answered; then it hangs up on everybody, as a server that died."""
        self.mute: re.Pattern[str] | None = None
        """Writes to names that match are done, but answered with a failure, once each."""

    def put(self, name: str, content: bytes, *, absent: bool, only_on: str | None = None) -> bool:
        """Whether it was written: not over one that is there if ``absent``, nor over another one than ``only_on`` (its tag or number)."""
        with self.lock:
            is_there = name in self.held
            same = only_on is None or (is_there and only_on in (content_tag(self.held[name]), str(self.numbers[name]), number_tag(self.numbers[name])))
            if not self.forgetful and ((absent and is_there) or not same):
                return False
            self.held[name], self.times[name], self.numbers[name] = content, time.time(), next(self._next)
            return True

    def entries(self, bucket: str, prefix: str, delimiter: str, after: str) -> tuple[list[tuple[str, str]], str]:
        """A page of a list: each the folder or the key, and the name of the object ("" for a folder); then where the next page begins, "" for none."""
        with self.lock:
            keys = sorted(name[len(bucket) + 1 :] for name in self.held if name.startswith(f"{bucket}/{prefix}"))
        found: dict[str, str] = {}
        for key in keys:
            rest = key[len(prefix) :]
            folder = prefix + rest[: rest.index(delimiter) + 1] if delimiter and delimiter in rest else ""
            if (folder or key) > after:
                found.setdefault(folder or key, "" if folder else f"{bucket}/{key}")
            if len(found) > PAGE:
                break
        page = list(found.items())[:PAGE]
        return page, page[-1][0] if len(found) > PAGE else ""


class Server(ThreadingHTTPServer):
    """The server and its objects. Subclasses say how it is spoken to."""

    daemon_threads = True
    scheme: ClassVar[str]
    handler: ClassVar[type["Handler"]]

    def __init__(self, *, forgetful: bool = False, certificate: Path | None = None) -> None:
        """``certificate``: of the server and its key, as one file; then it speaks TLS only."""
        super().__init__(("127.0.0.1", 0), self.handler)
        self.objects = Objects(forgetful=forgetful)
        self._tls = certificate is not None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def address(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.server_address[1]}"

    @property
    def options(self) -> dict[str, str]:
        """What the lake and the source of objects need to reach it, in object_store's words."""
        raise NotImplementedError

    def settings(self, secret: str) -> dict[str, str]:
        """What a store under ``store:`` needs to reach it; ``secret`` is the reference to `secret`."""
        raise NotImplementedError

    @property
    def secret(self) -> str:
        """What the client must know."""
        return SECRET

    @property
    def wrong_secret(self) -> str:
        """Of the same form, and refused."""
        return "d3Jvbmctd3Jvbmcta2V5LW9mLXRlc3Rz"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault of the server."""


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """The server at work on a free port of the loopback address until the block ends; every bucket exists."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers requests: `act` for those that are let in."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def act(self, name: str, query: dict[str, str], body: bytes) -> None:
        """Answers one request for ``bucket/key``."""
        raise NotImplementedError

    def admit(self, query: dict[str, str], body: bytes) -> tuple[int, str] | None:
        """Why a request is not let in, as status and code; None if it is."""
        raise NotImplementedError

    def name_of(self, path: str) -> str:
        """``bucket/key`` of a path."""
        return unquote(path).lstrip("/")

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        objects, url = self.server.objects, urlsplit(self.path)
        query, n_bytes = dict(parse_qsl(url.query, keep_blank_values=True)), int(self.headers.get("Content-Length") or 0)
        body, writes = self.rfile.read(n_bytes), self.command in ("PUT", "POST")
        if objects.writes_left is not None and writes and objects.writes_left > 0:
            objects.writes_left -= 1
        elif objects.writes_left is not None and (writes or objects.writes_left == 0):
            self.close_connection = True
            return
        if len(body) < n_bytes:
            return  # it broke off: nothing was written
        name = self.name_of(url.path)
        bucket = name.partition("/")[0]
        self._silent = bool(writes and objects.mute and objects.mute.search(name))
        why = next((objects.refused[w] for w in (f"{self.command} {bucket}", bucket, name) if w in objects.refused), None) or self.admit(query, body)
        if why:
            self.refuse(*why)
        else:
            self.act(name, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  as the library calls them

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        if self._silent and status < 300:
            self.server.objects.mute, self._silent = None, False
            self.refuse(503, "ServiceUnavailable")
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_object(self, name: str, about: Mapping[str, str], missing: str, asked: str) -> None:
        """The object, or the range of it that is asked for; ``missing`` is the code when there is none."""
        objects = self.server.objects
        with objects.lock:
            content, changed = objects.held.get(name), objects.times.get(name, 0.0)
        if content is None:
            self.refuse(404, missing)
            return
        if self.headers.get("If-Match", about["ETag"]) != about["ETag"]:
            self.refuse(412, "PreconditionFailed")
            return
        head = {**about, "Last-Modified": formatdate(changed, usegmt=True), "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
        if found is None:
            self.answer(200, content, head)
            return
        start = int(found[1]) if found[1] else max(0, len(content) - int(found[2]))
        end = min(len(content), int(found[2]) + 1 if found[1] and found[2] else len(content))
        if start >= end:
            self.refuse(416, "InvalidRange")
            return
        self.answer(206, content[start:end], {**head, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def content_tag(content: bytes) -> str:
    """The tag of an object where it is told by content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def number_tag(number: int) -> str:
    """The tag of an object where every write has another."""
    return f'"0x8D{number:X}"'
