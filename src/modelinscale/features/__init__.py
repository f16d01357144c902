"""Features: raw columns to numbers, learned from partitions, the same in Python and in the ONNX graph."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form, InputType, Layout, Values
from modelinscale.core.graph import Graph
from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Column
from modelinscale.core.tokenizer import Tokenizer

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

State = dict[str, Any]
"""A feature's learned state: plain JSON data (lists, dicts, strings, numbers), nothing else."""


class Feature(Kind):
    """How one column becomes numbers. Settings only: what is learned is a `State`, passed in and handed back.

    An example of a whole kind is `features/flag.py`; the suite in ``testing/features.py`` proves what is said here.
    """

    folder: ClassVar[str] = "features"
    input: ClassVar[InputType]
    deep: ClassVar[bool] = False
    """Whether it has a form "deep" of its own; otherwise it gives the form "scaled" where "deep" is asked for (`form_of`)."""

    @classmethod
    @abstractmethod
    def suits(cls, column: Column) -> bool:
        """Whether a column of this type can be read by this feature at all."""

    @abstractmethod
    def empty(self) -> State:
        """The state of no rows."""

    def begun(self) -> State:
        """The same, with what is read from elsewhere (a folder, the hub): once, before rows are, since where they are read there may be no such folder."""
        return self.empty()

    @abstractmethod
    def observe(self, state: State, values: "pl.Series") -> State:
        """The state after these rows too. ``values`` are in graph-input form (see `to_input`). Returns a new state; merges exactly."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Both samples together, as if seen at once; order does not matter."""

    @abstractmethod
    def layout(self, state: State, form: Form) -> Layout:
        """What `encode` will give. Names of columns are relative: "" for the value itself, ``missing``; the feature's own name comes before them later."""

    @abstractmethod
    def encode(self, state: State, values: "pl.Series", form: Form) -> Values:
        """The block of these rows, vectorised; ``values`` in graph-input form. Form "scaled" is always finite."""

    @abstractmethod
    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        """Draws the same computation; returns the tensor: float32 (N, D) for dense and sparse, int64 (N,) for ids."""

    @classmethod
    def graphs(cls, features: Sequence[Self], states: Sequence[State], form: Form, graph: Graph, tensors: Sequence[str]) -> list[str]:
        """Draws several features of this kind together: `graph` one by one, unless the kind has a cheaper way."""
        return [f.graph(s, form, graph, t) for f, s, t in zip(features, states, tensors, strict=True)]

    def settled(self, state: State) -> State:
        """What `layout`, `encode` and `graph` need of a state, with a summary for reference: what a package keeps. It is not observed or merged further."""
        return state

    def hosted(self, state: State, form: Form) -> Tokenizer | None:
        """How the host cuts a column's texts before the graph, which then has an input for the tokens besides (`Graph.beside`); None for most: all of it is
        in the graph."""
        return None

    def notes(self, state: State, form: Form) -> tuple[str, ...]:
        """What a user should know of the training rows' values that this form does not show whole; nothing for most."""
        return ()

    @abstractmethod
    def examples(self, state: State | None = None) -> list[Any]:
        """Odd raw values (Python values, None = missing) on which graph and Python must agree, for parity checks and golden rows.

        With a state, also values that matter to it: known words, the extremes seen, a vector's width.
        """


def form_of(feature: Feature, form: Form) -> Form:
    """The form a feature gives where a model asks for ``form``."""
    return "scaled" if form == "deep" and not feature.deep else form


class Tallied(Feature):
    """A feature of words that repeat: it learns from how often each occurs, and each may be encoded once, so that rows need not be made of them."""

    @abstractmethod
    def tally(self, state: State, distinct: "pl.Series", counts: NDArray[np.int64]) -> State:
        """As `observe`: the state after ``counts[i]`` more rows of the value ``distinct[i]``, in graph-input form; values may come more than once."""

    def observe(self, state: State, values: "pl.Series") -> State:
        return self.tally(state, *_counted(values))

    def counted(self, values: "pl.Series") -> "tuple[pa.Array, NDArray[np.int64]]":
        """What `tally` takes, of rows; words as Arrow has them."""
        distinct, counts = _counted(values)
        return distinct.to_arrow(), counts


def _counted(values: "pl.Series") -> "tuple[pl.Series, NDArray[np.int64]]":
    found = values.value_counts(name="n")
    return found[values.name], found["n"].to_numpy().astype(np.int64)
