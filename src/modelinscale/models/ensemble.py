"""Several families as one model: the weighted mean of what they say, in one set of weights and one graph.

C scores. Of classes the mean is that of probabilities, given as logits; of numbers that of values.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, WithJsonSchema, model_validator

from modelinscale.core.encoded import Encoded, Form, Layout, beside, block_name, feature_of, layouts_in, rows_in
from modelinscale.core.errors import SpecError
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import BLOCK_ROWS, SCORED_ROWS, Effort, Examples, Model, Scores, Weights
from modelinscale.models._mixture import choose, draw_mixed, mixed, row_shares

_FEW = 20
"""With fewer validation rows than this all members count the same."""
_MEMBERS = WithJsonSchema({"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["type"]}]}})


class Ensemble(Model):
    """Several models that answer together: usually a little better than the best of them, at the price of all."""

    members: Annotated[tuple[Model, ...], _MEMBERS] = Field(("linear", "trees"), min_length=1)  # type: ignore[arg-type]
    """The families to mix, each a name or its settings; one may come more than once, with other settings."""
    shares: tuple[float, ...] | None = None
    """How much each member counts, 0 or more; null: chosen on the validation rows, and without any all the same."""

    @model_validator(mode="after")
    def _fit_together(self) -> "Ensemble":
        if any(isinstance(member, Ensemble) for member in self.members):
            raise SpecError("an ensemble cannot be a member of another.", fix="Name its members instead.")
        if self.shares is not None and (len(self.shares) != len(self.members) or min(self.shares) < 0 or not sum(self.shares)):
            raise SpecError(
                f"`shares` {list(self.shares)} do not say how much each of {len(self.members)} members counts.", fix="Write a number for each, 0 or more."
            )
        return self

    @property
    def form(self) -> Form:  # type: ignore[override]
        """The forms of its members, side by side."""
        return beside(member.form for member in self.members)

    def origins(self, weights: Weights) -> tuple[dict[str, Any], ...]:
        return tuple(one for member, own in zip(self.members, apart(weights), strict=True) for one in member.origins(own))

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        if task.several:
            return f"it mixes answers of one class or one number, not {task.several}; `network` gives them"
        whys = [(member.type, member.accepts(task, layouts_in(layouts, member.form, self.form))) for member in self.members]
        return "; ".join(f"{name}: {why}" for name, why in whys if why)

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Each member in turn, within its part of what is left of the budget; then their shares."""
        began, found = time.monotonic(), []
        for i, member in enumerate(self.members):
            left = None if effort.budget_s is None else max(0.0, effort.budget_s - (time.monotonic() - began)) / (len(self.members) - i)
            own = None if valid is None else View(valid, member.form, self.form)
            found.append(member.fit(View(train, member.form, self.form), own, task, self._effort(effort, i, left)))
        return joined(found, self.shares or self._chosen(found, valid, task), task)

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Each member by its own way, within its part of the budget; how much each counts stays."""
        found, shares = apart(weights), weights.meta["shares"]
        for i, member in enumerate(self.members):
            if shares[i]:
                left = None if effort.budget_s is None else effort.budget_s / len(self.members)
                own = None if valid is None else View(valid, member.form, self.form)
                found[i] = member.update(found[i], View(new, member.form, self.form), own, task, self._effort(effort, i, left))
        return joined(found, shares, task)

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        task, used = Task.model_validate(weights.meta["task"]), self._used(weights)
        scores = [member.predict(own, rows_in(rows, member.form, self.form)) for member, own, _ in used]
        return mixed(scores, [share for _, _, share in used], task)

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        scores, used = [], self._used(weights)
        for member, own, _ in used:
            known = layouts_in(layouts, member.form, self.form)
            scores.append(member.graph(own, task, known, graph, {name: blocks[block_name(name, member.form, self.form)] for name in known}))
        return draw_mixed(graph, scores, [share for _, _, share in used], task)

    def row_bytes(self, weights: Weights) -> int:
        return sum(member.row_bytes(own) for member, own, _ in self._used(weights))

    def edges(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        found: dict[str, list[NDArray[np.float32]]] = {}
        for member, own, _ in self._used(weights):
            for column, values in member.edges(own).items():
                found.setdefault(block_name(column, member.form, self.form), []).append(values)
        return {column: np.unique(np.concatenate(parts)) for column, parts in found.items()}

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """By feature, of the members that have an answer, as much as each counts."""
        found, total = dict.fromkeys((feature_of(name, self.form) for name in layouts), 0.0), 0.0
        for member, own, share in self._used(weights):
            parts = member.importance(own, layouts_in(layouts, member.form, self.form))
            total += share if parts else 0.0
            for name, part in parts.items():
                found[name] += share * part
        return {name: value / total for name, value in found.items()} if total else {}

    def _used(self, weights: Weights) -> list[tuple[Model, Weights, float]]:
        """The members that count, with their weights and shares."""
        return [one for one in zip(self.members, apart(weights), weights.meta["shares"], strict=True) if one[2]]

    def _chosen(self, found: list[Weights], valid: Examples | None, task: Task) -> tuple[float, ...]:
        if valid is None or len(valid) < _FEW:
            return (1.0,) * len(found)
        answers = np.empty((len(found), len(valid)))
        for i, (member, own) in enumerate(zip(self.members, found, strict=True)):
            at = 0
            for block in View(valid, member.form, self.form).blocks(SCORED_ROWS):
                answers[i, at : at + len(block)] = row_shares(member.predict(own, block.rows), block.target, task)
                at += len(block)
        return choose(answers, valid.target, valid.weight, task).shares

    def _effort(self, effort: Effort, i: int, budget_s: float | None) -> Effort:
        """What one member may use; each has a seed and a folder of its own."""
        name, n = self.members[i].type, len(self.members)
        folder = None if effort.checkpoints is None else effort.checkpoints / f"{i}-{name}"
        if folder is not None:
            folder.mkdir(exist_ok=True)
        return replace(
            effort,
            seed=effort.seed if i == 0 else derive(effort.seed, "ensemble", i),
            budget_s=budget_s,
            checkpoints=folder,
            tell=lambda note: effort.tell(f"{name}: {note}"),
            progress=lambda share, note: effort.progress((i + share) / n, f"{name}: {note}"),
        )


def joined(members: list[Weights], shares: "tuple[float, ...] | list[float]", task: Task) -> Weights:
    """The weights of all members as one; ``shares`` are brought to a sum of 1."""
    total = sum(shares)
    arrays = {f"{i}/{name}": array for i, own in enumerate(members) for name, array in own.arrays.items()}
    meta = {"members": [own.meta for own in members], "shares": [share / total for share in shares], "task": task.model_dump(mode="json")}
    return Weights(arrays, meta)


def apart(weights: Weights) -> list[Weights]:
    """The members' weights, as they went in."""
    parts: list[dict[str, NDArray[Any]]] = [{} for _ in weights.meta["members"]]
    for name, array in weights.arrays.items():
        i, _, own = name.partition("/")
        parts[int(i)][own] = array
    return [Weights(arrays, meta) for arrays, meta in zip(parts, weights.meta["members"], strict=True)]


class View(Examples):
    """Examples in several forms as one of them sees its own; they are held, or lie on the disk, as those do."""

    def __init__(self, whole: Examples, one: Form, form: Form) -> None:
        # The fields of the frozen class are properties here.
        object.__setattr__(self, "_whole", whole)
        object.__setattr__(self, "_one", one)
        object.__setattr__(self, "_form", form)

    _whole: Examples
    _one: Form
    _form: Form

    def __len__(self) -> int:
        return len(self._whole)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def rows(self) -> Encoded:
        return rows_in(self._whole.rows, self._one, self._form)

    @property
    def target(self) -> NDArray[Any]:
        return self._whole.target

    @property
    def weight(self) -> NDArray[np.float64] | None:
        return self._whole.weight

    @property
    def layouts(self) -> dict[str, Layout]:
        return layouts_in(self._whole.layouts, self._one, self._form)

    @property
    def held(self) -> bool:
        return self._whole.held

    def blocks(self, n_rows: int = BLOCK_ROWS) -> Iterator[Examples]:
        return (self._seen(block) for block in self._whole.blocks(n_rows))

    def take(self, index: NDArray[np.int64]) -> Examples:
        return self._seen(self._whole.take(index))

    def weighed(self, factors: NDArray[np.float64] | None) -> Examples:
        return self if factors is None else View(self._whole.weighed(factors), self._one, self._form)

    @property
    def encoded_bytes(self) -> float:
        return self._whole.encoded_bytes

    def batches(self, seed: int, epoch: int, n_rows: int, start: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Examples]:
        return (self._seen(batch) for batch in self._whole.batches(seed, epoch, n_rows, start, rank=rank, world=world))

    def _seen(self, part: Examples) -> Examples:
        return Examples(rows_in(part.rows, self._one, self._form), part.target, part.weight)
