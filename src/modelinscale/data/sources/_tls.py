"""Encrypted connections to servers: whose word is trusted for a server's certificate, and this client's own. The same three settings everywhere."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from modelinscale.core.errors import SourceError
from modelinscale.core.files import Scratch
from modelinscale.core.secrets import reveal

CHECK = "Check `ca`, the names and dates of the server's certificate, and whether the server speaks TLS there."


class Tls(NamedTuple):
    """What a source says of certificates, as references."""

    ca: str | None
    """The certificates (PEM) that the server's is checked against; None: those of this machine."""
    certificate: str | None
    """This client's certificate (PEM), where the server asks for one."""
    certificate_key: str | None
    """Its key (PEM)."""

    def context(self) -> ssl.SSLContext:
        """For libraries that take Python's own. The server's certificate and name are checked."""
        try:
            context = ssl.create_default_context(cadata=reveal(self.ca) if self.ca else None)
        except (ssl.SSLError, ValueError):  # not shown: what is read may be a key
            raise SourceError("`ca` holds no certificate (PEM).", fix="Write `ca: ${FILE:ca.pem}`.") from None
        if self.certificate:
            with self.files() as (_, certificate, key):
                try:
                    context.load_cert_chain(str(certificate), str(key) if key else None)
                except (ssl.SSLError, ValueError):
                    fix = "Write `certificate: ${FILE:client.pem}` and `certificate_key: ${FILE:client.key}`."
                    raise SourceError("`certificate` and `certificate_key` hold no certificate with its key (PEM).", fix=fix) from None
        return context

    @contextmanager
    def files(self) -> Iterator[tuple[Path | None, Path | None, Path | None]]:
        """For libraries that take only files: a folder of this user's alone has them while the block runs. A killed process's goes with the next one."""
        with Scratch("tls") as folder:
            found: list[Path | None] = []
            for name, reference in zip(("ca.pem", "certificate.pem", "key.pem"), self, strict=True):
                path = folder / name
                if reference:
                    path.touch(mode=0o600)
                    path.write_text(reveal(reference) + "\n", encoding="utf-8")
                found.append(path if reference else None)
            yield found[0], found[1], found[2]

    @property
    def is_asked(self) -> bool:
        return any(self)


NO_TLS = Tls(None, None, None)


def about_certificates(words: str) -> bool:
    """Whether what a library says is about the encryption, not about the server being away."""
    return re.search(r"certificate|\bssl\b|\btls\b|_ssl\.c|handshake", words, re.IGNORECASE) is not None


def plain(words: str) -> str:
    """A library's message without its source places.

    >>> plain("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)")
    'certificate verify failed: certificate has expired'
    """
    return re.sub(r"^(?:Error -?\d+ connecting to \S+\. |\[Errno \S+\] )?\[SSL: \w+\] | \(_ssl\.c:\d+\)", "", words).rstrip(" .")
