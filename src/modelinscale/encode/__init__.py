"""Encode: a table's typed columns through all features at once, in Python and as the first part of the ONNX graph.

Everywhere ``features`` maps the name of a column to its feature, and ``states`` has the same keys. N rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from modelinscale.core.encoded import Encoded, Form, Layout, Sparse, Values, block_name, forms_of
from modelinscale.core.errors import DataError, did_you_mean
from modelinscale.core.graph import Graph
from modelinscale.encode._tally import Tally
from modelinscale.features import Feature, State, Tallied, form_of

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.compute import Compute
    from modelinscale.data.partitions import Chosen, Coded, Rows
    from modelinscale.data.split import Parts

Features = Mapping[str, Feature]
States = dict[str, State]


def empty_all(features: Features) -> States:
    """The states of no rows."""
    return {name: feature.empty() for name, feature in features.items()}


def observe(features: Features, rows: "Rows", parts: "Parts", *, compute: "Compute") -> States:
    """The states of the training rows, learned partition by partition wherever ``compute`` runs them, and merged.

    ``parts`` (N,) as `data.split.assign` gives them. The states are the same whatever the partitions (docs/decisions/0006).
    """
    from modelinscale.data.split import TRAIN

    begun = {name: feature.begun() for name, feature in features.items()}  # sent along: what is learned elsewhere is read here alone
    found = compute.reduce(partial(observe_piece, features, begun=begun), partial(_merge_seen, features), rows.chosen(parts, TRAIN), Seen({}, {}))
    return Seen(begun | found.states, found.tallies).settled(features)


class Seen(NamedTuple):
    """What is known of some rows while others are still looked at."""

    states: States
    tallies: dict[str, Tally]
    """Instead of their states, of features that are `Tallied`."""

    def settled(self, features: Features) -> States:
        """The states."""
        found = self.states | {name: one.settled(feature) for name, one in self.tallies.items() if isinstance(feature := features[name], Tallied)}
        return {name: found.get(name) or feature.empty() for name, feature in features.items()}


def observe_piece(features: Features, piece: "Chosen", begun: States | None = None) -> Seen:
    """What the chosen rows of one partition hold: what is sent to where the work is done. ``begun``: states of no rows, as `Feature.begun` gives them."""
    return _look(features, begun or empty_all(features), *piece.read_coded(list(features), tallied(features)))


def observe_all(features: Features, frame: "pl.DataFrame") -> States:
    """The states of these rows alone: a partition's share, to be merged with the others' (`merge_all`)."""
    return _look(features, empty_all(features), frame, {}).settled(features)


def _look(features: Features, begun: States, frame: "pl.DataFrame", coded: "Mapping[str, Coded]") -> Seen:
    from modelinscale.encode.tensors import to_input

    seen = Seen({}, {})
    for name, feature in features.items():
        if isinstance(feature, Tallied):
            words, counts = coded[name].counts() if name in coded else feature.counted(to_input(_column(frame, name), feature.input))
            seen.tallies[name] = Tally.of(feature, words, counts)
        else:
            seen.states[name] = feature.observe(begun[name], to_input(_column(frame, name), feature.input))
    return seen


def _merge_seen(features: Features, a: Seen, b: Seen) -> Seen:
    if not a.states and not a.tallies:
        return b
    tallies = {name: one.merged(feature, b.tallies[name]) for name, one in a.tallies.items() if isinstance(feature := features[name], Tallied)}
    return Seen({name: features[name].merge(state, b.states[name]) for name, state in a.states.items()}, tallies)


def tallied(features: Features) -> list[str]:
    """The columns that may come as codes (`Chosen.read_coded`)."""
    return [name for name, feature in features.items() if isinstance(feature, Tallied)]


def merge_all(features: Features, a: States, b: States) -> States:
    """The states of both samples together."""
    return {name: feature.merge(a[name], b[name]) for name, feature in features.items()}


def settle_all(features: Features, states: States) -> States:
    """The states as a package keeps them: all that encoding needs, without what only further observing would."""
    return {name: feature.settled(states[name]) for name, feature in features.items()}


def layouts(features: Features, states: States, form: Form) -> dict[str, Layout]:
    """What `encode` will give. Columns of dense and sparse blocks are named after their feature: ``age``, ``age: missing``, ``text: free``."""
    found: dict[str, Layout] = {}
    for one in forms_of(form):
        for name, feature in features.items():
            block = block_name(name, one, form)
            found[block] = _named(block, feature.layout(states[name], form_of(feature, one)))
    return found


def encode(features: Features, states: States, frame: "pl.DataFrame", form: Form) -> Encoded:
    """The rows of a table as blocks of numbers. Raises `DataError` when a feature's column is not there."""
    return Encoder.of(features, states, form).encode(frame)


@dataclass(frozen=True)
class Encoder:
    """`encode`, made ready once for many partitions: small, and can be sent to where they are encoded."""

    features: Features
    states: States
    """Settled: the long tail is looked through once, not at every partition."""
    form: Form
    layouts: dict[str, Layout]

    @classmethod
    def of(cls, features: Features, states: States, form: Form) -> "Encoder":
        settled = settle_all(features, states)
        return cls(dict(features), settled, form, layouts(features, settled, form))

    def encode(self, frame: "pl.DataFrame", coded: "Mapping[str, Coded] | None" = None) -> Encoded:
        """The rows of a frame. ``coded``: columns that are not in it."""
        return self.blocks(lambda name, one: self._block(name, one, frame, (coded or {}).get(name)))

    def blocks(self, make: Callable[[str, Form], Values]) -> Encoded:
        """What ``make`` gives for each feature and form it is asked for in, each once: ids are the same in every form."""
        made: dict[tuple[str, Form | None], Values] = {}
        found: dict[str, Values] = {}
        for one in forms_of(self.form):
            for name, feature in self.features.items():
                block = block_name(name, one, self.form)
                key = (name, None if self.layouts[block].role == "ids" else form_of(feature, one))
                if key not in made:
                    made[key] = make(name, form_of(feature, one))
                found[block] = made[key]
        return Encoded(self.layouts, found)

    def _block(self, name: str, form: Form, frame: "pl.DataFrame", coded: "Coded | None") -> Values:
        from modelinscale.encode.tensors import to_input

        feature, state = self.features[name], self.states[name]
        if coded is None:
            return feature.encode(state, to_input(_column(frame, name), feature.input), form)
        coded = coded.slim()
        each = feature.encode(state, coded.distinct(), form)
        assert not isinstance(each, Sparse), name
        return each.take(coded.codes, axis=0, mode="clip")  # which codes need not be: looking whether they are in range takes longer

    @property
    def tallied(self) -> list[str]:
        """The columns that may come as codes."""
        return tallied(self.features)

    def piece(self, piece: "Chosen") -> Encoded:
        """The chosen rows of a partition."""
        return self.encode(*piece.read_coded(list(self.features), self.tallied))


def draw(features: Features, states: States, form: Form, graph: Graph) -> dict[str, str]:
    """Draws the raw columns as inputs and the same encoding behind them; returns the tensor of each block (see `Feature.graph`).

    Inputs come in the order of ``features``. Features of one kind are drawn together where the kind has a cheaper way for many.
    """
    tensors = {name: _input(name, feature, states[name], graph) for name, feature in features.items()}
    drawn: dict[str, str] = {}
    same: dict[str, str] = {}  # ids: one tensor, in whatever form they are asked for
    for one in forms_of(form):
        ids = {name for name, feature in features.items() if feature.layout(states[name], form_of(feature, one)).role == "ids"}
        found = {name: same[name] for name in features if name in ids and name in same}
        found |= _draw_in(one, {name: feature for name, feature in features.items() if name not in found}, states, graph, tensors)
        same |= {name: found[name] for name in ids}
        drawn |= {block_name(name, one, form): found[name] for name in features}
    return drawn


def _draw_in(form: Form, features: Features, states: States, graph: Graph, tensors: Mapping[str, str]) -> dict[str, str]:
    drawn: dict[str, str] = {}
    for kind in dict.fromkeys(type(feature) for feature in features.values()):
        names = [name for name, feature in features.items() if type(feature) is kind]
        found = kind.graphs([features[n] for n in names], [states[n] for n in names], form_of(features[names[0]], form), graph, [tensors[n] for n in names])
        drawn.update(zip(names, found, strict=True))
    return drawn


def _input(name: str, feature: Feature, state: State, graph: Graph) -> str:
    if feature.input == "vector":
        return graph.input(name, "float32", feature.layout(state, "plain").width)
    if feature.input == "sequence":
        return graph.input(name, "float32", (f"steps of {name}", state["width"]))
    return graph.input(name, "uint8" if feature.input == "image" else feature.input)


def _named(name: str, layout: Layout) -> Layout:
    if layout.role not in ("dense", "sparse"):
        return layout
    return Layout(layout.role, layout.width, tuple(f"{name}: {column}" if column else name for column in layout.names))


def _column(frame: "pl.DataFrame", name: str) -> "pl.Series":
    if name not in frame.columns:
        raise DataError(f"there is no column {name!r} for the feature of that name.{did_you_mean(name, frame.columns)}", fix="Is it still in the source?")
    return frame[name]
