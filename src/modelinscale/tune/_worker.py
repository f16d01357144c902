"""A worker process of a search: a job a line on standard input, what came of it a line on standard output. It ends with the process that began it."""

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from modelinscale.tune._crew import take_over
from modelinscale.tune._fit import Job


def main(folder: Path) -> None:
    """Fits jobs until there are no more; when whoever gives them is gone, at once."""
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    fitter = take_over(folder)
    while True:
        done = fitter(Job(**json.loads(jobs.get())))
        answers.write(json.dumps(asdict(done)) + "\n")
        answers.flush()


def _listen(jobs: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)  # in the middle of a fit, if need be: nobody waits for it any more


if __name__ == "__main__":
    main(Path(sys.argv[1]))
