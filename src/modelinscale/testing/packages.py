"""Small real packages for tests: every column type, every task, a graph anybody can compute by hand."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelinscale.core.files import write_json
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.core.task import Label, Task, TaskType

COLUMNS = ("amount", "count", "paid", "city", "at", "place")
ROWS: tuple[dict[str, Any], ...] = (
    {"amount": 12.5, "count": 3, "paid": True, "city": "Paris", "at": "2024-05-01T13:00:00", "place": [0.5, -0.25]},
    {"amount": 250.0, "count": 1, "paid": False, "city": "Oslo", "at": "2023-12-31T23:59:59", "place": [1.0, 2.0]},
    {"amount": None, "count": None, "paid": None, "city": None, "at": None, "place": None},
    {"amount": -3.0, "count": 40, "paid": True, "city": "Zürich <b>", "at": "1999-01-01T00:00:00", "place": [-1.0, 0.125]},
)
"""Rows that fill every column, and one that fills none."""
LABELS: dict[TaskType, tuple[Label, ...]] = {
    "binary": (False, True),
    "multiclass": ("blue", "green", "red"),
    "regression": (),
    "multilabel": ("blue", "green", "red"),
    "quantiles": (),
}


def write_package(
    folder: Path,
    *,
    task: TaskType = "binary",
    name: str = "tiny",
    version: int | None = 3,
    required: Sequence[str] = (),
    columns: Sequence[str] = COLUMNS,
    n_numbers: int = 0,
    labels: Sequence[Label] | None = None,
) -> Path:
    """Writes a package into ``folder`` (made here).

    Its score is amount / 100 + count / 10 + paid + (1 for Paris) + years since 2000 / 100 + the sum of place, as far as these ``columns`` are taken;
    a missing cell counts as 0. With ``n_numbers`` it takes number columns ``x0, x1, …`` instead, and a tenth of their sum is the score.
    """
    from modelinscale.export.proto import to_bytes
    from modelinscale.package import InputColumn, Manifest, Package, start
    from modelinscale.package.manifest import FileFacts

    kinds: Mapping[str, tuple[Any, Any, int | None]] = {
        "amount": ("float", "float64", None),
        "count": ("int", "float64", None),
        "paid": ("bool", "float64", None),
        "city": ("string", "string", None),
        "at": ("time", "int64", None),
        "place": ("vector", "vector", 2),
    }
    rows: Sequence[Mapping[str, Any]] = ROWS
    if n_numbers:
        kinds = {f"x{i}": ("float", "float64", None) for i in range(n_numbers)}
        rows = [{name: round(float(np.sin(i + k)), 3) for i, name in enumerate(kinds)} for k in range(8)]
    else:
        kinds = {name: kinds[name] for name in columns}
        rows = [{name: row[name] for name in columns} for row in rows]
    answers = tuple(labels) if labels is not None else LABELS[task]
    inputs = tuple(InputColumn(column=Column(name=n, type=t, width=w), input=i, required=n in required) for n, (t, i, w) in kinds.items())
    graph = _draw(tuple(kinds), task, answers)
    content = to_bytes(graph, name=name)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    manifest = Manifest(
        name=name, version=version, identity="0123456789abcdef", family="linear", task=Task(type=task, target="late", labels=answers), inputs=inputs
    )
    good = [r for r in rows if all(r[n] is not None for n in required)]
    write_json(folder / "golden.json", {"rows": good, "answers": Package(manifest, start(content)).predict(good), "tolerance": 1e-6})
    write_json(folder / "reference.json", {})
    (folder / "card.md").write_text("# tiny\n", encoding="utf-8")
    facts = {p.name: FileFacts(sha256=hashlib.sha256(p.read_bytes()).hexdigest(), size_bytes=p.stat().st_size) for p in folder.iterdir()}
    manifest.but(files={k: v.model_dump() for k, v in facts.items()}).write(folder)
    return folder


def _draw(columns: tuple[str, ...], task: TaskType, labels: tuple[Label, ...]) -> Graph:
    graph = Graph()
    score = graph.constant([0.0], np.float64)
    for name in columns:
        score = graph.op("Add", score, _part(graph, name))  # (N,)
    score = graph.op("Cast", score, to=1)
    if task == "regression":
        graph.output("prediction", score, "float32", ("N",))
        return graph
    ladder = np.linspace(-1.0, 1.0, len(labels)).astype(np.float32)[None, :]
    logits = graph.op("Mul", graph.op("Unsqueeze", score, graph.constant([1], np.int64)), graph.constant(ladder, np.float32))  # (N, C)
    probability = graph.op("Softmax", logits, axis=1)
    index = graph.op("ArgMax", logits, axis=1, keepdims=0)
    graph.output("probabilities", probability, "float32", ("N", len(labels)))
    kind: Any = {bool: "bool", int: "int64", str: "string"}[type(labels[0])]
    words: Any = np.array(labels, {"bool": np.bool_, "int64": np.int64, "string": object}[kind])
    graph.output("prediction", graph.op("Gather", graph.constant(words), index), kind, ("N",))
    return graph


def _part(graph: Graph, name: str) -> str:
    """What one column adds to the score: float64 (N,)."""

    def filled(tensor: str) -> str:
        return graph.op("Where", graph.op("IsNaN", tensor), graph.constant(0.0, np.float64), tensor)

    def times(tensor: str, factor: float) -> str:
        return graph.op("Mul", tensor, graph.constant(factor, np.float64))

    if name == "city":
        return graph.op("Cast", graph.op("Equal", graph.input(name, "string"), graph.constant(np.array("Paris", object))), to=11)
    if name == "at":
        at = graph.input(name, "int64")
        gone = graph.op("Equal", at, graph.constant(np.iinfo(np.int64).min, np.int64))
        since = graph.op("Cast", graph.op("Where", gone, graph.constant(_YEAR_2000, np.int64), at), to=11)
        return times(graph.op("Sub", since, graph.constant(float(_YEAR_2000), np.float64)), 0.01 / (365.25 * 86400e6))
    if name == "place":
        place = filled(graph.op("Cast", graph.input(name, "float32", 2), to=11))  # (N, 2)
        return graph.op("ReduceSum", place, graph.constant([1], np.int64), keepdims=0)
    return times(filled(graph.input(name, "float64")), {"amount": 0.01, "count": 0.1, "paid": 1.0}.get(name, 0.1))


_YEAR_2000 = 946_684_800_000_000
"""In microseconds since 1970."""
