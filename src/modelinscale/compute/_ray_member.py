"""What runs on a Ray worker that works together with others: tells where it is, does its work, and passes on what that says and the files it keeps."""

import os
import platform
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from modelinscale.compute._ray_worker import Failed, Packed, _failed, _same, pack
from modelinscale.core.errors import ComputeError, StoreError, needs
from modelinscale.core.files import Scratch

_ADDRESS_OF_INTERFACE = 0x8915
"""SIOCGIFADDR of Linux: the address of a network interface."""


class Member:
    """An actor: its methods are called by who began it, several at once."""

    def __init__(self) -> None:
        self._words: list[dict[str, Any]] = []
        self._more = threading.Condition()
        self._scratch = Scratch("member")
        self._sent: dict[str, tuple[int, int]] = {}

    def place(self, version: str, gpus: float) -> "tuple[str, str, int, str] | Failed":
        """Its node, address, a port that is free there, and the network interface of that address ("" where that is not known)."""
        try:
            _same(version)
            if gpus and not needs("torch", extra="deep").cuda.is_available():
                raise ComputeError(
                    f"the node {platform.node()!r} has a GPU, and PyTorch {needs('torch', extra='deep').__version__} there cannot use it.",
                    fix="Install PyTorch for CUDA and the card's driver on every node, or leave `gpus_per_task` out to learn on processors.",
                )
            ray = needs("ray", extra="ray")
            address = str(ray.util.get_node_ip_address())
            with socket.socket() as free:
                free.bind((address, 0))
                return str(ray.get_runtime_context().get_node_id()), address, free.getsockname()[1], _interface(address)
        except Exception as error:  # noqa: BLE001  # raised again where the work is begun
            return _failed(error)

    def run(
        self, who: dict[str, str], job: list[Any], files: dict[str, bytes], keeps: bool
    ) -> "tuple[list[dict[str, Any]], dict[str, bytes], Packed | Failed]":
        """``job``: the one reference to function and work in Ray's store, under a list. Returns the words and files not read yet, and what was found."""
        try:
            os.environ.update(who)
            for name, content in files.items():
                (self._scratch.path / name).write_bytes(content)
            self._changed()
            try:
                packed: Packed = needs("ray", extra="ray").get(job[0])
                function, what = packed.value()
            except StoreError as error:
                raise ComputeError(
                    f"the node {platform.node()!r} does not find the encoded rows: {error}",
                    fix="Set `store` to a folder that every node sees, or raise `compute.memory` so that they need not lie on disk.",
                ) from error
            except (ImportError, AttributeError) as error:
                raise ComputeError(
                    f"the node {platform.node()!r} cannot load the work: {error}.",
                    fix="Install the same versions of modelinscale and of your own packages on every node (in the image, for KubeRay).",
                ) from error
            found: Packed | Failed = pack(function(what, self._say, self._scratch.path if keeps else None))
        except Exception as error:  # noqa: BLE001
            found = _failed(error)
        words, changed = self.news(0.0)
        return words, changed, found

    def news(self, longest_s: float) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """What was said since, and the files that are new, waiting for words so long at most."""
        with self._more:
            self._more.wait_for(lambda: self._words, longest_s)
            words, self._words = self._words, []
        return words, self._changed()

    def _say(self, **what: Any) -> None:
        with self._more:
            self._words.append(what)
            self._more.notify()

    def _changed(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._more:
            for file in self._scratch.path.iterdir():
                if file.name.startswith("."):
                    continue  # being written
                stat = file.stat()
                if self._sent.get(file.name) != (stat.st_mtime_ns, stat.st_size):
                    self._sent[file.name] = stat.st_mtime_ns, stat.st_size
                    found[file.name] = file.read_bytes()
        return found


def _interface(address: str) -> str:
    """The network interface with this address; gloo would otherwise take the one that the host's name leads to, which on many machines is loopback."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                try:
                    told = fcntl.ioctl(any_socket.fileno(), _ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()[:15]))
                except OSError:  # it has no address
                    continue
                if socket.inet_ntoa(told[20:24]) == address:
                    return name
    except (ImportError, OSError):  # not Linux
        return ""
    return ""


def files_of(folder: Path | None) -> dict[str, bytes]:
    """The files of a folder, by name; none where there is no folder."""
    return {} if folder is None else {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")}


__all__ = ["Member", "files_of"]
