"""What several steps of one run share, each read or computed once: rows of the table, parts, states, encoded blocks."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Form, Layout
from modelinscale.core.schema import Schema
from modelinscale.core.task import Task
from modelinscale.data.split import NAMES, TRAIN, UNUSED
from modelinscale.features import Feature, State
from modelinscale.models import Examples, Model, Weights
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.train import Learned

STATE_ROWS = 262_144
"""Rows of a partition, of which states are learned and then merged."""


class Context:
    """One run: the place, the results of the steps so far, and what was read or computed from them."""

    def __init__(self, place: Place, progress: Any) -> None:
        self.place = place
        self.spec = place.spec
        self.progress = progress
        self.done: dict[str, Result] = {}
        self._encoded: dict[Form, Encoded] = {}
        self._learned: dict[str, Learned] = {}
        self._parts: NDArray[np.int8] | None = None

    def with_parts(self, parts: NDArray[np.int8]) -> Context:
        """The same rows and features under another split, states learned anew from its training rows; nothing of it is kept."""
        from modelinscale.encode import observe

        other = Context(self.place, lambda step, share, note: None)
        other.done, other.frame, other._parts = self.done, self.frame, parts
        other.states = observe(self.features, self.frame, np.flatnonzero(parts == TRAIN), compute=self.spec.compute, n_rows=STATE_ROWS)
        return other

    # -- the table

    @cached_property
    def schema(self) -> Schema:
        return Schema.model_validate(self.facts("collect")["schema"])

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The labelled and unlabelled rows of the table version, columns this file uses; N rows in the order of the table."""
        import polars as pl
        import pyarrow as pa

        from modelinscale.data.arrow import arrow_schema
        from modelinscale.data.lake import open_table

        facts = self.facts("collect")
        columns = self._columns()
        table = open_table(self.place.store.uri("lake", facts["table"]), facts["version"])
        batches = list(table.blocks(list(columns)))
        rows = pl.from_arrow(pa.Table.from_batches(batches, schema=None if batches else arrow_schema(self.schema.only(columns))))
        assert isinstance(rows, pl.DataFrame)
        return rows

    def _columns(self) -> tuple[str, ...]:
        if not self.spec.features:
            return self.schema.names
        wanted = set(self.spec.needed)
        return tuple(name for name in self.schema.names if name in wanted)

    # -- prepared

    @cached_property
    def parts(self) -> NDArray[np.int8]:
        """(N,): 0 train, 1 valid, 2 test, -1 not used."""
        if self._parts is not None:
            return self._parts
        return cast("NDArray[np.int8]", np.load(self.done["prepare"].folder / "parts.npy", allow_pickle=False))

    @cached_property
    def index(self) -> dict[str, NDArray[np.int64]]:
        """Positions of the rows of each part, ascending."""
        return {name: np.flatnonzero(self.parts == number) for number, name in enumerate(NAMES)}

    @cached_property
    def used(self) -> NDArray[np.int64]:
        """Positions of all rows that belong to a part: encoded blocks hold just these, in this order."""
        return np.flatnonzero(self.parts != UNUSED)

    @cached_property
    def task(self) -> Task:
        return Task.model_validate(self.facts("prepare")["task"])

    @cached_property
    def features(self) -> dict[str, Feature]:
        return {name: Feature.parse(settings) for name, settings in self.facts("prepare")["features"].items()}

    @cached_property
    def states(self) -> dict[str, State]:
        return cast("dict[str, State]", json.loads((self.done["prepare"].folder / "states.json").read_text(encoding="utf-8")))

    def layouts(self, form: Form) -> dict[str, Layout]:
        from modelinscale.encode import layouts

        return layouts(self.features, self.states, form)

    # -- encoded

    def rows(self, part: str, form: Form) -> Encoded:
        """The encoded rows of a part."""
        return self.blocks(form).rows(np.searchsorted(self.used, self.index[part]))

    def blocks(self, form: Form) -> Encoded:
        """All used rows, encoded once a form."""
        from modelinscale.encode import encode

        if form not in self._encoded:
            frame = self.frame.select(list(self.features))
            self._encoded[form] = encode(self.features, self.states, frame if len(self.used) == len(frame) else frame[self.used], form)
        return self._encoded[form]

    def forget_blocks(self) -> None:
        """Lets go of encoded rows: they are the largest thing a run holds."""
        self._encoded.clear()

    def examples(self, part: str, form: Form) -> Examples:
        index = self.index[part]
        weight = None if self.weight is None else self.weight[index]
        return Examples(self.rows(part, form), self.target[index], weight)

    @cached_property
    def target(self) -> NDArray[Any]:
        """(N,): class index or number; rows without a label (never in a part) hold 0."""
        from modelinscale.train import encode_target

        target = np.zeros(len(self.frame), np.float64 if self.task.type == "regression" else np.int64)
        target[self.used] = encode_target(self.frame[self.spec.target].gather(self.used), self.task)
        return target

    @cached_property
    def weight(self) -> NDArray[np.float64] | None:
        """(N,): row weights of the user's column, without class weights; None: all 1."""
        from modelinscale.train import row_weights

        if not self.spec.train.weight:
            return None
        weight = np.zeros(len(self.frame))
        weight[self.used] = row_weights(self.frame[self.spec.train.weight].gather(self.used))
        return weight

    # -- learned

    def learned(self, which: str) -> Learned:
        """``model`` or ``linear``, as the train step left it."""
        from modelinscale.train import Learned

        if which not in self._learned:
            facts = self.facts("train")
            self._learned[which] = Learned(Model.parse(facts[which]), Weights.load(self.done["train"].folder / which))
        return self._learned[which]

    def remember(self, which: str, learned: Learned) -> None:
        """Keeps what was just learned, so that the next step need not read it."""
        self._learned[which] = learned

    @cached_property
    def valid_scores(self) -> NDArray[np.float64]:
        """The chosen model's scores of the validation rows, (N,) or (N, C)."""
        return cast("NDArray[np.float64]", np.load(self.done["evaluate"].folder / "valid_scores.npy", allow_pickle=False))

    def facts(self, step: str) -> Facts:
        return self.done[step].facts

    def folder(self, step: str) -> Path:
        return self.done[step].folder

    def report(self, step: str) -> Any:
        """A progress callback of one step: ``(share, note)``. Only the runner says that a step is done."""
        return lambda share, note: self.progress(step, None if share is None else min(share, 0.99), note)
