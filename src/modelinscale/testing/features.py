"""What every feature must fulfil: states merge, encodings fit their layout, and the ONNX graph gives the same bits as Python.

Each function takes a feature (any settings) and raises `AssertionError`. For a kind of your own: ``all_of(MyFeature())``.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form, Layout, Sparse, Values
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import generator
from modelinscale.core.steps import padded
from modelinscale.core.tokenizer import tokens_of
from modelinscale.features import Feature, State

if TYPE_CHECKING:
    import polars as pl

FORMS: tuple[Form, ...] = ("plain", "scaled")


def forms_of(feature: Feature) -> tuple[Form, ...]:
    """The forms it has."""
    return (*FORMS, "deep") if feature.deep else FORMS


def all_of(feature: Feature, rows: Sequence[Any] | None = None) -> None:
    """The whole suite on the feature's own odd values, and on ``rows`` (Python values, None = missing) to learn from."""
    column = as_column(feature, [*feature.examples(), *(rows or [])])
    settings_round_trip(feature)
    empty_changes_nothing(feature, column)
    parts_merged_equal_the_whole(feature, column)
    state_is_plain(feature, column)
    a_settled_state_encodes_the_same(feature, column)
    encodings_fit_their_layout(feature, column)
    graph_equals_python(feature, column)


def settings_round_trip(feature: Feature) -> None:
    """`plain` holds all settings, as JSON."""
    plain = json.loads(json.dumps(feature.plain(), allow_nan=False))
    assert Feature.parse(plain) == feature, f"{feature!r} comes back from its plain data as {Feature.parse(plain)!r}"


def empty_changes_nothing(feature: Feature, column: "pl.Series") -> None:
    """`empty` is neutral on both sides, and observing or merging never changes what went in."""
    empty = feature.empty()
    state = feature.observe(empty, column)
    before = json.dumps(state)
    assert feature.merge(empty, state) == state == feature.merge(state, empty), "merging with the empty state changed a state"
    feature.merge(state, feature.observe(state, column))
    assert json.dumps(state) == before, "observe or merge changed a state in place"
    assert empty == feature.empty(), "observe changed the empty state in place"


def parts_merged_equal_the_whole(feature: Feature, column: "pl.Series", *, seed: int = 7) -> None:
    """However rows are parted and ordered, and in whatever order parts are merged, the state is the same."""
    whole = feature.observe(feature.empty(), column)
    chance = generator(seed, "parts")
    for n_parts in (1, 2, 5):
        order = chance.permutation(len(column))
        cuts = [0, *np.sort(chance.integers(0, len(column) + 1, n_parts - 1)).tolist(), len(column)]
        states = [feature.observe(feature.empty(), column[order[i:j]]) for i, j in pairwise(cuts)]
        merged = feature.empty()
        for place in chance.permutation(len(states)):
            merged = feature.merge(merged, states[place])
        assert merged == whole, f"{n_parts} parts merged differ from the whole: {_difference(merged, whole)}"
        one_by_one = feature.empty()
        for i, j in pairwise(cuts):
            one_by_one = feature.observe(one_by_one, column[order[i:j]])
        assert one_by_one == whole, f"observing one after the other differs from the whole: {_difference(one_by_one, whole)}"


def state_is_plain(feature: Feature, column: "pl.Series") -> None:
    """A state is JSON without NaN, and what comes back from JSON encodes the same."""
    state = feature.observe(feature.empty(), column)
    back = json.loads(json.dumps(state, allow_nan=False))
    assert back == state, f"the state is not plain JSON data: {_difference(back, state)}"
    for form in forms_of(feature):
        _assert_same(feature.encode(back, column, form), feature.encode(state, column, form), f"{form}, state read from JSON")


def a_settled_state_encodes_the_same(feature: Feature, column: "pl.Series") -> None:
    """What a package keeps of a state is enough, and settling twice is settling once."""
    state = feature.observe(feature.empty(), column)
    settled = json.loads(json.dumps(feature.settled(state), allow_nan=False))
    assert feature.settled(settled) == settled, "settling a settled state changed it"
    for form in forms_of(feature):
        assert feature.layout(settled, form) == feature.layout(state, form), f"{form}: the layout of the settled state differs"
        _assert_same(feature.encode(settled, column, form), feature.encode(state, column, form), f"{form}, settled state")


def encodings_fit_their_layout(feature: Feature, column: "pl.Series") -> None:
    """Blocks have the promised role, width, type and length; scaled ones are finite; a row does not depend on its neighbours."""
    for fitted in (column, column[:1], column[:0]):
        state = feature.observe(feature.empty(), fitted)
        for form in forms_of(feature):
            layout, block = feature.layout(state, form), feature.encode(state, column, form)
            _assert_fits(layout, block, len(column), f"{form}, {len(fitted)} rows observed")
            if form != "plain":
                finite = np.isfinite(_dense(block))
                if layout.role == "steps":  # behind a row's end it is NaN in all channels, and nowhere else
                    ends = finite.any(2).sum(1)
                    finite = finite | (np.arange(layout.shape[0])[None, :, None] >= ends[:, None, None])
                assert finite.all(), f"scaled values of {type(feature).__name__} are not all finite"
            assert len(feature.encode(state, column[:0], form)) == 0, f"{form}: no rows did not encode to no rows"
            if fitted is not column:
                continue
            singles = np.concatenate([_dense(feature.encode(state, column[i : i + 1], form)) for i in range(len(column))])
            np.testing.assert_array_equal(singles, _dense(block), err_msg=f"{form}: a row alone encodes differently than among others")


def graph_equals_python(feature: Feature, column: "pl.Series") -> None:
    """The drawn graph gives the same bits as `encode`: on states of no, one and all rows, on all rows together and one by one."""
    from modelinscale.encode.tensors import to_numpy

    for fitted in (column, column[:1], column[:0]):
        state = feature.observe(feature.empty(), fitted)
        odd = as_column(feature, feature.examples(state))
        for form in forms_of(feature):
            run = session(feature, state, form)
            for values in (column, odd):
                expected, fed = _dense(feature.encode(state, values, form)), to_numpy(values, feature.input)
                where = f"{type(feature).__name__}, {form}, {len(fitted)} rows observed"
                _assert_bits(run(fed), expected, values, where)
                singles = np.concatenate([run(fed[i : i + 1]) for i in range(len(values))])
                _assert_bits(singles, expected, values, f"{where}, one by one")


def as_column(feature: Feature, values: Sequence[Any]) -> "pl.Series":
    """Python values as a column in graph-input form (see `encode.tensors.to_input`)."""
    import polars as pl

    from modelinscale.encode.tensors import to_input

    if feature.input == "vector":
        width = next((len(v) for v in values if v is not None), 1)
        return pl.Series("x", values, dtype=pl.Array(pl.Float32, width))
    if feature.input == "sequence":
        steps = [step for row in values for step in row or [] if step is not None]
        if not steps or not isinstance(steps[0], list):
            return pl.Series("x", values, dtype=pl.List(pl.Float32))
        import pyarrow as pa

        # Polars makes a column of its own of every step: of ten thousand steps that takes a second.
        return pl.Series("x", pa.array(values, pa.list_(pa.list_(pa.float32(), len(steps[0])))))
    kinds: dict[str, pl.DataType] = {"float64": pl.Float64(), "string": pl.String(), "int64": pl.Datetime("us"), "image": pl.Binary()}
    return to_input(pl.Series("x", values, dtype=kinds[feature.input]), feature.input)


def session(feature: Feature, state: State, form: Form) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The feature alone as a running graph: a function from graph input to the block as an array."""
    import onnxruntime

    from modelinscale.encode import draw
    from modelinscale.export.proto import to_bytes

    graph = Graph()
    tensor = draw({"x": feature}, {"x": state}, form, graph)["x"]
    layout = feature.layout(state, form)
    whole = layout.role in ("ids", "tokens")
    graph.output("block", tensor, "int64" if whole else "float32", ("N",) if layout.role == "ids" else ("N", *(layout.shape or (layout.width,))))
    running = onnxruntime.InferenceSession(to_bytes(graph, name="feature"), providers=["CPUExecutionProvider"])

    def run(values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype == object and feature.input == "image":  # images of different sizes go one by one
            return np.concatenate([np.asarray(running.run(["block"], {"x": one[None]})[0]) for one in values])
        if feature.input == "sequence":
            values = padded(values.tolist(), layout.shape[1] if layout.role == "steps" else state["width"])
        cutter = feature.hosted(state, form)
        more = {} if cutter is None else {tokens_of("x"): cutter.ids(values.tolist()).astype(np.int64)}
        found: NDArray[Any] = running.run(["block"], {"x": values, **more})[0]
        return found

    return run


def _dense(block: Values) -> NDArray[Any]:
    return block.dense() if isinstance(block, Sparse) else block


def _assert_fits(layout: Layout, block: Values, n_rows: int, where: str) -> None:
    assert len(block) == n_rows, f"{where}: {len(block)} rows encoded, expected {n_rows}"
    if layout.role in ("image", "tokens", "steps"):
        kind = {"image": "uint8", "tokens": "int32", "steps": "float32"}[layout.role]
        assert (str(np.asarray(block).dtype), np.asarray(block).shape) == (kind, (n_rows, *layout.shape)), f"{where}: {layout}"
        return
    assert len(layout.names) == layout.width, f"{where}: {len(layout.names)} names for {layout.width} columns"
    # Ids are told apart by their number: a category may well be called "(missing)".
    assert layout.role == "ids" or len(set(layout.names)) == layout.width, f"{where}: two columns share a name"
    if isinstance(block, Sparse):
        assert layout.role == "sparse", f"{where}: a sparse block with role {layout.role}"
        assert block.width == layout.width, f"{where}: a block of width {block.width}, expected {layout.width}"
        types = [str(a.dtype) for a in (block.starts, block.columns, block.values)]
        assert types == ["int64", "int32", "float32"], f"{where}: starts, columns and values are {types}"
        assert block.starts[-1] == len(block.columns) == len(block.values), f"{where}: starts do not end at the number of values"
        rising = np.diff(block.columns) > 0
        rising[block.starts[1:-1][(block.starts[1:-1] > 0) & (block.starts[1:-1] < len(block.columns))] - 1] = True
        assert rising.all(), f"{where}: columns do not ascend within a row"
    elif layout.role == "ids":
        assert (str(block.dtype), block.ndim) == ("int32", 1), f"{where}: ids are {block.dtype} of {block.ndim} axes"
        assert not len(block) or (block.min() >= 0 and block.max() < layout.width), f"{where}: an id outside 0 to {layout.width - 1}"
    else:
        assert (layout.role, str(block.dtype), block.shape) == ("dense", "float32", (n_rows, layout.width)), f"{where}: {block.dtype} {block.shape}"


def _assert_same(found: Values, expected: Values, where: str) -> None:
    np.testing.assert_array_equal(_dense(found), _dense(expected), err_msg=where)


def _assert_bits(found: NDArray[Any], expected: NDArray[Any], values: "pl.Series", where: str) -> None:
    found = found.astype(expected.dtype) if expected.dtype.kind in "iu" else found
    assert found.shape == expected.shape, f"{where}: the graph gives {found.shape}, Python {expected.shape}"
    # All NaN count as one value; both zeros do not.
    a, b = (np.where(np.isnan(v), np.float32("nan"), v).view(np.int32) if v.dtype == np.float32 else v for v in (found, expected))
    wrong = np.argwhere((a != b).reshape(len(a), -1).any(axis=1)).ravel()
    if len(wrong):
        i = int(wrong[0])
        raise AssertionError(f"{where}: {len(wrong)} of {len(a)} rows differ, first {str(values[i])[:80]!r}: graph {found[i]}, Python {expected[i]}")


def _difference(a: State, b: State) -> str:
    return "; ".join(f"{key}: {str(a.get(key))[:200]} / {str(b.get(key))[:200]}" for key in sorted({*a, *b}) if a.get(key) != b.get(key))
