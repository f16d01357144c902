"""Real servers in processes of their own, and bare bytes to send them, for tests."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.testing.waits import LONG_S

if TYPE_CHECKING:
    import httpx

PROGRAM = """
import json, sys
from pathlib import Path
from modelinscale.serve import Serve, serve
facts = json.loads(sys.argv[1])
serve([Path(p) for p in facts["packages"]], Serve(**facts["settings"]), lambda port: print(port, flush=True))
print(json.dumps(sorted(sys.modules)))
"""


@dataclass
class Running:
    """A server that answers."""

    process: "subprocess.Popen[str]"
    port: int

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        # A connection each: what one test does to its connection is no business of the next.
        return httpx.Client(base_url=self.url, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0), timeout=LONG_S)

    def close(self) -> None:
        """Lets go of the client."""
        self._client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: Any, **headers: str) -> "httpx.Response":
        """POSTs plain data as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.post(path, content=content, headers={"content-type": "application/json", **headers})

    def get(self, path: str) -> "httpx.Response":
        return self._client.get(path)

    def connect(self) -> socket.socket:
        """A bare connection; reads on it wait at most two minutes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONG_S)

    def say(self, raw: bytes) -> bytes:
        """Sends bytes as they are and returns all that comes back until the server closes."""
        with self.connect() as link:
            link.sendall(raw)
            return read_all(link)

    def rss_bytes(self) -> int:
        """Memory of the process that is in use now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def healthy(self) -> bool:
        """Whether it still answers a good request."""
        return self.post("/predict", {"rows": [{"amount": 1}]}).status_code == 200

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        """Asks it to stop; returns the exit code and the modules it had loaded (none when it was cut off)."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=LONG_S)
        return self.process.returncode, json.loads(out) if out.strip() else []


def read_all(link: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := link.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"<reset>")
    return b"".join(parts)


def head(method: str, path: str, *lines: str, body: bytes = b"", close: bool = True) -> bytes:
    """A request as bytes."""
    fixed = [f"{method} {path} HTTP/1.1", "Host: here", *lines, *(["Connection: close"] if close else [])]
    return "\r\n".join([*fixed, "", ""]).encode("latin-1") + body


def predict(body: bytes, *lines: str, close: bool = True) -> bytes:
    """A POST of rows as bytes."""
    return head("POST", "/predict", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines, body=body, close=close)


def status(reply: bytes) -> int:
    """The status of the first reply."""
    assert reply.startswith(b"HTTP/1.1 "), reply[:200]
    return int(reply[9:12])


@contextmanager
def running(*packages: Path, program: str | None = None, **settings: Any) -> Iterator[Running]:
    """A server, stopped at the end however the test ends."""
    facts = json.dumps({"packages": [str(p) for p in packages], "settings": {"port": 0, **settings}})
    with subprocess.Popen([sys.executable, "-c", program or PROGRAM, facts], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the server ended with {process.wait()}"
            up = Running(process, int(line))
            yield up
            up.close()
        finally:
            process.kill()
