"""Starting, stopping, and what the process carries."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import MisError, NotSupportedYet, PackageError, UsageError
from modelinscale.serve import Serve, serve
from modelinscale.testing import waits
from modelinscale.testing.packages import write_package
from modelinscale.testing.servers import PROGRAM, head, predict, read_all, status

HEAVY = {"torch", "lightgbm", "pyarrow", "polars", "ray", "mlflow", "onnx", "lance", "sklearn", "pandas", "scipy"}
GOOD = b'{"rows": [{"amount": 1}]}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0(start: Any, packages: dict[str, Path], number: int) -> None:
    with start(packages["binary"]) as up:
        assert up.healthy()
        code, _ = up.stop(number)
    assert code == 0


def test_a_process_that_serves_is_light(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"]) as up:
        assert up.healthy()
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/v2/models/binary"):
            assert up.get(path).status_code == 200
        assert up.rss_bytes() < 200 << 20
        _, modules = up.stop()
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


@pytest.mark.slow
def test_the_first_answer_comes_soon_after_the_start(packages: dict[str, Path]) -> None:
    # The promise is 1.5 s on a machine of one's own; tests share theirs, so the best of three counts, by the processor's clock.
    program = (
        "import os, socket, threading, time\n"
        "from modelinscale.serve import Serve, serve\n"
        "def ask(port):\n"
        "    with socket.create_connection(('127.0.0.1', port)) as link:\n"
        f"        link.sendall({predict(GOOD)!r})\n"
        "        assert link.recv(100).startswith(b'HTTP/1.1 200')\n"
        "    print(sum(os.times()[:2]), flush=True)\n"
        f"serve([{str(packages['binary'])!r}], Serve(port=0), lambda port: threading.Thread(target=ask, args=(port,), daemon=True).start())\n"
    )
    spent = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            spent.append(float(process.stdout.readline()))
            process.terminate()
    assert min(spent) < 1.5


def held_by(file: Path) -> str:
    """A server whose model takes a second and a half for the first batch of more than four rows, so that it is known to be slow, then while a file is there."""
    return f"""
import os, time
from modelinscale.package import Package
run, known = Package.run, []
def slowly(self, tensors):
    if len(tensors["amount"]) > 4:
        time.sleep(0 if known else 1.5)
        known.append(True)
        while os.path.exists({str(file)!r}):
            time.sleep(0.02)
    return run(self, tensors)
Package.run = slowly
{PROGRAM}"""


@pytest.mark.slow
def test_requests_in_work_are_finished_and_new_ones_refused(start: Any, packages: dict[str, Path], tmp_path: Path) -> None:
    body = b'{"rows": [' + b",".join([b'{"amount": 1, "city": "Paris", "at": "2024-05-01T13:00:00"}'] * 9999) + b"]}"
    held = tmp_path / "held"
    with start(packages["binary"], program=held_by(held), drain=200, timeout=200) as up:
        assert up.post("/predict", body).status_code == 200
        held.touch()
        links = [up.connect() for _ in range(8)]
        for link in links:
            link.sendall(predict(body, close=False))
        waits.until(lambda: "mis_requests_in_flight 8\n" in up.get("/metrics").text, "that all are in work")
        up.process.send_signal(signal.SIGTERM)
        held.unlink()
        replies = [read_all(link) for link in links]
        for link in links:
            link.close()
        assert up.process.wait(waits.LONG_S) == 0
    for reply in replies:
        assert status(reply) == 200
        assert reply.count(b'"prediction"') == 9999
        assert b"connection: close" in reply
    with pytest.raises(ConnectionRefusedError), up.connect():
        pass


@pytest.mark.slow
def test_while_it_goes_it_is_not_ready_but_still_answers(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], unready=5) as up:
        assert up.get("/v2/health/ready").json() == {"ready": True}
        up.process.send_signal(signal.SIGTERM)
        waits.until(lambda: up.get("/v2/health/ready").status_code == 503, "that it heard the signal")
        ready = up.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert up.get("/v2/models/binary/ready").status_code == 503
        assert up.get("/v2/health/live").status_code == 200
        assert "mis_ready 0\n" in up.get("/metrics").text
        assert up.healthy()
        assert up.process.wait(waits.LONG_S) == 0


@pytest.mark.slow
def test_a_half_sent_request_does_not_hold_it_up_longer_than_the_drain(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], drain=0.5, header_timeout=250, body_timeout=250) as up, up.connect() as link:
        link.sendall(head("POST", "/predict", "Content-Type: application/json", "Content-Length: 100", body=b'{"ro'))
        waits.until(lambda: "mis_connections 2\n" in up.get("/metrics").text, "that both are connected")
        assert up.stop()[0] == 0  # which waits at most 120 s


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], drain=250, unready=250) as up:
        up.process.send_signal(signal.SIGTERM)
        waits.until(lambda: up.get("/v2/health/ready").status_code == 503, "that it heard the first")  # two at once would be one
        assert up.stop()[0] == 0  # which waits at most 120 s


def test_an_idle_connection_is_closed_when_it_goes(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], drain=250, idle_timeout=250) as up, up.connect() as link:
        link.sendall(head("GET", "/v2", close=False))
        assert status(link.recv(1000)) == 200
        assert up.stop()[0] == 0  # which waits at most 120 s
        assert read_all(link) == b""


def test_a_port_in_use_is_told(packages: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MisError, match=rf"port {port} on 127.0.0.1 is in use by another program.*--port {port + 1}"):
            serve([packages["binary"]], Serve(port=port))


@pytest.mark.parametrize(
    ("host", "message"), [("no.such.host.invalid", "there is no address"), ("192.0.2.1", "is not an address of this machine"), ("a" * 300, "no address")]
)
def test_an_address_that_cannot_be_had_is_told(packages: dict[str, Path], host: str, message: str) -> None:
    with pytest.raises(MisError, match=message):
        serve([packages["binary"]], Serve(host=host, port=0))


def test_a_damaged_package_is_never_served(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "p")
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"model\.onnx"):
        serve([folder], Serve(port=0))


def test_nothing_to_serve_two_of_one_name_and_many_processes_are_refused(packages: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no package to serve"):
        serve([], Serve())
    with pytest.raises(UsageError, match="two packages are named 'binary'"):
        serve([packages["binary"], packages["binary"]], Serve(port=0))
    with pytest.raises(NotSupportedYet, match="2 processes is planned"):
        serve([packages["binary"]], Serve(workers=2))


def test_a_server_outside_the_main_thread_is_refused(packages: dict[str, Path]) -> None:
    told: list[str] = []

    def run() -> None:
        try:
            serve([packages["binary"]], Serve(port=0))
        except UsageError as error:
            told.append(error.message)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(waits.LONG_S)
    assert told == ["a server must run in the main thread of a process: signals arrive there."]


@pytest.mark.slow
def test_it_serves_on_asyncio_where_uvloop_is_not_installed(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], program="import sys; sys.modules['uvloop'] = None\n" + PROGRAM) as up:
        assert up.healthy()
        with up.connect() as link:
            link.sendall(predict(GOOD))
            assert status(read_all(link)) == 200
        assert up.stop()[0] == 0


@pytest.mark.slow
def test_every_address_of_a_host_gets_the_same_port(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"], host="localhost") as up:
        for *_, address in socket.getaddrinfo("localhost", up.port, type=socket.SOCK_STREAM):
            with socket.create_connection((str(address[0]), up.port), timeout=60) as link:
                link.sendall(head("GET", "/v2"))
                assert status(read_all(link)) == 200


@pytest.mark.slow
def test_answers_that_take_too_long_get_503(start: Any, packages: dict[str, Path], tmp_path: Path) -> None:
    held = tmp_path / "held"
    with start(packages["binary"], program=held_by(held), timeout=0.5) as up:
        up.post("/predict", {"rows": [{}] * 8})  # the first time it is not known to be slow, and holds up the loop
        held.touch()
        reply = up.post("/predict", {"rows": [{}] * 8})
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert up.get("/v2/health/live").status_code == 200, "a slow model does not keep others waiting"
        held.unlink()
        waits.until(up.healthy, "that it answers again")
