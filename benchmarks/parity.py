"""The same answers everywhere: training code, `mis predict` and the HTTP server on every test row of the five real tables, for every family.

python benchmarks/parity.py [--budget 60s] [NAME ...]   writes benchmarks/results/parity.md
"""

import argparse
import http.client
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from _measure import MIS, run
from _real import HOME, SETS, Set, write

HERE = Path(__file__).parent
FAMILIES = ("linear", "trees", "mlp")
BATCH = 500
"""Rows a request."""


@dataclass(frozen=True)
class Answers:
    """What one road says of N rows."""

    prediction: NDArray[np.object_] | NDArray[np.float64]
    probability: NDArray[np.float64] | None
    """(N, C) in the order of the labels."""


def by_training_code(project: Path, rows: pl.DataFrame) -> tuple[Answers, tuple[object, ...]]:
    """The states and weights as the train step left them, in Python."""
    from modelinscale.api import Project
    from modelinscale.core.decision import Decision
    from modelinscale.encode import encode
    from modelinscale.pipeline import learned

    context = learned(Project(project).spec, project)
    one = context.learned("model")
    scores = one.model.predict(one.weights, encode(context.features, context.states, rows, one.model.form))
    decided, probability = Decision.model_validate(context.facts("evaluate")["decision"]).answer(scores, context.task)
    if probability is None:
        return Answers(decided.astype(np.float64), None), ()
    return Answers(np.array([str(label) for label in context.task.labels], object)[decided.astype(np.int64)], probability), context.task.labels


def by_file(project: Path, data: Path, labels: tuple[object, ...]) -> Answers:
    """`mis predict`."""
    run([MIS, "predict", str(data), "--out", "answers.parquet", "--quiet"], cwd=project)
    found = pl.read_parquet(project / "answers.parquet")
    if not labels:
        return Answers(found["prediction"].to_numpy().astype(np.float64), None)
    probability = found.select([f"probability_{label}" for label in labels]).to_numpy().astype(np.float64)
    return Answers(np.array(found["prediction"].cast(pl.String).to_list(), object), probability)


def by_http(project: Path, rows: pl.DataFrame, labels: tuple[object, ...]) -> Answers:
    """`mis serve`, a JSON request for every 500 rows."""
    with subprocess.Popen([MIS, "serve", "--port", "0", "--json"], cwd=project, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        host, port = json.loads(server.stdout.readline())["address"].removeprefix("http://").rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        answers = []
        for start in range(0, len(rows), BATCH):
            connection.request(
                "POST", "/predict", json.dumps({"rows": rows[start : start + BATCH].to_dicts()}, default=str), {"content-type": "application/json"}
            )
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == 200, body[:500]
            answers += json.loads(body)["predictions"]
        connection.close()
        server.send_signal(signal.SIGTERM)
    if not labels:
        return Answers(np.array([a["prediction"] for a in answers], np.float64), None)
    probability = np.array([[a["probabilities"][str(label)] for label in labels] for a in answers])
    return Answers(np.array([str(a["prediction"]) for a in answers], object), probability)


def apart(a: Answers, b: Answers) -> tuple[int, float]:
    """Rows decided otherwise (none for numbers), and the largest difference of a probability (of a number relative to the size of the target)."""
    if a.probability is None or b.probability is None:
        x, y = a.prediction.astype(np.float64), b.prediction.astype(np.float64)
        return 0, float((np.abs(x - y) / np.maximum(np.abs(x), np.abs(x).mean())).max())
    return int((a.prediction != b.prediction).sum()), float(np.abs(a.probability - b.probability).max())


def compare(one: Set, family: str, budget: str, work: Path) -> str:
    """One line of the table."""
    data = write(one, work)
    folder = work / f"{one.name}-{family}"
    folder.mkdir()
    run([MIS, "init", str(data), "--target", one.target, "--model", family], cwd=folder)
    text = (folder / "model.yaml").read_text().replace("budget: 10m", f"budget: {budget}")
    (folder / "model.yaml").write_text(text)
    run([MIS, "run", "--json"], cwd=folder)
    test = pl.read_parquet(data).filter(pl.col("split") == "test")
    test.write_parquet(folder / "test.parquet")
    training, labels = by_training_code(folder, test.with_columns(pl.col(pl.Datetime).cast(pl.Datetime("us")), pl.col(pl.Date).cast(pl.Datetime("us"))))
    filed = by_file(folder, folder / "test.parquet", labels)
    served = by_http(folder, test, labels)
    pairs = [apart(training, filed), apart(training, served)]
    return f"| {one.name} | {family} | {len(test):,} | " + " | ".join(f"{n} | {largest:.1e}" for n, largest in pairs) + " |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget", default="60s")
    arguments = parser.parse_args()
    if not HOME.is_dir():
        sys.exit(f"The real data sets are not here (looked for {HOME.name}/ beside the project): see CONTRIBUTING.md.")
    lines = [
        "# The same answers everywhere",
        "",
        "Every test row of each set, answered by the training code (Python), by `mis predict` and by the HTTP server (JSON).",
        f"`train.budget: {arguments.budget}`.",
        "Decided otherwise: rows of another class (none where a number is predicted). Apart: the largest difference of a probability; for numbers,",
        "of the number relative to its size (at least the mean size).",
        "",
        "| set | family | test rows | `mis predict`: decided otherwise | apart | server: decided otherwise | apart |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for one in SETS:
            for family in FAMILIES:
                if not arguments.names or one.name in arguments.names:
                    lines.append(compare(one, family, arguments.budget, Path(folder)))
                    print(lines[-1], flush=True)
    if not arguments.names:
        (HERE / "results" / "parity.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
