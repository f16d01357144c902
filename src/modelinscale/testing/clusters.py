"""A real Ray cluster of two nodes with one CPU each, for tests.

``python -m modelinscale.testing.clusters 10001`` runs it, with the client's server at that port: it prints its address, then obeys lines of standard input
until that ends. kill: ends the second node as a power cut would. add: starts another. behead: ends the head's books, without which no new work is placed.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

N_STARTS = 3


@dataclass(frozen=True)
class TwoNodes:
    """A cluster that runs."""

    process: "subprocess.Popen[str]"
    address: str
    client_port: int
    token: dict[str, str]
    """The environment of who may use it."""

    def do(self, word: str) -> None:
        """``kill`` the second node, ``add`` one, or ``behead`` the cluster, for good."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def two_nodes(**settings: str) -> Iterator[TwoNodes]:
    """Starts one behind a token of its own, and ends it. ``settings``: more environment variables of its processes.

    Ray's processes wait for each other for half a minute and then give up: on a machine that is too busy for that, it is started again.
    """
    for attempt in range(N_STARTS):
        with _started(settings) as found:
            if found is not None:
                yield found
                return
        assert attempt < N_STARTS - 1, "the cluster did not start"


@contextmanager
def _started(settings: dict[str, str]) -> Iterator[TwoNodes | None]:
    """None: it ended before it had both nodes."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's client server forks, which gRPC 1.85 answers with a segmentation fault unless told so.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    program = [sys.executable, "-m", __name__, str(port)]
    process = subprocess.Popen(
        program, env=os.environ | token | quiet | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            yield TwoNodes(process, address, port, token) if address else None
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])},
    )
    seconds = [cluster.add_node(num_cpus=1)]
    _tell(cluster.address)
    for line in sys.stdin:
        if line.strip() == "kill":
            seconds[-1].all_processes["raylet"][0].process.kill()
        elif line.strip() == "behead":
            head: Any = cluster.head_node
            head.all_processes["gcs_server"][0].process.kill()
        else:
            seconds.append(cluster.add_node(num_cpus=1))
        _tell("done")
    cluster.shutdown()  # type: ignore[no-untyped-call]


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
