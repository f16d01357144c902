"""A small Google Cloud Storage server in this process, for tests: its XML API with numbers of writes ("generations") as conditions.

Who asks must send a token signed by the service account's key (RS256), or it answers 401. Keys are made by the program ``openssl``.
Source: Google, XML API reference; self-signed JWTs; RFC 7518, 3.3, and RFC 8017, 8.2.2 for the signature.
"""

import base64
import hashlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from modelinscale.testing.buckets import Server, content_tag, serving
from modelinscale.testing.s3 import S3Handler

_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")  # what stands before the digest in a signature
_MAIL = "mis@tests.iam.gserviceaccount.com"


class GsHandler(S3Handler):
    """Answers as Google does: much as S3, conditions and names of writes apart."""

    def admit(self, query: dict[str, str], body: bytes) -> tuple[int, str] | None:
        head, _, signature = self.headers.get("Authorization", "").removeprefix("Bearer ").rpartition(".")
        if not head:
            return 401, "AuthenticationRequired"
        said = json.loads(_unpacked(head.rpartition(".")[2]))
        modulus = _key(0)[1]
        whole = pow(int.from_bytes(_unpacked(signature), "big"), 65537, modulus).to_bytes(256, "big")
        wanted = b"\0\1" + b"\xff" * (256 - 3 - 51) + b"\0" + _SHA256 + hashlib.sha256(head.encode()).digest()
        ours = said["iss"] == _MAIL and "googleapis.com/auth/" in said["scope"] and said["iat"] - 60 <= time.time() < said["exp"]
        return None if whole == wanted and ours else (401, "InvalidAuthentication")

    def condition(self) -> tuple[bool, str | None]:
        number = self.headers.get("x-goog-if-generation-match")
        return number == "0", None if number == "0" else number

    def about(self, name: str) -> dict[str, str]:
        objects = self.server.objects
        with objects.lock:
            held = objects.held.get(name)
            return {"ETag": "" if held is None else content_tag(held), "x-goog-generation": str(objects.numbers.get(name, 0))}


class GsServer(Server):
    """The server and its objects."""

    scheme = "gs"
    handler = GsHandler

    @property
    def options(self) -> dict[str, str]:
        return {"google_base_url": self.address, "google_service_account_key": self.secret, "allow_http": "true"}

    def settings(self, secret: str) -> dict[str, str]:
        return {"type": "gs", "endpoint": self.address, "key": secret}

    @property
    def secret(self) -> str:
        return _account(0)

    @property
    def wrong_secret(self) -> str:
        return _account(1)


@contextmanager
def gs_server(*, forgetful: bool = False, certificate: Path | None = None) -> Iterator[GsServer]:
    """A server on a free port of the loopback address; every bucket exists."""
    with serving(GsServer(forgetful=forgetful, certificate=certificate)) as server:
        yield server


@cache
def _key(number: int) -> tuple[str, int]:
    """A private key and its modulus; another one for another number."""
    made = subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], capture_output=True, text=True, check=True)
    shown = subprocess.run(["openssl", "rsa", "-noout", "-modulus"], input=made.stdout, capture_output=True, text=True, check=True)
    return made.stdout, int(re.sub(r"^.*=", "", shown.stdout.strip()), 16)


def _account(number: int) -> str:
    """A service account's key file."""
    found = {"type": "service_account", "private_key": _key(number)[0], "private_key_id": f"k{number}", "client_email": _MAIL, "project_id": "tests"}
    return json.dumps(found)


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
