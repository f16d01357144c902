"""A small Azure Blob Storage server in this process, for tests: blobs put whole or in blocks, listed, copied, and removed in batches.

Every request must be signed with the account's key (Shared Key), or it answers 403. Source: Microsoft, Blob service REST API; Authorize with Shared Key.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from modelinscale.testing.buckets import SECRET, Handler, Server, number_tag, serving

ACCOUNT = "tests"
_SIGNED = ("Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date")
_SIGNED_TOO = ("If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range")


class AzHandler(Handler):
    """Answers as Azure does. The account's name leads the path, as with Microsoft's own emulator."""

    def name_of(self, path: str) -> str:
        return unquote(path).lstrip("/").removeprefix(f"{ACCOUNT}/")

    def admit(self, query: dict[str, str], body: bytes) -> tuple[int, str] | None:
        wanted = f"SharedKey {ACCOUNT}:{_signature(self.command, self.path, query, self.headers)}"
        return None if hmac.compare_digest(self.headers.get("Authorization", ""), wanted) else (403, "AuthenticationFailed")

    def act(self, name: str, query: dict[str, str], body: bytes) -> None:
        what = query.get("comp", "")
        if self.command == "GET" and what == "list":
            self._list(name.rstrip("/"), query)
        elif self.command in ("GET", "HEAD"):
            self.send_object(name, self._about(name), "BlobNotFound", self.headers.get("x-ms-range") or self.headers.get("Range") or "")
        elif self.command == "PUT" and what == "block":
            self.server.objects.parts.setdefault(name, {})[query["blockid"]] = body
            self.answer(201)
        elif self.command == "PUT":
            self._put(name, what, body)
        elif self.command == "POST" and what == "batch":
            self._batch(body)
        elif self.command == "DELETE":
            self._gone(name, self.answer)
        else:
            self.refuse(400, "UnsupportedHttpVerb")

    def _about(self, name: str) -> dict[str, str]:
        return {"ETag": number_tag(self.server.objects.numbers.get(name, 0)), "x-ms-blob-type": "BlockBlob"}

    def _put(self, name: str, what: str, body: bytes) -> None:
        objects, source = self.server.objects, self.headers.get("x-ms-copy-source")
        if source:
            body = objects.held[self.name_of(urlsplit(source).path)]
        elif what == "blocklist":
            body = b"".join(objects.parts.get(name, {})[node.text or ""] for node in ElementTree.fromstring(body))
        elif self.headers.get("x-ms-blob-type") != "BlockBlob":
            self.refuse(400, "MissingRequiredHeader")
            return
        absent = self.headers.get("If-None-Match") == "*"
        if not objects.put(name, body, absent=absent, only_on=self.headers.get("If-Match")):
            self.refuse(*((409, "BlobAlreadyExists") if absent else (412, "ConditionNotMet")))
            return
        if what == "blocklist":
            objects.parts.pop(name, None)
        self.answer(202 if source else 201, headers={**self._about(name), **({"x-ms-copy-status": "success"} if source else {})})

    def _gone(self, name: str, answer: Callable[[int], None]) -> None:
        found = self.server.objects.held.pop(name, None)
        answer(202) if found is not None else self.refuse(404, "BlobNotFound")

    def _batch(self, body: bytes) -> None:
        """Many removals at once: each has a request of its own, signed by itself, and an answer of its own."""
        mark, said = body.split(b"\r\n", 1)[0], b""
        for n, part in enumerate(body.split(mark)[1:-1]):
            head = part.decode().split("\r\n\r\n", 1)[1].strip().split("\r\n")
            path = head[0].split(" ")[1]
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            wanted = f"SharedKey {ACCOUNT}:{_signature('DELETE', path, {}, _AnyCase(headers))}"
            status = "202 Accepted" if headers.get("authorization") == wanted else "403 AuthenticationFailed"
            if status.startswith("202") and self.server.objects.held.pop(self.name_of(urlsplit(path).path), None) is None:
                status = "404 BlobNotFound"
            code = f"x-ms-error-code: {status[4:]}\r\n" if status[0] == "4" else ""
            number = re.search(rb"Content-ID: *(\d+)", part, re.IGNORECASE)
            said += b"--answers\r\nContent-Type: application/http\r\nContent-ID: %d\r\n\r\n" % (int(number[1]) if number else n)
            said += f"HTTP/1.1 {status}\r\n{code}x-ms-request-id: {n}\r\nx-ms-version: 2023-11-03\r\n\r\n".encode()
        self.answer(202, said + b"--answers--\r\n", {"Content-Type": "multipart/mixed; boundary=answers"})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        objects = self.server.objects
        page, following = objects.entries(bucket, query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", ""))
        said = ""
        for shown, name in page:
            content = objects.held.get(name)
            if not name:
                said += f"<BlobPrefix><Name>{escape(shown)}</Name></BlobPrefix>"
            elif content is not None:
                changed = format_datetime(datetime.fromtimestamp(int(objects.times[name]), UTC), usegmt=True)
                said += (
                    f"<Blob><Name>{escape(shown)}</Name><Properties><Last-Modified>{changed}</Last-Modified><Content-Length>{len(content)}</Content-Length>"
                    f"<Content-Type>application/octet-stream</Content-Type><Etag>{escape(number_tag(objects.numbers[name]))}</Etag></Properties></Blob>"
                )
        self.answer(200, f"<EnumerationResults><Blobs>{said}</Blobs><NextMarker>{escape(following)}</NextMarker></EnumerationResults>".encode())


class _AnyCase(dict[str, str]):
    """Headers of a request inside another one."""

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        return super().get(name.lower(), default)


class AzServer(Server):
    """The server and its objects."""

    scheme = "az"
    handler = AzHandler

    @property
    def options(self) -> dict[str, str]:
        key = {"azure_storage_account_name": ACCOUNT, "azure_storage_account_key": SECRET}
        return {**key, "azure_endpoint": f"{self.address}/{ACCOUNT}", "allow_http": "true"}

    def settings(self, secret: str) -> dict[str, str]:
        return {"type": "az", "endpoint": f"{self.address}/{ACCOUNT}", "account": ACCOUNT, "key": secret}


@contextmanager
def az_server(*, forgetful: bool = False, certificate: Path | None = None) -> Iterator[AzServer]:
    """A server on a free port of the loopback address; every container exists."""
    with serving(AzServer(forgetful=forgetful, certificate=certificate)) as server:
        yield server


def _signature(method: str, path: str, query: Mapping[str, str], headers: "Message[str, str] | _AnyCase") -> str:
    """What a request with these headers must be signed with."""
    length = headers.get("Content-Length") or ""
    first = [length if name == "Content-Length" and length != "0" else "" if name == "Content-Length" else headers.get(name) or "" for name in _SIGNED]
    dated = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith("x-ms-"))
    shown = "".join(f"\n{name}:{query[name]}" for name in sorted(query))
    words = "\n".join([method, *first, *(headers.get(name) or "" for name in _SIGNED_TOO), *(f"{n}:{v}" for n, v in dated), f"/{ACCOUNT}{urlsplit(path).path}"])
    return base64.b64encode(hmac.digest(base64.b64decode(SECRET), (words + shown).encode(), "sha256")).decode()
