"""One of several processes that learn a network together: joins the others, learns, and says how it goes.

As a program (`processes` begins it) it reads its work from standard input, and ends when that does: then nobody waits for it. Who it is, RANK and
WORLD_SIZE say, and where the others are a file, or on a cluster MASTER_ADDR and MASTER_PORT.
"""

import json
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelinscale.compute._crew import Say
from modelinscale.core.errors import MisError
from modelinscale.core.secrets import veil
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Weights

_OF_A_LOSS = ("connection", "gloo", "nccl", "timed out", "timeout", "socket", "broken pipe")
"""What is in the errors of a process whose others are gone."""


@dataclass(frozen=True)
class Job:
    """What each process is to do."""

    model: dict[str, Any]
    train: Examples
    valid: Examples | None
    task: Task
    effort: Effort
    """Without its callables, which stay with who waits."""


def work(job: Job, say: Say, kept: Path | None) -> Weights | bool | None:
    """What was learned, where it leads, else True; None: it could not go on, and said why."""

    def learned(effort: Effort) -> Weights:
        from modelinscale.models._deep.learn import fit
        from modelinscale.models._deep.strategy import Parallel, join

        join(patience_s=effort.patience_s, device=effort.device)
        strategy = Parallel(compress_above=effort.compress_above, beat=Beat(say))
        found = fit(Model.parse(job.model), job.train, job.valid, job.task, effort, strategy)  # type: ignore[arg-type]
        effort.tell(strategy.close())
        return found

    return telling(say, replace(job.effort, n_threads=int(os.environ.get("OMP_NUM_THREADS", "1")), checkpoints=kept), learned)


def telling(say: Say, effort: Effort, learned: Callable[[Effort], Weights]) -> Weights | bool | None:
    """What ``learned`` finds, where it leads, else True; None where it failed: then why was said, and whether it was for a loss of others."""
    leads = os.environ["RANK"] == "0"
    if leads:
        effort = replace(effort, tell=lambda note: say(tell=note), progress=lambda share, note: say(progress=[share, note]))
    try:
        weights = learned(effort)
    except MisError as error:
        say(refused=[type(error).__name__, error.message, error.fix])
    except Exception as error:  # noqa: BLE001  # told to who began it
        text = veil(f"{type(error).__name__}: {error}")[:2000]
        if any(word in text.lower() for word in _OF_A_LOSS):
            say(failed=text)
        else:
            where = veil("".join(traceback.format_exception(error)))[-2000:]
            say(refused=["ComputeError", f"a process that learns together with others failed with {text}", f"Where it happened: {where}"])
    else:
        return weights if leads else True
    return None


class Beat:
    """Says at most twice a second at which step it is."""

    def __init__(self, say: Say) -> None:
        self._say, self._steps, self._said = say, 0, 0.0

    def __call__(self, step: int) -> None:
        self._steps = max(self._steps, step)
        if time.monotonic() - self._said > 0.5:
            self._said = time.monotonic()
            self._say(step=self._steps)


def main(news: int) -> int:
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    function, job, kept, result = pickle.loads(sys.stdin.buffer.read(size))  # noqa: S301  # from the process that began this one
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(**what: Any) -> None:
        os.write(news, json.dumps(what).encode() + b"\n")

    found = function(job, say, kept)
    if found is not None and os.environ["RANK"] == "0":
        with result.open("wb") as file:
            pickle.dump(found, file, protocol=5)  # as it is read: weights may be as large as the memory that is left
    return 1 if found is None else 0


def _end_with_parent() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)  # threads of a group whose other processes are gone would wait for them
