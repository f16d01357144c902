"""A network learned by several processes: the same curve as by one, no row left out or twice whatever is killed, nothing left running."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelinscale.compute._crew import MEETING, Crew, Ended, Group
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ComputeError, ModelError, NotSupportedYet
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models._deep import launch, learn
from modelinscale.models._deep.processes import Processes
from modelinscale.models._deep.saved import Checkpoint, counted
from modelinscale.models._deep.strategy import Alone, Parallel, agree, versions
from modelinscale.models.network import Network
from modelinscale.testing.recorded import Recorded, history, said
from modelinscale.testing.waits import until

pytestmark = pytest.mark.slow  # processes that learn import PyTorch first
TASK = Task(type="binary", target="y", labels=("no", "yes"))
MODEL = Network(dropout=0, shift=0, epochs=3, batch_rows=48, width=16, members=1, maps=4, patience=99, layers=1)
TOLERANCE = 2e-4
"""Share by which a loss of two processes may differ from that of one after three epochs: sums in another order, and what grows from them."""


def rows(n: int, *, images: bool, weighed: bool = True) -> Examples:
    """Numbers (and images) that say the answer; ``number`` is which row it is."""
    chance = generator(3, "distributed")
    x = chance.normal(size=(n, 3)).astype(np.float32)
    target = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)
    blocks: dict[str, Any] = {"x": x, "number": np.arange(n, dtype=np.float32)[:, None]}
    layouts = {"x": Layout("dense", 3, ("a", "b", "c")), "number": Layout("dense", 1, ("number",))}
    if images:
        blocks["picture"] = (chance.integers(0, 120, (n, 8, 8, 1)) + 100 * target[:, None, None, None]).astype(np.uint8)
        layouts["picture"] = Layout("image", 64, (), (8, 8, 1))
    return Examples(Encoded(layouts, blocks), target, chance.uniform(0.5, 2.0, n) if weighed else None)


def learned(train: Examples, valid: Examples | None, **effort: Any) -> Weights:
    return MODEL.fit(train, valid, TASK, Effort(n_threads=1, **effort))


@pytest.mark.parametrize("images", [False, True])
def test_two_processes_follow_the_curve_of_one(images: bool) -> None:
    train, valid = rows(500, images=images), rows(1_100, images=images)  # the last batch of 20; batch normalisation with images
    told: list[str] = []
    one, two = learned(train, valid), learned(train, valid, workers=2, tell=told.append)
    for a, b in zip(one.meta["curve"], two.meta["curve"], strict=True):
        assert a["rate"] == b["rate"]
        assert b["valid"] == pytest.approx(a["valid"], rel=TOLERANCE)
        assert b["train"] == pytest.approx(a["train"], rel=0.02), "the mean of the processes' means: shares weigh a little differently"
    assert any("2 processes learned together; gradients were on their way for" in note for note in told)


def test_numbers_without_bins_are_learned_by_two_processes() -> None:
    model = Network(bins=0, width=8, members=1, layers=1, epochs=1, batch_rows=48)
    train = rows(200, images=False)
    one, two = (model.fit(train, train, TASK, Effort(n_threads=1, workers=workers)) for workers in (1, 2))
    assert two.meta["curve"][0]["valid"] == pytest.approx(one.meta["curve"][0]["valid"], rel=0.05)


def test_a_row_is_taken_once_an_epoch_by_one_process_or_by_all_of_a_small_batch(tmp_path: Path) -> None:
    train = Recorded.of(rows(483, images=False), tmp_path / "said")  # the last batch has three rows: fewer than two a process
    learned(train, None, workers=2)
    assert history(tmp_path / "said", 483, MODEL.epochs) == [1] * MODEL.epochs


def test_workers_killed_at_random_moments_are_replaced_and_no_row_is_left_out(tmp_path: Path) -> None:
    train = Recorded.of(rows(480, images=False), tmp_path / "said", slow_s=0.15)
    (tmp_path / "kept").mkdir()
    told: list[str] = []
    killed: list[int] = []
    chance = random.Random(5)
    killer = threading.Thread(target=_signal, args=(tmp_path / "said", killed, 2, chance, signal.SIGKILL), daemon=True)
    killer.start()
    found = learned(train, None, workers=2, checkpoints=tmp_path / "kept", checkpoint_s=0.3, tell=told.append, patience_s=120.0)
    killer.join(150)
    assert len(killed) == 2
    assert sum("was lost after" in note for note in told) == len(killed)
    assert history(tmp_path / "said", 480, MODEL.epochs) == [1] * MODEL.epochs
    straight = learned(rows(480, images=False), None)
    for name, values in straight.arrays.items():
        assert np.allclose(found.arrays[name], values, rtol=2e-3, atol=2e-3), name


def test_processes_of_one_machine_listen_on_loopback_only_and_meet_where_nobody_else_may_look(tmp_path: Path) -> None:
    train = Recorded.of(rows(480, images=False), tmp_path / "said", slow_s=0.1)
    thread = threading.Thread(target=learned, args=(train, None), kwargs={"workers": 2})
    thread.start()
    until(lambda: len({line["pid"] for line in said(tmp_path / "said")}) == 2, "both learn", within_s=120)
    found = {address for line in said(tmp_path / "said") for address in _listened(line["pid"])}
    meetings = {Path(line["group"]) for line in said(tmp_path / "said")}
    rights = {meeting.parent.stat().st_mode & 0o777 for meeting in meetings}
    thread.join(120)
    assert found == {"127.0.0.1"}
    assert rights == {0o700}
    assert not any(meeting.parent.exists() for meeting in meetings)


def test_a_mistake_in_a_process_is_raised_here_and_nothing_is_left_running(tmp_path: Path) -> None:
    train = Recorded.of(rows(480, images=False), tmp_path / "said")
    numbers = train.rows.blocks["x"]
    assert isinstance(numbers, np.ndarray)
    numbers[:] = np.nan
    with pytest.raises(ModelError, match="cannot learn on from there"):
        learned(train, None, workers=2)
    for pid in {line["pid"] for line in said(tmp_path / "said")}:
        assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_is_stuck_is_given_up_after_a_limit_and_replaced(tmp_path: Path) -> None:
    train = Recorded.of(rows(480, images=False), tmp_path / "said", slow_s=0.05)
    stuck: list[int] = []
    told: list[str] = []
    stopper = threading.Thread(target=_signal, args=(tmp_path / "said", stuck, 1, random.Random(1), signal.SIGSTOP), daemon=True)
    stopper.start()
    learned(train, None, workers=2, patience_s=12.0, tell=told.append)
    stopper.join(150)
    assert len(stuck) == 1
    assert any("go on from the beginning" in note for note in told)
    assert not Path(f"/proc/{stuck[0]}").exists()


def test_processes_that_are_lost_each_time_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOST_IN_VAIN", 1)
    train = Recorded.of(rows(480, images=False), tmp_path / "said", slow_s=0.1)
    killed: list[int] = []
    threading.Thread(target=_signal, args=(tmp_path / "said", killed, 2, random.Random(2), signal.SIGKILL), daemon=True).start()
    with pytest.raises(ComputeError, match=r"lost 2 times without getting further.*Lower `train.workers`"):
        learned(train, None, workers=2)


def test_torchrun_begins_the_processes_and_each_gets_the_weights(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('told', {__file__!r})\n"
        "told = importlib.util.module_from_spec(spec); spec.loader.exec_module(told)\n"
        "found = told.learned(told.rows(500, images=False), told.rows(600, images=False))\n"
        "import pathlib\n"
        "folder = pathlib.Path(sys.argv[1]) / os.environ['RANK']; folder.mkdir(); found.save(folder)\n"
        "import torch.distributed as dist; dist.destroy_process_group()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
        str(script),
        str(tmp_path),
    ]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first, second = Weights.load(tmp_path / "0"), Weights.load(tmp_path / "1")
    assert all(np.array_equal(values, second.arrays[name]) for name, values in first.arrays.items())
    alone = learned(rows(500, images=False), rows(600, images=False))
    assert [p["valid"] for p in first.meta["curve"]] == pytest.approx([p["valid"] for p in alone.meta["curve"]], rel=TOLERANCE)


_ONE_OF_TWO = """
import importlib.util, sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
spec = importlib.util.spec_from_file_location('told', sys.argv[1])
told = importlib.util.module_from_spec(spec); spec.loader.exec_module(told)
told.learned(told.rows(200, images=False), None, checkpoints=Path(sys.argv[2]), patience_s=60.0)
"""


def test_processes_that_find_different_checkpoints_refuse_to_learn(tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]  # as on two disks: only the first process wrote its checkpoints
    for folder in folders:
        folder.mkdir()
    learned(rows(200, images=False), None, checkpoints=folders[0], checkpoint_s=0.0)
    who = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", MEETING: str(tmp_path / "meeting")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _ONE_OF_TWO, __file__, str(folder)], env=os.environ | who | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank, folder in enumerate(folders)
    ]
    for one in both:
        _, error = one.communicate(timeout=150)
        assert "ComputeError: processes that learn together found different checkpoints: process 0 would begin at step 15 with" in error, error
        assert "process 1 step 0 with the weights" in error
        assert "on a disk that all processes see" in error


_MEETS = """
import importlib.util, json, os, sys
import torch.distributed as dist
from modelinscale.models._deep.strategy import join
spec = importlib.util.spec_from_file_location('told', sys.argv[1])
told = importlib.util.module_from_spec(spec); spec.loader.exec_module(told)
join(patience_s=60.0, device='cpu')
dist.barrier()
print(json.dumps(sorted(told._listened(os.getpid()))), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_processes_of_nodes_meet_at_the_first_ones_address_only() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    who = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen([sys.executable, "-c", _MEETS, __file__], env=os.environ | who | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    assert [json.loads(one.communicate(timeout=150)[0].splitlines()[-1]) for one in both] == [["127.0.0.1"]] * 2


def test_pieces_of_a_step_with_several_processes_are_refused() -> None:
    with pytest.raises(NotSupportedYet, match="`accumulate: 2` with 2 processes"):
        Network(accumulate=2).fit(rows(100, images=False), None, TASK, Effort(workers=2))


def test_pieces_of_a_step_are_refused_by_each_process_that_torchrun_began_before_it_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(NotSupportedYet, match="`accumulate: 2` with 3 processes"):
        Network(accumulate=2).fit(rows(100, images=False), None, TASK, Effort(patience_s=1.0))


def test_pieces_of_a_step_are_refused_by_a_process_of_several() -> None:
    with pytest.raises(NotSupportedYet, match="`accumulate: 2` with 2 processes"):
        learn.fit(Network(accumulate=2), rows(100, images=False), None, TASK, Effort(), SimpleNamespace(world=2))  # type: ignore[arg-type]


class OneOfTwo(Alone):
    """The other's losses are larger by one in the mean."""

    def mean(self, value: float) -> float:
        return value + 0.5


@pytest.mark.parametrize(("rank", "kept"), [(0, 0.5), (1, None)])
def test_a_checkpoint_of_processes_with_all_weights_has_the_losses_of_all(tmp_path: Path, rank: int, kept: float | None) -> None:
    strategy = OneOfTwo()
    strategy.rank = rank
    learn.fit(MODEL, rows(100, images=False), None, TASK, Effort(checkpoints=tmp_path, checkpoint_s=0.0), strategy)
    files = list(tmp_path.iterdir())
    assert len(files) == int(rank == 0), "the first process alone writes"
    for file in files:
        with np.load(file) as stored:
            assert json.loads(stored["meta"].tobytes())["loss_sum"] == kept, "none of its own since the last look"


def test_all_processes_take_part_in_a_checkpoint_at_the_step_after_the_first_says_so(tmp_path: Path) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meeting"), 1), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        strategy, found = Parallel(), list[bool]()
        for due in (False, True, True, False):
            strategy.weighted(torch.ones(()), torch.ones(2))
            found.append(strategy.saves(due))
    finally:
        dist.destroy_process_group()
    assert found == [False, False, True, False]


def test_more_processes_than_processors_are_begun_and_told_of() -> None:
    assert "500 processes share" in Processes().doubts(500)
    assert Processes().doubts(1) == ""


@dataclass
class OnceLost(Crew):
    """The first group keeps a checkpoint of 30 seconds, and is lost after 40; the second ends well. ``budgets``: what each was given."""

    clock: list[float]
    of: str = "this"
    budgets: list[float | None] = field(default_factory=list)

    def room(self, wanted: int) -> int:
        return wanted

    def asks(self) -> str:
        return "nothing"

    def doubts(self, n: int) -> str:
        return ""

    def begin(self, work: Any, job: Any, n: int, kept: Path | None) -> "Ends":
        self.budgets.append(job.effort.budget_s)
        if len(self.budgets) > 1:
            return Ends(n, True)
        assert kept is not None
        self.clock[0] += 40
        kept_now(kept, self.of, counted(kept / "network.npz").seconds + 30 if self.of == "earlier" else 30.0)
        return Ends(n, False)


@dataclass
class Ends(Group):
    n: int
    well: bool

    def news(self, longest_s: float) -> list[dict[str, Any]]:
        return []

    def ended(self) -> list[Ended | None]:
        return [Ended(self.well)] * self.n

    def result(self) -> Any:
        return self.well

    def end(self) -> None:
        """There is nothing."""


def kept_now(folder: Path, of: str, seconds: float) -> None:
    checkpoint = Checkpoint(folder / "network.npz", of, print)
    checkpoint.save({}, {"seconds": seconds})
    checkpoint.close()


@pytest.mark.parametrize(("earlier_s", "of", "left_s"), [(None, "this", 60.0), (25.0, "earlier", 35.0), (25.0, "this", 60.0)])
def test_the_budget_is_kept_over_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier_s: float | None, of: str, left_s: float) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None))
    if earlier_s is not None:  # a run that was ended: of the same training (its seconds count), or of another
        kept_now(tmp_path, "earlier", earlier_s)
    crew = OnceLost(clock, of)
    launch.fit(MODEL, rows(10, images=False), None, TASK, Effort(workers=2, budget_s=100.0, checkpoints=tmp_path, crew=crew))
    first, second = crew.budgets
    assert first == 100.0
    assert second is not None
    assert second - counted(tmp_path / "network.npz").seconds == left_s, "the second begins at the seconds that its checkpoint counts"


def test_processes_of_different_versions_are_refused_with_each_named() -> None:
    agree([versions(), versions()])
    with pytest.raises(ComputeError, match=r"process 0 modelinscale .*, PyTorch .*; process 1 modelinscale 0.0.1, PyTorch 2.1.0"):
        agree([versions(), "modelinscale 0.0.1, PyTorch 2.1.0"])


def test_fewer_processes_go_on_where_as_many_got_no_further() -> None:
    assert [launch.fewer(2, in_vain) for in_vain in (1, 2, 3)] == [2, 1, 1]
    assert launch.fewer(4, 2) == 3


def _listened(pid: int) -> set[str]:
    """The addresses at which a process listens, as Linux tells them; of more than four bytes as they are written there."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(file.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    addresses = [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    return {socket.inet_ntoa(bytes.fromhex(one)[::-1]) if len(one) == 8 else one for one in addresses}


def _signal(file: Path, done: list[int], n: int, chance: random.Random, number: signal.Signals) -> None:
    """Sends one process of each of the next groups a signal, at a random moment after both began to learn."""
    known: set[str] = set()
    for _ in range(n):
        group: dict[str, set[int]] = {}

        def learns(group: dict[str, set[int]] = group, known: set[str] = known) -> bool:
            for line in said(file):
                if line["group"] not in known:
                    group.setdefault(line["group"], set()).add(line["pid"])
            return any(len(pids) == 2 for pids in group.values())

        try:
            until(learns, "a new group learns", within_s=120)
        except AssertionError:  # there is none any more
            return
        known |= set(group)
        threading.Event().wait(chance.uniform(0.0, 1.0))
        pid = chance.choice(sorted(set.union(*group.values())))
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        done.append(pid)
