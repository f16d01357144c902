"""A Ray cluster of two nodes with one CPU each, in a process of its own: prints its address, then obeys lines of standard input until it ends.

kill: ends the second node as a power cut would. add: starts another. With the client's server at the port given as first argument.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])},
)
seconds = [cluster.add_node(num_cpus=1)]


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


tell(cluster.address)
for line in sys.stdin:
    if line.strip() == "kill":
        seconds[-1].all_processes["raylet"][0].process.kill()
    else:
        seconds.append(cluster.add_node(num_cpus=1))
    tell("done")
cluster.shutdown()  # type: ignore[no-untyped-call]
