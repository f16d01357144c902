"""The one connection to Ray that a process can have: to a cluster that runs already, or to one started for this process alone.

A private cluster listens on loopback only, behind a token nobody else knows, without telemetry, and ends with the process, however that ends.
"""

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from modelinscale.core.errors import ComputeError, MisError, needs
from modelinscale.core.logs import log

START_S = 90.0
"""Longest wait for a cluster to start or answer, once something listens at its address; Ray itself gives up after about 20 s."""
GONE_S = 10**8
"""How long the head may be gone until Ray itself gives up, when it ends the process; whoever waits for results gives up after a minute."""
OOM_RETRIES = 5
"""How often a task is tried again that a node stopped for want of memory: another's may have been to blame. Ray waits longer each time."""
REACH_S = 10.0
"""Longest wait for something to listen at an address."""


class _Held:
    """What this process is connected to. Ray has one connection a process, so this is one too."""

    def __init__(self, address: str | None, ray: ModuleType) -> None:
        self.address, self.ray = address, ray
        self.users = 0
        self.folder = Path(tempfile.mkdtemp(prefix="mis-ray-", dir=_short_folder())) if address is None else None
        self.ready, self.enough, self.error = threading.Event(), threading.Event(), None
        self.theirs = ray.is_initialized()  # by the user's own ray.init, before us
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)

    error: BaseException | None
    _guard: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        if self.theirs:
            return
        self._thread.start()
        if not self.ready.wait(START_S):
            self.error = TimeoutError(f"no answer in {START_S:.0f} s")
        if self.error:
            error = self.error
            self.stop()
            raise _explained(self.address, error) from error

    def _live(self) -> None:
        # In a thread of its own: the kernel ends what Ray starts when the thread that started it ends, and Ray would take over SIGTERM in the main thread.
        try:
            with _environment(_settings(self.address)), _loopback(self.ray, self.address), _unheard(self.ray):
                _read_token_again(self.ray)
                self.ray.init(**self._arguments())
            self._guard = _guard(self.ray, self.folder) if self.folder else None
        except BaseException as error:  # noqa: BLE001  # told to the thread that waits
            self.error = error
        self.ready.set()
        self.enough.wait()

    def _arguments(self) -> dict[str, Any]:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "namespace": "modelinscale"}
        if self.address is not None:
            return quiet | {"address": self.address}
        return quiet | {"address": "local", "include_dashboard": False, "_temp_dir": str(self.folder)}

    def stop(self) -> None:
        if not self.theirs:
            with contextlib.suppress(Exception):  # it may be gone already; nothing is left to do about it
                self.ray.shutdown()
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
        self.enough.set()
        if self._thread.is_alive():
            self._thread.join(5)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


_lock = threading.RLock()
_held: list[_Held] = []


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[ModuleType]:
    """Ray, connected; at once when this process is connected to that address already. Stays connected afterwards.

    Raises `ComputeError` when it cannot be reached or started, refuses the token or is of another version.
    """
    with _lock:
        held = _connect(address)
        held.users += 1
    try:
        yield held.ray
    finally:
        with _lock:
            held.users -= 1


def close() -> None:
    """Ends the connection, and the private cluster if it was one. At the end of the process this happens by itself."""
    with _lock:
        while _held:
            _held.pop().stop()


def _connect(address: str | None) -> _Held:
    ray = needs("ray", extra="ray")
    if _held:
        held = _held[0]
        alive = ray.is_initialized()
        if alive and (held.address == address or held.theirs):
            return held
        if alive and held.users:
            raise ComputeError(f"this process works on {_place(held.address)} already, and Ray allows one cluster a process.", fix="Let that work end first.")
        close()
    if address is not None and not ray.is_initialized():
        _reach(address)
    held = _Held(address, ray)
    try:
        held.start()
    except ComputeError:
        if address is not None:
            raise
        log(__name__).warning("Ray did not start; trying once more")  # on a very busy machine it does not within its half a minute
        held = _Held(address, ray)
        held.start()
    _held.append(held)
    atexit.unregister(close)
    atexit.register(close)  # after Ray's own, so before it: handlers run from the last to the first
    log(__name__).info("connected to Ray", extra={"place": _place(address), "cpus": ray.cluster_resources().get("CPU", 0)})
    return held


def _place(address: str | None) -> str:
    return "a Ray cluster of its own" if address is None else f"the Ray cluster at {address!r}"


def _reach(address: str) -> None:
    """Refuses an address where nothing listens, sooner and plainer than Ray does."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address.startswith("ray://"):
        needs("grpc", extra="ray")
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        return  # "auto": Ray knows where it runs on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise _explained(address, error) from error


def _explained(address: str | None, error: BaseException) -> MisError:
    """What went wrong while connecting, in a user's words."""
    if isinstance(error, MisError):
        return error
    text = " ".join(str(error).split())
    chain = " ".join(_chain(error)).lower()
    if address is None:
        return ComputeError(
            f"a Ray cluster could not be started on this machine: {type(error).__name__}: {text[:500]}",
            fix="Is there memory (about 1 GiB) and room in the temporary folder? `compute: local` needs no cluster.",
        )
    if "version mismatch" in chain:
        return ComputeError(f"{_place(address)} runs other versions: {text[:500]}", fix="Use the same versions of Python and Ray here and on every node.")
    if "authentication" in chain or "unauthenticated" in chain or "invalidauthtoken" in chain:
        return ComputeError(
            f"{_place(address)} refuses our token.",
            fix="Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the token the cluster was started with.",
        )
    silent = " A cluster behind a token stays silent to a wrong one, and to none: look at RAY_AUTH_MODE and RAY_AUTH_TOKEN too." if "timeout" in chain else ""
    return ComputeError(
        f"{_place(address)} cannot be reached: {type(error).__name__}: {text[:500]}",
        fix=f"Is it running, and is the address right? `auto` and `host:6379` are for a machine of the cluster, `ray://host:10001` for any other.{silent}",
    )


def _chain(error: BaseException | None) -> Iterator[str]:
    """What an error says, and those it came from."""
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__


def _settings(address: str | None) -> dict[str, str | None]:
    """Environment variables that Ray reads while it starts or connects."""
    quiet: dict[str, str | None] = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "RAY_task_oom_retries" not in os.environ:  # Ray's own is without end: a task too big for every node would be tried, and killed, for ever
        quiet["RAY_task_oom_retries"] = str(OOM_RETRIES)
    # Ray would end this whole process, whatever it is doing, when the head has been away for a minute.
    quiet["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(GONE_S)
    if address is None:
        token = secrets.token_hex(32)
        return quiet | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_AUTH_TOKEN_PATH": None, "RAY_ADDRESS": None}
    if "RAY_AUTH_MODE" not in os.environ and ("RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ):
        quiet["RAY_AUTH_MODE"] = "token"  # whoever sets a token means it; the one in the home folder Ray itself uses for "auto" only
    return quiet


@contextlib.contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    """Sets (None: removes) variables for a while."""
    before = {name: os.environ.get(name) for name in (*changes, "RAY_AUTH_MODE", "PYTHONBREAKPOINT")}  # Ray sets these two itself
    _put(changes)
    try:
        yield
    finally:
        _put(before)


@contextlib.contextmanager
def _loopback(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Lets a private cluster listen at 127.0.0.1 only, as Ray does by itself on Windows and macOS; on Linux it would listen on every interface."""
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = before and address is not None
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _unheard(ray: ModuleType) -> Iterator[None]:
    """Keeps Ray from printing what nodes have to say (a worker stopped, a node lost) into our standard output, which is for answers."""
    worker = ray._private.worker
    before = worker.listen_error_messages
    worker.listen_error_messages = lambda worker, threads_stopped: None
    try:
        yield
    finally:
        worker.listen_error_messages = before


def _guard(ray: ModuleType, folder: Path) -> "subprocess.Popen[bytes] | None":
    """Cleans up after a process that is killed: the kernel ends what it started, but not what Ray's node started in turn, which lives on for minutes."""
    node = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    threads = Path(f"/proc/{node}/task")
    if not threads.exists():  # not Linux
        return None
    agents = [pid for thread in threads.iterdir() for pid in _children(thread)]
    script = 'read -r nothing; kill -9 "$@"; sleep 1; rm -rf "$0"'  # reading ends when the process at the other end does
    command = ["/bin/sh", "-c", script, str(folder), *agents]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _children(thread: Path) -> list[str]:
    try:
        return (thread / "children").read_text().split()
    except OSError:  # the thread has ended meanwhile
        return []


def _put(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _read_token_again(ray: ModuleType) -> None:
    """Ray reads its settings at import and its token once; both may be of an earlier connection."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def _short_folder() -> str:
    """Where a private cluster keeps its sockets and logs: socket paths may have 107 letters, most of which Ray uses itself."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 30 else "/tmp"
