"""The proof that the graph answers as the training code does: on validation rows, on odd values, on tree thresholds.

N rows, C classes. "Tensors" are raw columns as the graph takes them; see `encode.tensors`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import pixels
from modelinscale.core.encoded import MISSING_MOMENT, Encoded, InputType, Sparse, feature_of
from modelinscale.core.errors import ExportError
from modelinscale.core.seeds import generator
from modelinscale.core.steps import missing
from modelinscale.encode.tensors import as_objects, to_input, to_numpy
from modelinscale.export._settle import margin_of, margins_of
from modelinscale.package import Answer, Package, Parity, start

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.export import Parts, Proving
    from modelinscale.features import Feature

BLOCK = 4096
"""Rows answered at once: text features make wide tensors."""
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Truth:
    """Rows and what the training code says of them."""

    tensors: Tensors
    decision: NDArray[np.int64] | NDArray[np.float64]
    """(N,): class index, or number; (N, W): several numbers."""
    probability: NDArray[np.float64] | None
    """(N, C); None for regression."""

    def __len__(self) -> int:
        return len(self.decision)


class Proof:
    """Compares, step by step, and remembers how far apart the two were at most. Every step raises `ExportError` as soon as they are too far apart."""

    def __init__(self, package: Package, parts: "Parts", bound: float) -> None:
        self._package, self._parts, self._bound = package, parts, bound
        self._largest = 0.0
        self._size: Any = 1.0
        self._base: Tensors = {}
        self._counts = {"n_rows": 0, "n_odd": 0, "n_edges": 0, "n_edges_left_out": 0, "n_ties": 0}

    def report(self) -> Parity:
        return Parity(**self._counts, largest_difference=self._largest, bound=self._bound)

    def rows(self, frame: "pl.DataFrame", scores: NDArray[np.float64]) -> Truth:
        """Validation rows. Without any, one row with everything missing stands in for the steps after this one."""
        tensors = tensors_of(self._parts.features, frame)
        truth = self._truth(tensors, scores)
        if truth.probability is None and len(truth):
            # A number's difference counts relative to its size, or to what is usual among the answers where it is small itself.
            usual, spread = np.median(np.abs(truth.decision), axis=0), np.std(truth.decision, axis=0)
            self._size = np.where(usual > 0, usual, np.where(spread > 0, spread, 1.0))
        self._compare(truth, self._answers(tensors, len(truth)), "validation row")
        self._counts["n_rows"] = len(truth)
        if not len(truth):
            self._base = {column.name: _missing(column.input, column.column.width) for column in self._package.inputs}
        else:
            self._base = tensors
        return truth

    def odd(self, most: int) -> None:
        """Every odd value of every feature: all features odd at once, then one at a time on validation rows, ``most`` of the latter."""
        widths = {column.name: column.column.width for column in self._package.inputs}
        examples = {name: _from_examples(feature, widths[name]) for name, feature in self._parts.features.items()}
        if not examples:
            return
        n_joint = max(len(v) for v in examples.values())
        single = [(name, k) for name, values in examples.items() for k in range(len(values))]
        if len(single) > most:
            single = [single[i] for i in np.linspace(0, len(single) - 1, most).astype(int)] if most else []
        tensors = _repeated(self._base, n_joint + len(single), "odd")
        for name, values in examples.items():
            tensors[name][:n_joint] = values[np.arange(n_joint) % len(values)]
        for row, (name, k) in enumerate(single, n_joint):
            tensors[name][row] = examples[name][k]
        self._check(tensors, "row with odd values")
        self._counts["n_odd"] = n_joint + len(single)

    def edges(self, most: int) -> None:
        """Rows on and one float32 step either side of every value at which the model may jump."""
        edges = {name: _beside(values) for name, values in self._parts.model.edges(self._parts.weights).items() if len(values)}
        if not edges:
            return
        n_joint = max(len(v) for v in edges.values())
        single = [(name, k) for name, values in edges.items() for k in range(len(values))]
        left_out = max(0, len(single) - max(0, most - n_joint))
        if left_out:
            single = [single[i] for i in np.linspace(0, len(single) - 1, len(single) - left_out).astype(int)] if len(single) > left_out else []
        n = n_joint + len(single)
        tensors = _repeated(self._base, n, "edges")
        encoded = self._encoded(tensors)
        where = {column: (name, k) for name, layout in encoded.layouts.items() if layout.role == "dense" for k, column in enumerate(layout.names)}
        blocks: dict[str, Any] = {name: block.copy() if isinstance(block, np.ndarray) else block for name, block in encoded.blocks.items()}
        raw = False
        for column, values in edges.items():
            name, k = where[column]
            at = np.concatenate([np.arange(n_joint), n_joint + np.array([i for i, (c, _) in enumerate(single) if c == column], np.int64)])
            chosen = np.concatenate([values[np.arange(n_joint) % len(values)], values[[j for c, j in single if c == column]]])
            blocks[name][at, k] = chosen
            feature = feature_of(name, self._parts.model.form)
            if column == name and self._parts.features[feature].input == "float64":
                tensors[feature][at] = chosen
                raw = True
        self._check_blocks(Encoded(encoded.layouts, blocks))
        if raw:  # the same values as raw cells, through the whole graph
            self._check(tensors, "row on a threshold")
        self._counts["n_edges"] = n
        self._counts["n_edges_left_out"] = left_out

    def _check(self, tensors: Tensors, what: str) -> None:
        parts = self._parts
        scores = parts.model.predict(parts.weights, self._encoded(tensors))
        self._compare(self._truth(tensors, scores), self._answers(tensors, len(scores)), what, ties=True)

    def _check_blocks(self, encoded: Encoded) -> None:
        """The graph from the encoded blocks on: they reach values that no raw cell would."""
        from modelinscale.export._draw import draw_model
        from modelinscale.export.proto import to_bytes

        parts = self._parts
        session = start(to_bytes(draw_model(parts, encoded), name="model"), n_threads=0)
        takes = {i.name for i in session.get_inputs()}
        outputs = ["prediction"] if parts.task.numbers else ["prediction", "probabilities"]

        def answer(at: slice) -> Answer:
            feeds = {k: _fed(v, at) for k, v in encoded.blocks.items() if k in takes}
            found = session.run(outputs, feeds)
            return Answer(found[0], found[1] if len(found) > 1 else None)

        tensors = {name: block.dense() if isinstance(block, Sparse) else block for name, block in encoded.blocks.items()}
        truth = self._truth(tensors, parts.model.predict(parts.weights, encoded))
        self._compare(truth, _blocks(answer, encoded.n_rows), "encoded row on a threshold", ties=True)

    def _encoded(self, tensors: Tensors) -> Encoded:
        from modelinscale.encode import Encoder

        parts = self._parts
        encoder = Encoder.of(parts.features, parts.states, parts.model.form)
        return encoder.blocks(lambda name, form: encoder.features[name].encode(parts.states[name], _series(tensors[name], encoder.features[name].input), form))

    def _truth(self, tensors: Tensors, scores: NDArray[np.float64]) -> Truth:
        decision, probability = self._parts.decision.answer(scores, self._parts.task)
        return Truth(tensors, decision, probability)

    def _answers(self, tensors: Tensors, n_rows: int) -> Answer:
        return _blocks(lambda at: self._package.run({k: v[at] for k, v in tensors.items()}), n_rows)

    def _compare(self, truth: Truth, answer: Answer, what: str, *, ties: bool = False) -> None:
        """``ties``: these rows are made up, so one that lies on the decision's border within rounding is counted, not refused."""
        if not len(truth):
            return
        if truth.probability is None:
            gap = np.abs(answer.prediction.astype(np.float64) - truth.decision) / np.maximum(np.abs(truth.decision), self._size)
            gap = gap if gap.ndim == 1 else gap.max(1)
            other: NDArray[Any] = np.zeros(len(truth), bool)
            expected: Any = truth.decision
        else:
            assert answer.probability is not None
            gap = np.abs(answer.probability.astype(np.float64) - truth.probability).max(1)
            labels = self._parts.task.type == "multilabel"
            expected = truth.decision.astype(bool) if labels else np.array(self._parts.task.labels, object)[truth.decision]
            cells: NDArray[Any] = np.asarray(answer.prediction != expected, bool).reshape(len(truth), -1)  # (N, 1), or a cell for each label
            other = np.asarray(cells.any(1))
            if ties and other.any():
                decision, p = self._parts.decision, truth.probability
                margin = margins_of(p, decision) if labels else margin_of(p, self._parts.task, decision)[:, None]
                tied = other & (~cells | (margin < self._bound / 10)).all(1)
                self._counts["n_ties"] += int(tied.sum())
                other &= ~tied
        gap = np.where(np.isnan(gap), np.inf, gap)
        worst = int(np.where(other, np.inf, gap).argmax())
        if other.any() or gap[worst] > self._bound:
            raise ExportError(
                f"The graph does not answer as the training code does: {what} {worst} ({int(other.sum()):,} of {len(truth):,} decided otherwise, "
                f"largest difference {gap.max():.3g}, allowed {self._bound:g}). Graph: {_said(answer, worst)}; training code: {expected[worst]}"
                f"{'' if truth.probability is None else f' {truth.probability[worst].round(9).tolist()}'}. Row: {_shown(truth.tensors, worst)}.",
                fix="Nothing was written. Please report this with the row; until then another model family will do.",
            )
        self._largest = max(self._largest, float(gap.max()))


def scores_of(parts: "Parts", proving: "Proving") -> NDArray[np.float64]:
    """What the training code says of the validation rows, computed where it is not known already."""
    if proving.scores is not None:
        return np.asarray(proving.scores, np.float64)
    from modelinscale.encode import encode

    return parts.model.predict(parts.weights, encode(parts.features, parts.states, proving.frame, parts.model.form))


def answerable(parts: "Parts", proving: "Proving") -> "Proving":
    """Without rows that a server refuses: with a damaged image, or without one where no training row lacked it."""
    keep = np.ones(len(proving.frame), bool)
    for name, feature in parts.features.items():
        if feature.input == "image":
            state = parts.states[name]
            needed = not (state["missing"] or state["broken"])
            keep &= [not needed if data is None else pixels.readable(data) for data in proving.frame[name].to_list()]
    if keep.all():
        return proving
    return replace(proving, frame=proving.frame.filter(keep.tolist()), scores=None if proving.scores is None else np.asarray(proving.scores)[keep])


def tensors_of(features: "Mapping[str, Feature]", frame: "pl.DataFrame") -> Tensors:
    """Typed rows of the table as the graph takes them."""
    return {name: to_numpy(to_input(frame[name], feature.input), feature.input) for name, feature in features.items()}


def _series(tensor: NDArray[Any], input: InputType) -> "pl.Series":
    """A tensor back as a column in graph-input form, missing cells null."""
    import polars as pl

    if input == "float64":
        return pl.Series(tensor).fill_nan(None)
    if input == "string":
        return pl.Series([word or None for word in tensor.tolist()], dtype=pl.String)
    if input == "int64":
        series = pl.Series(tensor)
        return series.set(series == MISSING_MOMENT, None)
    if input == "sequence":
        return _lists(tensor)
    if input == "image":
        return pl.Series([pixels.png(one) for one in tensor], dtype=pl.Binary)
    gone = np.isnan(tensor).all(1)
    series = pl.Series(tensor, dtype=pl.Array(pl.Float32, tensor.shape[1]))
    return pl.select(pl.when(pl.lit(pl.Series(~gone))).then(pl.lit(series)).otherwise(None)).to_series() if gone.any() else series


def _lists(tensor: NDArray[Any]) -> "pl.Series":
    """Sequences as a column of lists."""
    import polars as pl

    width = tensor[0].shape[1] if len(tensor) else 1
    if width == 1:
        return pl.Series([one[:, 0].tolist() for one in tensor], dtype=pl.List(pl.Float32))
    return pl.Series([one.tolist() for one in tensor], dtype=pl.List(pl.Array(pl.Float32, width)))


def _from_examples(feature: "Feature", width: int | None) -> NDArray[Any]:
    """A feature's odd values as a tensor. Text with a NUL character is left out: no cell that is collected or served can hold one."""
    import polars as pl

    values = [v for v in feature.examples() if not (isinstance(v, str) and "\0" in v)]
    if feature.input == "vector":
        assert width is not None
        fitting = [v for v in values if v is None or len(v) == width]
        return np.array([[np.nan] * width if v is None else v for v in fitting or [None]], np.float32).reshape(-1, width)
    if feature.input == "sequence":
        found = [np.array(v or [], np.float32).reshape(-1, width or 1) for v in feature.examples({"width": width})]
        return as_objects(found)
    if feature.input == "image":
        return as_objects([pixels.missing() if v is None else pixels.decode(v) for v in values])
    if feature.input == "string":
        return np.array(["" if v is None else v for v in values], object)
    if feature.input == "float64":
        return np.array([np.nan if v is None else v for v in values], np.float64)
    moments = [v if v is None or isinstance(v, int) else int(pl.Series([v], dtype=pl.Datetime("us")).dt.timestamp("us")[0]) for v in values]
    return np.array([MISSING_MOMENT if v is None else v for v in moments], np.int64)


def _missing(input: InputType, width: int | None) -> NDArray[Any]:
    """One missing cell as a tensor."""
    if input == "vector":
        return np.full((1, width or 0), np.nan, np.float32)
    if input == "image":
        return as_objects([pixels.missing()])
    if input == "sequence":
        return as_objects([missing(width or 1)])
    return {"float64": np.array([np.nan]), "string": np.array([""], object), "int64": np.array([MISSING_MOMENT])}[input]


def _repeated(tensors: Tensors, n: int, purpose: str) -> Tensors:
    """``n`` rows to change, taken from these by chance, the same ones every time."""
    n_rows = len(next(iter(tensors.values())))
    index = generator(0, "export", purpose).integers(0, n_rows, n)
    return {name: tensor[index] for name, tensor in tensors.items()}


def _beside(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each value, and the float32 before and after it."""
    inf = np.float32(np.inf)
    found = np.unique(np.concatenate([np.nextafter(values, -inf), values, np.nextafter(values, inf)]))
    return np.asarray(found[np.isfinite(found)])


def _blocks(answer: Callable[[slice], Answer], n_rows: int) -> Answer:
    parts = [answer(at) for at in _slices(n_rows)] or [answer(slice(0, 0))]
    probability = [p.probability for p in parts if p.probability is not None]
    return Answer(np.concatenate([p.prediction for p in parts]), np.concatenate(probability) if probability else None)


def _slices(n_rows: int) -> Iterator[slice]:
    for start_row in range(0, n_rows, BLOCK):
        yield slice(start_row, min(start_row + BLOCK, n_rows))


def _fed(block: Any, at: slice) -> NDArray[Any]:
    if isinstance(block, Sparse):
        return block.rows(np.arange(at.start, at.stop)).dense()
    return block[at].astype(np.int64) if block.dtype == np.int32 else np.asarray(block[at])


def _said(answer: Answer, row: int) -> str:
    if answer.probability is None:
        return str(answer.prediction[row])
    return f"{answer.prediction[row]} {answer.probability[row].round(9).tolist()}"


def _shown(tensors: Tensors, row: int) -> str:
    cells = {name: tensor[row].tolist() if isinstance(tensor[row], (np.ndarray, np.generic)) else tensor[row] for name, tensor in tensors.items()}
    text = json.dumps(cells, ensure_ascii=False, default=str)
    return text if len(text) <= 1500 else f"{text[:1500]}…"
