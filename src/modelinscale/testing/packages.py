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
LABELS: dict[TaskType, tuple[Label, ...]] = {"binary": (False, True), "multiclass": ("blue", "green", "red"), "regression": ()}


def write_package(
    folder: Path,
    *,
    task: TaskType = "binary",
    name: str = "tiny",
    version: int | None = 3,
    required: Sequence[str] = (),
    n_numbers: int = 0,
    labels: Sequence[Label] | None = None,
) -> Path:
    """Writes a package into ``folder`` (made here). Its score is amount / 100 + count / 10 + paid + (1 for Paris) + years since 2000 / 100 + place's sum,
    missing counting as 0; ``n_numbers`` gives it so many plain number columns ``x0, x1, …`` instead, of which the sum / 10 is the score.
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
        rows = [{f"x{i}": round(float(np.sin(i + k)), 3) for i in range(n_numbers)} for k in range(8)]
    answers = tuple(labels) if labels is not None else LABELS[task]
    inputs = tuple(InputColumn(column=Column(name=n, type=t, width=w), input=i, required=n in required) for n, (t, i, w) in kinds.items())
    graph = _draw(n_numbers, task, answers)
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


def _draw(n_numbers: int, task: TaskType, labels: tuple[Label, ...]) -> Graph:
    graph = Graph()

    def filled(tensor: str) -> str:
        return graph.op("Where", graph.op("IsNaN", tensor), graph.constant(0.0, np.float64), tensor)

    def times(tensor: str, factor: float) -> str:
        return graph.op("Mul", tensor, graph.constant(factor, np.float64))

    if n_numbers:
        parts = [times(filled(graph.input(f"x{i}", "float64")), 0.1) for i in range(n_numbers)]
    else:
        parts = [times(filled(graph.input(n, "float64")), f) for n, f in (("amount", 0.01), ("count", 0.1), ("paid", 1.0))]
        city = graph.op("Equal", graph.input("city", "string"), graph.constant(np.array("Paris", object)))
        parts.append(graph.op("Cast", city, to=11))
        at = graph.input("at", "int64")
        gone = graph.op("Equal", at, graph.constant(np.iinfo(np.int64).min, np.int64))
        years = graph.op("Cast", graph.op("Where", gone, graph.constant(946684800000000, np.int64), at), to=11)
        parts.append(times(graph.op("Sub", years, graph.constant(946684800e6, np.float64)), 0.01 / (365.25 * 86400e6)))
        place = filled(graph.op("Cast", graph.input("place", "float32", 2), to=11))  # (N, 2)
        parts.append(graph.op("ReduceSum", place, graph.constant([1], np.int64), keepdims=0))
    score = parts[0]
    for part in parts[1:]:
        score = graph.op("Add", score, part)  # (N,)
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
    words = np.array(labels, {"bool": np.bool_, "int64": np.int64, "string": object}[kind])
    graph.output("prediction", graph.op("Gather", graph.constant(words), index), kind, ("N",))
    return graph
