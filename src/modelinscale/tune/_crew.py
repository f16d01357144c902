"""Who does the trials: processes of this machine, or the tasks of a cluster."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.encode.stored import Stored, write
from modelinscale.models import Examples
from modelinscale.tune._fit import Done, Fitter, Job

if TYPE_CHECKING:
    from modelinscale.compute import Compute

_LOOK_S = 2.0
"""How often the storage hears of us while everybody is at work."""
FACTS = "fitter.json"

Ask = Callable[[], Job | None]
"""Gives the next job, or None when there is nothing to begin now."""


def cluster(compute: "Compute", fitter: Fitter, ask: Ask) -> Iterator[Done]:
    """Trials as partition functions of ``compute``; results come in the order of the jobs."""

    def jobs() -> Iterator[Job]:
        while (job := ask()) is not None:
            yield job

    while True:
        n = 0
        for done in compute.map(fitter, jobs()):
            n += 1
            yield done
        if not n:
            return


def processes(folder: Path, n_workers: int, fitter: Fitter, ask: Ask, idle: Callable[[], None]) -> Iterator[Done]:
    """Trials in ``n_workers`` processes of this machine, results as they come. A process that is lost takes its trial with it, no other, and is replaced.

    ``folder`` takes the rows; ``idle`` is called now and then while nothing comes. All processes end with the generator, and with this process.
    """
    hand_over(fitter, folder)
    news: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()
    free: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        while True:
            while len(busy) < n_workers and (job := ask()) is not None:
                worker = free.pop() if free else _Worker(folder, fitter.n_threads, news)
                busy.append(worker)
                worker.begin(job)
            if not busy:
                return
            try:
                worker, line = news.get(timeout=_LOOK_S)
            except queue.Empty:
                idle()
                continue
            if worker not in busy:
                continue
            busy.remove(worker)
            if line is None:
                assert worker.job is not None
                yield Done(worker.job.number, None, f"its process ended ({worker.end()})", lost=True)
            else:
                free.append(worker)
                yield Done(**json.loads(line))
    finally:
        for worker in (*free, *busy):
            worker.end()


class _Worker:
    """A process that fits one job after the other."""

    def __init__(self, folder: Path, n_threads: int, news: "queue.Queue[tuple[_Worker, str | None]]") -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "OPENBLAS_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
        self.job: Job | None = None
        command = [sys.executable, "-m", "modelinscale.tune._worker", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(news,), name="tune-worker", daemon=True)
        self._reader.start()

    def begin(self, job: Job) -> None:
        self.job = job
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its reader tells that it is gone
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()

    def end(self) -> str:
        """Ends the process if it is still there; says how it ended."""
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2 if self.job is None else 0.0)
        self._process.kill()
        code = self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _read(self, news: "queue.Queue[tuple[_Worker, str | None]]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news.put((self, line))
        news.put((self, None))


def hand_over(fitter: Fitter, folder: Path) -> None:
    """Writes a fitter where other processes of this machine can open it."""
    folder.mkdir(parents=True, exist_ok=True)
    for form, parts in fitter.rows.items():
        for part, examples in zip(("train", "valid"), parts, strict=True):
            if not (folder / f"{form}-{part}").is_dir() and not isinstance(examples, Stored):
                task, weights = fitter.task, examples.weight is not None
                write(folder / f"{form}-{part}", examples.layouts, examples.blocks(), numbers=task.numbers, weights=weights, width=task.target_width)
    stored = {form: [str(e.folder) if isinstance(e, Stored) else "" for e in parts] for form, parts in fitter.rows.items()}
    facts: dict[str, Any] = {name: getattr(fitter, name) for name in ("seed", "class_weight", "n_threads", "memory", "by")}
    (folder / FACTS).write_text(json.dumps({**facts, "task": fitter.task.plain(), "rows": stored}), encoding="utf-8")


def take_over(folder: Path) -> Fitter:
    """Reads what `hand_over` wrote: rows that were held are held here too."""
    from modelinscale.core.task import Task

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    task, stored = Task.model_validate(facts.pop("task")), facts.pop("rows")

    def read(form: str, part: str, at: str) -> Examples:
        found = Stored(Path(at) if at else folder / f"{form}-{part}", memory=facts["memory"])
        return found if at else Examples(found.rows, found.target, found.weight)

    rows = {form: (read(form, "train", train), read(form, "valid", valid)) for form, (train, valid) in stored.items()}
    return Fitter(rows=rows, task=task, **facts)
