"""A small S3 server in this process, for tests: objects in memory, whole or in parts, listed, written only if absent or on top of what was read.

Signatures (version 4) are checked against the key ``test`` where the server was made with ``signed``. Source: AWS, Signature Version 4 for API requests.
"""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from modelinscale.testing.buckets import SECRET, Handler, Server, content_tag, serving


class S3Handler(Handler):
    """Answers as S3 does."""

    version: ClassVar[str] = "x-amz-version-id"

    def admit(self, query: dict[str, str], body: bytes) -> tuple[int, str] | None:
        server = self.server
        if not isinstance(server, S3Server) or not server.signed:
            return None
        said = dict(part.strip().split("=", 1) for part in self.headers.get("Authorization", "").removeprefix("AWS4-HMAC-SHA256").split(",") if "=" in part)
        key, _, scope = said.get("Credential", "").partition("/")
        if key != "test":
            return 403, "InvalidAccessKeyId"
        url, signed = urlsplit(self.path), said["SignedHeaders"].split(";")
        pairs = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(parse_qsl(url.query, keep_blank_values=True)))
        headers = "".join(f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in signed)
        request = "\n".join([self.command, url.path, pairs, headers, said["SignedHeaders"], self.headers["x-amz-content-sha256"]])
        words = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], scope, hashlib.sha256(request.encode()).hexdigest()])
        secret = ("AWS4" + SECRET).encode()
        for part in (*scope.split("/"), words):
            secret = hmac.digest(secret, part.encode(), "sha256")
        return None if hmac.compare_digest(secret.hex(), said["Signature"]) else (403, "SignatureDoesNotMatch")

    def act(self, name: str, query: dict[str, str], body: bytes) -> None:
        if self.command in ("GET", "HEAD"):
            self._list(name.rstrip("/"), query) if "list-type" in query else self._get(name)
        elif self.command == "PUT":
            self._put(name, query, body)
        elif self.command == "POST":
            self._post(name, query, body)
        else:
            self._delete(name, query)

    def condition(self) -> tuple[bool, str | None]:
        """Whether there must be no object, and which one there must be."""
        return self.headers.get("If-None-Match") == "*", self.headers.get("If-Match")

    def about(self, name: str) -> dict[str, str]:
        """What the answer says of an object."""
        held = self.server.objects.held.get(name)
        return {"ETag": content_tag(held)} if held is not None else {"ETag": ""}

    def _get(self, name: str) -> None:
        self.send_object(name, self.about(name), "NoSuchKey", self.headers.get("Range") or "")

    def _put(self, name: str, query: dict[str, str], body: bytes) -> None:
        objects = self.server.objects
        if "uploadId" in query:
            objects.parts[query["uploadId"]][int(query["partNumber"])] = body
            self.answer(200, headers={"ETag": content_tag(body)})
            return
        source = self.headers.get("x-amz-copy-source") or self.headers.get("x-goog-copy-source")
        if source:
            body = objects.held[unquote(source).lstrip("/")]
        absent, only_on = self.condition()
        if not objects.put(name, body, absent=absent, only_on=only_on):
            self.refuse(*((404, "NoSuchKey") if self.headers.get("If-Match") and name not in objects.held else (412, "PreconditionFailed")))
        elif source:
            self.answer(200, f"<CopyObjectResult><ETag>{content_tag(body)}</ETag></CopyObjectResult>".encode(), self.about(name))
        else:
            self.answer(200, headers=self.about(name))

    def _post(self, name: str, query: dict[str, str], body: bytes) -> None:
        objects = self.server.objects
        if "delete" in query:
            bucket = name.rstrip("/")
            keys = [node.text or "" for node in ElementTree.fromstring(body).iter() if node.tag.rpartition("}")[2] == "Key"]
            for key in keys:
                objects.held.pop(f"{bucket}/{key}", None)
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self.answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        elif "uploads" in query:
            upload = hashlib.sha256(f"{name}{len(objects.parts)}".encode()).hexdigest()
            objects.parts[upload] = {}
            self.answer(200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode())
        else:
            parts = objects.parts[query["uploadId"]]
            whole = b"".join(parts[n] for n in sorted(parts))
            absent, only_on = self.condition()
            if objects.put(name, whole, absent=absent, only_on=only_on):
                del objects.parts[query["uploadId"]]
                said = f"<CompleteMultipartUploadResult><ETag>{content_tag(whole)}</ETag></CompleteMultipartUploadResult>"
                self.answer(200, said.encode(), self.about(name))
            else:
                self.refuse(412, "PreconditionFailed")

    def _delete(self, name: str, query: dict[str, str]) -> None:
        if "uploadId" in query:
            self.server.objects.parts.pop(query["uploadId"], None)
        else:
            self.server.objects.held.pop(name, None)
        self.answer(204)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        objects, after = self.server.objects, query.get("continuation-token") or query.get("start-after") or ""
        page, following = objects.entries(bucket, query.get("prefix", ""), query.get("delimiter", ""), after)
        said = ""
        for shown, name in page:
            content = objects.held.get(name)
            if not name:
                said += f"<CommonPrefixes><Prefix>{escape(shown)}</Prefix></CommonPrefixes>"
            elif content is not None:
                changed = datetime.fromtimestamp(objects.times[name], UTC)
                said += (
                    f"<Contents><Key>{escape(shown)}</Key><Size>{len(content)}</Size><ETag>{escape(content_tag(content))}</ETag>"
                    f"<LastModified>{changed:%Y-%m-%dT%H:%M:%S}.000Z</LastModified></Contents>"
                )
        token = f"<NextContinuationToken>{escape(following)}</NextContinuationToken>" if following else ""
        truncated = str(bool(following)).lower()
        self.answer(200, f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}<KeyCount>{len(page)}</KeyCount>{said}</ListBucketResult>".encode())


class S3Server(Server):
    """The server and its objects."""

    scheme = "s3"
    handler = S3Handler

    def __init__(self, *, forgetful: bool = False, signed: bool = False, certificate: Path | None = None) -> None:
        super().__init__(forgetful=forgetful, certificate=certificate)
        self.signed = signed

    @property
    def options(self) -> dict[str, str]:
        key = {"aws_access_key_id": "test", "aws_secret_access_key": SECRET}
        return {"aws_endpoint": self.address, "aws_region": "us-east-1", "allow_http": "true", **key}

    def settings(self, secret: str) -> dict[str, str]:
        return {"type": "s3", "endpoint": self.address, "region": "us-east-1", "access_key": "${ENV:MIS_TEST_ID}", "secret_key": secret}


@contextmanager
def s3_server(*, forgetful: bool = False, signed: bool = False, certificate: Path | None = None) -> Iterator[S3Server]:
    """A server on a free port of the loopback address; every bucket exists."""
    with serving(S3Server(forgetful=forgetful, signed=signed, certificate=certificate)) as server:
        yield server
