"""The whole road as one graph: raw columns, features, model, calibration, threshold, answer."""

from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.graph import Graph, TensorType

if TYPE_CHECKING:
    from modelinscale.core.encoded import Encoded
    from modelinscale.export import Parts


def draw(parts: "Parts") -> Graph:
    """Inputs are the raw columns; outputs ``prediction`` (N,), of several numbers (N, W), and, for classes, ``probabilities`` float32 (N, C)."""
    from modelinscale.encode import draw as draw_features

    graph = Graph()
    blocks = draw_features(parts.features, parts.states, parts.model.form, graph)
    _answer(parts, graph, blocks)
    return graph


def draw_model(parts: "Parts", encoded: "Encoded") -> Graph:
    """The same from the encoded blocks on: inputs are the blocks."""
    graph = Graph()
    blocks = {name: graph.block(name, layout) for name, layout in encoded.layouts.items()}
    _answer(parts, graph, blocks)
    return graph


def _answer(parts: "Parts", graph: Graph, blocks: dict[str, str]) -> None:
    from modelinscale.encode import layouts

    task = parts.task
    scores = parts.model.graph(parts.weights, task, layouts(parts.features, parts.states, parts.model.form), graph, blocks)
    probability, decision = parts.decision.graph(graph, scores, task)
    if task.numbers:
        graph.output("prediction", decision, "float32", ("N",) if task.n_scores == 1 else ("N", task.n_scores))
        return
    assert probability is not None
    if task.type == "multilabel":
        graph.output("prediction", decision, "bool", ("N", len(task.labels)))
        graph.output("probabilities", probability, "float32", ("N", len(task.labels)))
        return
    label = task.labels[0]
    kind: TensorType = "bool" if isinstance(label, bool) else "int64" if isinstance(label, int) else "string"
    labels = graph.constant(np.array(task.labels, {"bool": np.bool_, "int64": np.int64, "string": object}[kind]))
    graph.output("prediction", graph.op("Gather", labels, decision, axis=0), kind, ("N",))
    graph.output("probabilities", probability, "float32", ("N", len(task.labels)))
