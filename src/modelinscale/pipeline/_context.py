"""What several steps of one run share, each read or computed once: rows of the table, parts, states, encoded rows.

N rows of the table. They are held in memory where that is comfortable; otherwise they are read partition by partition, and encoded rows lie on disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import memory
from modelinscale.core.encoded import Form, Layout, Sparse
from modelinscale.core.files import refuse_full
from modelinscale.core.schema import Schema
from modelinscale.core.seeds import derive, mixed
from modelinscale.core.task import Task
from modelinscale.data.split import NAMES, TEST, TRAIN, UNUSED, VALID
from modelinscale.features import Feature, State
from modelinscale.models import BLOCK_ROWS, SCORED_ROWS, Examples, Model, Weights
from modelinscale.pipeline._needs import learns, libraries
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    from modelinscale.compute import Compute
    from modelinscale.data.partitions import Rows
    from modelinscale.encode import Encoder
    from modelinscale.train import Learned, Maker, Totals

HELD_ENCODED = 4
"""Encoded rows are held in memory where it is allowed to be this many times their size: the blocks, and a family's own matrix of them."""
HELD_OUT = "held_out.npy"
"""Beside weights that have seen the validation rows: what the same settings said of them before."""
_SCORED_SHARE = 4
"""Blocks of encoded rows that are scored may be no more than so small a part of what there is for rows."""
_LOOK_ROWS = 4_096
"""Rows that are encoded to see how large an encoded row is."""


def judged_rows(task: Task, room: int) -> int:
    """Rows that can be judged at once: scores, probabilities and sums of three models. Measured: 925 bytes a row of 5 classes, 2,600 of 20."""
    return max(10_000, int(room * 0.8 / (400 + 120 * max(1, len(task.labels)))))


def _thin(parts: NDArray[np.int8], number: int, share: float) -> None:
    """Leaves about that share of a part's rows in it, in place: those whose random number, a function of their place, is below it."""
    key, bound, step = np.uint64(derive(0, "judged", number)), np.uint64(int(share * 2.0**64)), 1 << 20
    for start in range(0, len(parts), step):
        here = parts[start : start + step]
        here[(here == number) & (mixed(key, np.arange(start, start + len(here), dtype=np.uint64)) >= bound)] = UNUSED


class Context:
    """One run: the place, the results of the steps so far, and what was read or computed from them."""

    def __init__(self, place: Place, progress: Any, watch: Any = None) -> None:
        self.place = place
        self.watch = watch
        self.spec = place.spec
        self.progress = progress
        self.done: dict[str, Result] = {}
        self._examples: dict[tuple[str, Form], Examples] = {}
        self._encoders: dict[Form, Encoder] = {}
        self._learned: dict[str, Learned] = {}
        self._parts: NDArray[np.int8] | None = None
        self._scratch: Path | None = None

    def with_parts(self, parts: NDArray[np.int8]) -> Context:
        """The same rows and features under another split, states learned anew from its training rows; nothing of it is kept."""
        from modelinscale.encode import observe

        other = Context(self.place, lambda step, share, note: None)
        other.done, other.rows, other._parts = self.done, self.rows, parts
        other.states = observe(self.place.located(self.features), self.rows, parts, compute=self.spec.compute)
        return other

    # -- the table

    @cached_property
    def schema(self) -> Schema:
        return Schema.model_validate(self.facts("collect")["schema"])

    @cached_property
    def rows(self) -> Rows:
        """The labelled and unlabelled rows of the table version, columns this file uses; N rows in the order of the table."""
        from modelinscale.data.partitions import open_rows

        facts, compute = self.facts("collect"), self.spec.compute
        uri = self.place.store.uri("lake", facts["table"])
        local = compute.type == "local"  # elsewhere rows are read where they are worked on
        return open_rows(uri, facts["version"], self._columns(), memory_bytes=self._budget, workers=compute.in_process, hold=None if local else False)

    @property
    def _budget(self) -> int | None:
        """What the process may hold beside what only some families need; None: what is free."""
        return None if self.spec.compute.memory is None else self.spec.compute.memory - libraries(self.spec)

    @property
    def room(self) -> int:
        """Bytes for rows, beside interpreter and libraries."""
        return memory.room(self._budget)

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
        # Mapped, not read: a byte a row that the system can take back.
        return cast("NDArray[np.int8]", np.load(self.done["prepare"].folder / "parts.npy", allow_pickle=False, mmap_mode="r"))

    @cached_property
    def judged(self) -> NDArray[np.int8]:
        """(N,): `parts` with no more validation and test rows than can be judged within the memory there is; the others are unused here."""
        most = judged_rows(self.task, self.room)
        found = self.parts
        for number in (VALID, TEST):
            n = int(np.count_nonzero(found == number))
            if n > most:
                found = np.array(found) if found is self.parts else found
                _thin(found, number, most / n)
        return found

    def index(self, part: str) -> NDArray[np.int64]:
        """Positions of the rows of a part that are judged, ascending; not for training rows."""
        return np.flatnonzero(self.judged == NAMES.index(part))

    def n_rows(self, part: str) -> int:
        """Rows of a part that are judged."""
        return int(np.count_nonzero(self.judged == NAMES.index(part)))

    def judged_notes(self) -> list[str]:
        """What to say where not all rows are judged."""
        pairs = [(part, int(np.count_nonzero(self.parts == NAMES.index(part))), self.n_rows(part)) for part in ("valid", "test")]
        words = {"valid": "choose with", "test": "test on"}
        return [f"within the memory there is, {n:,} of {of:,} rows to {words[part]} were used, evenly drawn." for part, of, n in pairs if n < of]

    def known_scores(self, one: Learned) -> NDArray[np.float64] | None:
        """What it said of the judged validation rows when it was trained; None: it is not known."""
        if one.valid_scores is None or self.judged is self.parts:
            return one.valid_scores
        kept: NDArray[np.bool_] = self.judged[np.flatnonzero(self.parts == VALID)] == VALID
        return np.asarray(one.valid_scores[kept], np.float64)

    def folds(self) -> NDArray[np.int8] | None:
        """The fold of each row of training, then of validation; None where the split leaves none."""
        from modelinscale.data.folds import folds

        split = self.spec.data.split
        content = list(self.facts("prepare")["features"])
        return folds(self.rows, np.asarray(self.parts), split, time=self.spec.data.time, content=content, target=self.task.columns)

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
        return self.encoder(form).layouts

    # -- encoded

    def encoder(self, form: Form) -> Encoder:
        from modelinscale.encode import Encoder

        if form not in self._encoders:
            self._encoders[form] = Encoder.of(self.features, self.states, form)
        return self._encoders[form]

    def maker(self, form: Form) -> Maker:
        from modelinscale.train import Maker

        return Maker(self.encoder(form), self.task, self.spec.train.weight)

    def encoded_bytes(self, form: Form) -> float:
        """Bytes of an encoded row, words included, from the first rows."""
        found = self.encoder(form).encode(self.rows.head(_LOOK_ROWS, list(self.features)))
        n_bytes = sum(b.values.nbytes + b.columns.nbytes + b.starts.nbytes if isinstance(b, Sparse) else b.nbytes for b in found.blocks.values())
        return 16 + 8 * (self.task.target_width or 0) + n_bytes / max(1, found.n_rows)

    def fits(self, form: Form) -> bool:
        """Whether the encoded rows can be held in memory, beside those of the table if they are."""
        rows = len(self.rows) * self.rows.row_bytes if self.rows.held else 0.0
        used = int(np.count_nonzero(self.parts != UNUSED))
        return rows + used * self.encoded_bytes(form) * HELD_ENCODED <= self.room

    def examples(self, part: str, form: Form) -> Examples:
        """The encoded rows of a part with their answers: in memory, or in a row file beside the store's other work."""
        if (part, form) not in self._examples:
            shared = form == "deep" and self.spec.train.workers > 1 and self.spec.compute.crew() is None  # programs of this machine read them for themselves
            self._examples[part, form] = self._held(part, form) if self.fits(form) and not shared else self._stored(part, form)
        return self._examples[part, form]

    def _held(self, part: str, form: Form) -> Examples:
        from modelinscale.train._rows import together

        found = list(self._made(part, form))
        return together(found) if found else self._none(form)

    def _stored(self, part: str, form: Form) -> Examples:
        from modelinscale.encode.stored import Packer, Stored, row_bytes, shuffle_disk, write

        if self._scratch is None:
            name = f"rows-{self.done['prepare'].identity}" + ("" if self._parts is None else "-other")
            self._scratch = self.place.store.path("work", name)
            for left in self._scratch.parent.glob("rows-*"):
                if left != self._scratch or self._parts is not None:  # a killed run's, of rows that are others by now
                    shutil.rmtree(left, ignore_errors=True)
        folder = self._scratch / f"{form}-{part}"
        if not folder.is_dir():
            numbers, weights, width = self.task.numbers, bool(self.spec.train.weight), self.task.target_width
            n_rows = int(np.count_nonzero(self.parts == NAMES.index(part)))
            size = row_bytes(self.layouts(form), self.encoded_bytes(form))
            needed = n_rows * size
            if part == "train" and form != "plain" and learns(self.spec, "mlp" if form == "scaled" else "network"):
                needed += shuffle_disk(n_rows, size, self._budget)
            folder.parent.mkdir(parents=True, exist_ok=True)
            refuse_full(folder.parent, needed, f"keeping {n_rows:,} encoded rows while they are learned from")
            packer = Packer(self.maker(form).examples, self.layouts(form), numbers, weights, width)
            made = self.spec.compute.map(packer.rows, self.rows.chosen(self.parts, NAMES.index(part)))
            write(folder, packer.layouts, made, numbers=numbers, weights=weights, width=width)
        return Stored(folder, memory=self._budget)

    def _made(self, part: str, form: Form) -> Iterator[Examples]:
        return self.spec.compute.map(self.maker(form).examples, self.rows.chosen(self.parts, NAMES.index(part)))

    def _none(self, form: Form) -> Examples:
        width = self.task.target_width
        target: NDArray[Any] = np.zeros(0 if width is None else (0, width), np.float64 if self.task.numbers else np.int64)
        weight = np.zeros(0) if self.spec.train.weight else None
        return Examples(self.encoder(form).encode(self.rows.head(1, list(self.features)).head(0)), target, weight)

    def forget_examples(self) -> None:
        """Lets go of encoded rows: they are the largest thing a run holds, in memory or on disk."""
        self._examples.clear()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def answers(self, part: str) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Target and weight (None: all 1) of the rows of a part that are judged."""
        found = list(self.spec.compute.map(self.maker("plain").answers, self.rows.chosen(self.judged, NAMES.index(part))))
        if not found:
            none = self._none("plain")
            return none.target, none.weight
        weights = [weight for _, weight in found if weight is not None]
        return np.concatenate([target for target, _ in found]), np.concatenate(weights) if weights else None

    def totals(self) -> Totals:
        """What is known of the training rows' answers."""
        from modelinscale.train import Totals

        return Totals.of(self._answer_blocks(), self.task)

    def _answer_blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[np.float64] | None]]:
        """Of the training rows, in blocks of `BLOCK_ROWS`: sums over them are then the same however the table is read."""
        targets: NDArray[Any] | None = None
        weights: NDArray[np.float64] | None = None
        for target, weight in self.spec.compute.map(self.maker("plain").answers, self.rows.chosen(self.parts, TRAIN)):
            targets = target if targets is None else np.concatenate([targets, target])
            weights = weight if weights is None or weight is None else np.concatenate([weights, weight])
            while len(targets) >= BLOCK_ROWS:
                yield targets[:BLOCK_ROWS], None if weights is None else weights[:BLOCK_ROWS]
                targets, weights = targets[BLOCK_ROWS:], None if weights is None else weights[BLOCK_ROWS:]
        if targets is not None and len(targets):
            yield targets, weights

    def scores(self, one: Learned, part: str) -> NDArray[np.float64]:
        """What was learned says of the judged rows of a part, (n,) or (n, C); they are read, encoded and scored a block at a time, where ``compute`` is."""
        from modelinscale.train import Scorer, lots

        form, n = one.model.form, self.n_rows(part)
        if not n:
            return one.model.predict(one.weights, self._none(form).rows)
        scorer = Scorer(one.model, one.weights, self.encoder(form))
        compute, n_rows = self._few(form, n)
        return np.concatenate(list(compute.map(scorer.scores, lots(self.rows, self.judged, NAMES.index(part), n_rows))))

    def _few(self, form: Form, n: int) -> tuple[Compute, int]:
        """``compute`` and the rows of a block: as many encoded rows in work at once in one process as fit beside what else it holds."""
        compute, n_rows = self.spec.compute, BLOCK_ROWS
        if n <= SCORED_ROWS:
            return compute, n_rows
        most = self.room / _SCORED_SHARE / (self.encoded_bytes(form) * HELD_ENCODED)
        while n_rows > SCORED_ROWS and n_rows * compute.in_process > most:
            n_rows //= 2
        fit = max(1, int(most / n_rows))
        return compute if fit >= compute.in_process else compute.but(workers=fit), n_rows

    # -- learned

    def learned(self, which: str) -> Learned:
        """``model`` or ``linear``, as the train step left it."""
        from modelinscale.train import Learned

        if which not in self._learned:
            facts = self.facts("train")
            folder = self.done["train"].folder / which
            held = np.load(folder / HELD_OUT, allow_pickle=False) if (folder / HELD_OUT).is_file() else None
            self._learned[which] = Learned(Model.parse(facts[which]), Weights.load(folder), held, saw_valid=held is not None)
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
