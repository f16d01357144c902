"""Certificates for tests of encrypted connections, made by the program ``openssl``: of an authority of one's own, good ones and bad ones."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from modelinscale.testing.databases import NoServer

Flaw = Literal["", "expired", "another host"]


class Authority:
    """An authority, its files in a folder: ``ca.pem``, and what it signs."""

    def __init__(self, folder: Path, name: str = "Authority of the tests") -> None:
        """Raises `NoServer` where ``openssl`` is not installed."""
        if shutil.which("openssl") is None:
            raise NoServer("openssl is not installed")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.conf").write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\ndefault_md=sha256\npolicy=any\n"
            "unique_subject=no\ncopy_extensions=copy\n[any]\ncommonName=supplied\n"
        )
        self._key("ca")
        more = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        self._openssl("req", "-x509", "-key", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", f"/CN={name}", *more)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str, flaw: Flaw = "") -> tuple[Path, Path]:
        """A certificate and its key, of a server here (``127.0.0.1``) or of a client called so."""
        self._key(name)
        host = "DNS:elsewhere.example" if flaw == "another host" else "DNS:localhost,IP:127.0.0.1"
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}")
        dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"] if flaw == "expired" else ["-days", "2"]
        by = ["-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key"]
        self._openssl("ca", "-batch", "-notext", *by, "-in", f"{name}.csr", "-out", f"{name}.pem", *dates)
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def both(self, name: str, flaw: Flaw = "") -> Path:
        """A certificate and its key as one file."""
        certificate, key = self.sign(name, flaw)
        path = self.folder / f"{name}-both.pem"
        path.write_text(certificate.read_text() + key.read_text())
        return path

    def _key(self, name: str) -> None:
        self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {words[0]}: {done.stderr[-1000:]}")
