"""A Ray cluster of two nodes, started once for the tests of a module."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelinscale.compute.ray import Ray


@dataclass(frozen=True)
class TwoNodes:
    """A cluster of two nodes with one CPU each."""

    process: subprocess.Popen[str]
    address: str
    client_port: int

    def do(self, word: str) -> None:
        """``kill`` the second node, or ``add`` one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="needs `pip install 'modelinscale[ray]'`")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(Path(__file__).with_name("_two_nodes.py")), str(port)]
    # Ray's client server forks, which gRPC 1.85 answers with a segmentation fault unless told so.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    process = subprocess.Popen(program, env=os.environ | token | quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process, pytest.MonkeyPatch.context() as patch:
        for name, value in token.items():
            patch.setenv(name, value)
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield TwoNodes(process, address, port)
        Ray().close()
        process.stdin.close()
        process.wait(30)
