"""A small S3 server in this process, for tests: objects in memory, whole or in parts, listed, written only if absent or on top of what was read.

Signatures are not looked at.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_PAGE = 1000


class _Objects:
    """What is stored: bytes by ``bucket/key``, and parts of uploads that are not complete."""

    def __init__(self, *, forgetful: bool) -> None:
        self.lock = threading.Lock()
        self.held: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.times: dict[str, float] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        """Answers instead of objects: status and code by ``bucket/key`` or ``bucket``."""
        self.forgetful = forgetful
        """Whether it overwrites though told not to, as some imitations of S3 do."""

    def put(self, name: str, content: bytes, *, absent: bool, only_on: str | None = None) -> bool:
        """Whether it was written: not over one that is there if ``absent``, nor over another one than ``only_on``."""
        with self.lock:
            if not self.forgetful and ((absent and name in self.held) or (only_on and (name not in self.held or _etag(self.held[name]) != only_on))):
                return False
            self.held[name], self.times[name] = content, time.time()
            return True


class Server(ThreadingHTTPServer):
    """The server and its objects."""

    daemon_threads = True

    def __init__(self, *, forgetful: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = _Objects(forgetful=forgetful)

    @property
    def options(self) -> dict[str, str]:
        """What the lake needs to reach it."""
        endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        return {"aws_endpoint": endpoint, "aws_region": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test", "allow_http": "true"}


@contextmanager
def s3_server(*, forgetful: bool = False) -> Iterator[Server]:
    """A server on a free port of the loopback address; every bucket exists."""
    server = Server(forgetful=forgetful)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return unquote(url.path).lstrip("/"), query, body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def do_PUT(self) -> None:
        name, query, body = self._asked()
        held = self.server.objects
        if "uploadId" in query:
            held.parts[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, ETag=_etag(body))
            return
        source = self.headers.get("x-amz-copy-source")
        if source:
            body = held.held[unquote(source).lstrip("/")]
        if not held.put(name, body, absent=self.headers.get("If-None-Match") == "*", only_on=self.headers.get("If-Match")):
            self._refuse(412, "PreconditionFailed")
        elif source:
            self._answer(200, f"<CopyObjectResult><ETag>{_etag(body)}</ETag></CopyObjectResult>".encode())
        else:
            self._answer(200, ETag=_etag(body))

    def do_POST(self) -> None:
        name, query, body = self._asked()
        held = self.server.objects
        if "delete" in query:
            bucket = name.rstrip("/")
            keys = [node.text or "" for node in ElementTree.fromstring(body).iter() if node.tag.rpartition("}")[2] == "Key"]
            for key in keys:
                held.held.pop(f"{bucket}/{key}", None)
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        elif "uploads" in query:
            upload = hashlib.sha256(f"{name}{len(held.parts)}".encode()).hexdigest()
            held.parts[upload] = {}
            self._answer(200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode())
        else:
            parts = held.parts.pop(query["uploadId"])
            whole = b"".join(parts[n] for n in sorted(parts))
            if held.put(name, whole, absent=self.headers.get("If-None-Match") == "*"):
                self._answer(200, f"<CompleteMultipartUploadResult><ETag>{_etag(whole)}</ETag></CompleteMultipartUploadResult>".encode())
            else:
                self._refuse(412, "PreconditionFailed")

    def do_DELETE(self) -> None:
        name, query, _ = self._asked()
        if "uploadId" in query:
            self.server.objects.parts.pop(query["uploadId"], None)
        else:
            self.server.objects.held.pop(name, None)
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name, query, _ = self._asked()
        if "list-type" in query:
            self._list(name.rstrip("/"), query)
            return
        content = self.server.objects.held.get(name)
        if name in self.server.objects.refused:
            self._refuse(*self.server.objects.refused[name])
            return
        if content is None:
            self._refuse(404, "NoSuchKey")
            return
        if self.headers.get("If-Match", _etag(content)) != _etag(content):
            self._refuse(412, "PreconditionFailed")
            return
        about = {"ETag": _etag(content), "Last_Modified": formatdate(self.server.objects.times[name], usegmt=True), "Accept_Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._answer(200, content, **about, Content_Length=str(len(content)))
            return
        start = int(asked[1]) if asked[1] else max(0, len(content) - int(asked[2]))
        end = min(len(content), int(asked[2]) + 1 if asked[1] and asked[2] else len(content))
        part = content[start:end]
        self._answer(206, part, **about, Content_Length=str(len(part)), Content_Range=f"bytes {start}-{end - 1}/{len(content)}")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        if bucket in self.server.objects.refused:
            self._refuse(*self.server.objects.refused[bucket])
            return
        after = query.get("continuation-token") or query.get("start-after") or ""
        with self.server.objects.lock:
            keys = sorted(name[len(bucket) + 1 :] for name in self.server.objects.held if name.startswith(f"{bucket}/{prefix}"))
            contents = {key: self.server.objects.held[f"{bucket}/{key}"] for key in keys}
            changed = {key: datetime.fromtimestamp(self.server.objects.times[f"{bucket}/{key}"], UTC) for key in keys}
        entries: dict[str, str] = {}
        for key in keys:
            rest = key[len(prefix) :]
            folder = prefix + rest[: rest.index(delimiter) + 1] if delimiter and delimiter in rest else ""
            if (folder or key) <= after or folder in entries:
                continue
            entries[folder or key] = (
                f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                if folder
                else f"<Contents><Key>{escape(key)}</Key><Size>{len(contents[key])}</Size><ETag>{escape(_etag(contents[key]))}</ETag>"
                f"<LastModified>{changed[key]:%Y-%m-%dT%H:%M:%S}.000Z</LastModified></Contents>"
            )
        shown = list(entries)[:_PAGE]
        more = len(entries) > len(shown)
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        said = "".join(entries[name] for name in shown)
        truncated = str(more).lower()
        self._answer(200, f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}<KeyCount>{len(shown)}</KeyCount>{said}</ListBucketResult>".encode())


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
