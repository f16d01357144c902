"""Processes of this machine that learn together: each a program with its work at its standard input, begun as `torchrun` would begin it.

They meet by a file in a folder that only this user may enter, and talk over loopback: PyTorch's own meeting place would listen on every interface, to anyone.
What they have to say comes as lines of JSON through a pipe each; the end of their standard input tells them that this process is gone.
"""

import json
import os
import pickle
import selectors
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelinscale.compute._crew import MEETING, Crew, Ended, Group, Work
from modelinscale.core.files import Scratch

_LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class Processes(Crew):
    """This machine. Programs of their own, never forked: Arrow, Lance and PyTorch have threads."""

    def room(self, wanted: int) -> int:
        return wanted

    def asks(self) -> str:
        return "a processor"

    def doubts(self, n: int) -> str:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return f"{n} processes share {cores} processors: each step waits for the last of them, and {cores} would be as quick." if n > cores else ""

    def begin(self, work: Work, job: object, n: int, kept: Path | None) -> "_Programs":
        found = _Programs()
        try:
            travels = pickle.dumps((work, job, kept, found.folder / "result"), protocol=5)
            for rank in range(n):
                who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "OMP_NUM_THREADS": 1, MEETING: found.folder / "meeting"} | _LOOPBACK
                found.add({name: str(value) for name, value in who.items()}, travels)
        except BaseException:
            found.end()
            raise
        return found


@dataclass
class _Program:
    process: "subprocess.Popen[bytes]"
    news: int
    """The end of its pipe that is read."""
    unread: bytes = b""


class _Programs(Group):
    def __init__(self) -> None:
        self._scratch, self._programs, self._ready = Scratch("together"), list[_Program](), selectors.DefaultSelector()
        self.folder = self._scratch.path

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self._programs)

    def add(self, who: dict[str, str], travels: bytes) -> None:
        """Begins one; one that ended at once is seen as such later."""
        reads, writes = os.pipe()
        command = [sys.executable, "-m", "modelinscale.models._deep.worker", str(writes)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | who, pass_fds=[writes], start_new_session=True)
        os.close(writes)
        os.set_blocking(reads, False)
        one = _Program(process, reads)
        self._programs.append(one)
        self._ready.register(reads, selectors.EVENT_READ, one)
        assert process.stdin is not None
        try:
            process.stdin.write(len(travels).to_bytes(8, "little") + travels)
            process.stdin.flush()
        except BrokenPipeError:
            return

    def news(self, longest_s: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for key, _ in self._ready.select(longest_s):
            one: _Program = key.data
            try:
                said = os.read(one.news, 1 << 16)
            except BlockingIOError:
                continue
            if not said:
                self._ready.unregister(key.fd)
            *lines, one.unread = (one.unread + said).split(b"\n")
            found += [json.loads(line) for line in lines]
        return found

    def ended(self) -> list[Ended | None]:
        unread = {key.fd for key in self._ready.get_map().values()}
        codes = [None if one.news in unread else one.process.poll() for one in self._programs]
        return [None if code is None else Ended(code == 0) for code in codes]

    def result(self) -> Any:
        with (self.folder / "result").open("rb") as file:
            return pickle.load(file)  # noqa: S301  # from a process that this one began

    def end(self) -> None:
        self._ready.close()
        for one in self._programs:
            if one.process.poll() is None:
                one.process.kill()
        for one in self._programs:
            one.process.wait()
            os.close(one.news)
            assert one.process.stdin is not None
            try:
                one.process.stdin.close()
            except BrokenPipeError:  # its work never reached it
                continue
        self._scratch.close()


__all__ = ["Processes"]
