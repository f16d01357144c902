"""Nothing connects out: collect, train, register, score and serve, telemetry of every dependency included."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

MIS = str(Path(sys.executable).parent / "mis")
GUARD = """
import os, socket, sys
def guard(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else args[1][0] if isinstance(args[1], tuple) else "unix"
        if host not in ("127.0.0.1", "::1", "localhost", "unix", None, "", b"127.0.0.1"):
            with open(os.environ["GUARD_FILE"], "a") as file:
                file.write(f"{event} {host}\\n")
sys.addaudithook(guard)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("x,shop,y\n" + "".join(f"{i % 17},{'abc'[i % 3]},{'yes' if i % 17 > 8 else 'no'}\n" for i in range(600)))
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    return tmp_path


def whole_way(project: Path, prefix: list[str], environment: dict[str, str]) -> None:
    """init, run, predict and a server that answers, each command behind ``prefix``."""
    for words in (["init", "rows.csv", "--target", "y", "--model", "trees"], ["run", "--json"], ["predict", "rows.csv", "--out", "o.csv", "--json"]):
        subprocess.run([*prefix, MIS, *words], cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*prefix, MIS, "serve", "--port", "0", "--json"], cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        said = json.loads(server.stdout.readline())
        body = json.dumps({"rows": [{"x": 3, "shop": "a"}]}).encode()
        request = urllib.request.Request(f"{said['address']}/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["predictions"][0]["prediction"] in ("yes", "no")
        time.sleep(0.5)  # reports to makers are sent a moment after the start
        os.kill(said["pid"], signal.SIGTERM)
        assert server.wait(20) == 0


@pytest.mark.slow
def test_no_python_code_looks_up_or_connects_to_another_machine(project: Path) -> None:
    seen = project / "seen.txt"
    whole_way(project, [], {**os.environ, "PYTHONPATH": str(project), "GUARD_FILE": str(seen)})
    assert not seen.exists(), seen.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: native code cannot be watched")
def test_no_native_code_connects_to_another_machine(project: Path) -> None:
    traced = project / "trace"
    traced.mkdir()
    whole_way(project, ["strace", "-ff", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(traced / "t")], dict(os.environ))
    lines = [line for file in traced.iterdir() for line in file.read_text(errors="replace").splitlines()]
    out = [line for line in lines if re.search(r"sin6?_addr|inet_addr|inet_pton", line) and not re.search(r"127\.0\.0\.1|\"::1\"", line)]
    assert not out, out[:10]


@pytest.mark.slow
def test_the_demo_and_a_network_connect_to_nobody_either(project: Path) -> None:
    seen = project / "seen.txt"
    environment = {**os.environ, "PYTHONPATH": str(project), "GUARD_FILE": str(seen)}
    subprocess.run([MIS, "demo", "shown", "--days", "60", "--json"], cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    for words in (["init", "rows.csv", "--target", "y", "--model", "auto"], ["run", "--json"]):
        subprocess.run([MIS, *words], cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert not seen.exists(), seen.read_text()
