"""One of several processes that learn a network together: reads its work from standard input, joins the others, and says how it goes.

Begun by `launch`, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment. It ends when its standard input does: then nobody waits for it.
"""

import json
import os
import pickle
import sys
import threading
import time
import traceback
from dataclasses import replace
from typing import Any

from modelinscale.core.errors import MisError
from modelinscale.core.secrets import veil
from modelinscale.models import Model

_OF_A_LOSS = ("connection", "gloo", "nccl", "timed out", "timeout", "socket", "broken pipe")
"""What is in the errors of a process whose others are gone."""


def main(news: int) -> int:
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    job = pickle.loads(sys.stdin.buffer.read(size))  # noqa: S301  # from the process that began this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    leads = os.environ["RANK"] == "0"

    def say(**what: Any) -> None:
        os.write(news, json.dumps(what).encode() + b"\n")

    effort = replace(job.effort, n_threads=1)
    if leads:
        effort = replace(effort, tell=lambda note: say(tell=note), progress=lambda share, note: say(progress=[share, note]))
    try:
        from modelinscale.models._deep.learn import fit
        from modelinscale.models._deep.strategy import Parallel, join

        join(patience_s=job.patience_s)
        strategy = Parallel(compress_above=job.compress_above, beat=_Beat(say))
        weights = fit(Model.parse(job.model), job.train, job.valid, job.task, effort, strategy)  # type: ignore[arg-type]
        if leads:
            weights.save(job.result)
            say(tell=strategy.close(), done=True)
    except MisError as error:
        say(refused=[type(error).__name__, error.message, error.fix])
        return 1
    except Exception as error:  # noqa: BLE001  # told to who began it
        text = veil(f"{type(error).__name__}: {error}")[:2000]
        if any(word in text.lower() for word in _OF_A_LOSS):
            say(failed=text)
        else:
            where = veil("".join(traceback.format_exception(error)))[-2000:]
            say(refused=["ComputeError", f"a process that learns together with others failed with {text}", f"Where it happened: {where}"])
        return 1
    return 0


class _Beat:
    """Says at most once a second at which step it is."""

    def __init__(self, say: Any) -> None:
        self._say, self._steps, self._said = say, 0, 0.0

    def __call__(self, step: int) -> None:
        self._steps = max(self._steps, step)
        if time.monotonic() - self._said > 0.5:
            self._said = time.monotonic()
            self._say(step=self._steps)


def _end_with_parent() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)  # threads of a group whose other processes are gone would wait for them
