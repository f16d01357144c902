"""Parts by draw: each row has a number (of what it holds, of its group, of its place), and fixed bounds on that number say its part.

The table is gone through block by block; what is kept of it is how many rows of each class fell to each part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.data._parts import TEST, TO_SAY, TRAIN, VALID, Parts

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.data.partitions import Rows

U64 = NDArray[np.uint64]

_DRAWN = 10
"""Added to the part of a drawn row until all is said: rows whose part was given otherwise never move."""


@dataclass(frozen=True)
class Draw:
    """What the number of a row depends on; equal numbers stay together."""

    kind: Literal["hash", "random", "group"]
    columns: tuple[str, ...]
    """None for ``random``, which goes by a row's place."""
    seed: int

    def numbers(self, start: int, block: "pl.DataFrame") -> U64:
        """(n,) for rows ``start``, ``start + 1``, …, which ``block`` holds."""
        import polars as pl

        from modelinscale.core.seeds import derive
        from modelinscale.data._hash import finish, hash_rows

        if self.kind == "random":
            places = np.arange(start, start + len(block), dtype=np.uint64)
            return finish(places + np.uint64(derive(self.seed, "places")))
        # Text as plain offsets and bytes: Arrow's newer string views are not taken by all its functions yet.
        table = block.select(self.columns).to_arrow(compat_level=pl.CompatLevel.oldest())
        return hash_rows([table.column(n) for n in self.columns], table.num_rows, self.seed)


class _Block(NamedTuple):
    """A block of the table on its way."""

    parts: Parts
    """(n,) a view of the whole."""
    numbers: U64
    rows: "pl.DataFrame"


def by_draw(parts: Parts, table: "Rows", draw: Draw, valid: float, test: float, target: str | None) -> None:
    """Says the part of every row that is `TO_SAY`, in place; then single draws move where a part, or a class in a part, would have none.

    ``target``: the column of classes; None: there are none.
    """
    wanted = [part for part, size in ((TRAIN, 1.0), (TEST, test), (VALID, valid)) if size > 0]
    counts: dict[Any, NDArray[np.int64]] = {}
    for block in _blocks(parts, table, draw, target):
        at = block.parts == TO_SAY
        block.parts[at] = _DRAWN + _bounds(block.numbers[at], valid, test)
        _count(counts, block, target)
    if draw.kind == "group":
        dealt = _dealt_out(parts, table, draw, sum(counts.values(), np.zeros(3, np.int64)), valid, test)
        if dealt is not None:
            counts = {}
            for block in _blocks(parts, table, draw, target):
                at = block.parts >= _DRAWN
                block.parts[at] = _DRAWN + dealt.parts[np.searchsorted(dealt.numbers, block.numbers[at])]
                _count(counts, block, target)
    lacking = [c for c, n in counts.items() if (n[wanted] == 0).any()]
    if lacking:
        _fill(parts, table, draw, target, lacking, wanted)
    parts[parts >= _DRAWN] -= _DRAWN


def _bounds(numbers: U64, valid: float, test: float) -> Parts:
    from modelinscale.data._hash import share

    u = share(numbers)
    found = np.full(len(u), TRAIN, np.int8)
    found[u < test + valid] = VALID
    found[u < test] = TEST
    return found


def _blocks(parts: Parts, table: "Rows", draw: Draw, target: str | None) -> Iterator[_Block]:
    columns = list(dict.fromkeys([*draw.columns, *([target] if target else [])])) or [table.columns[0]]
    for start, rows in table.blocks(columns):
        yield _Block(parts[start : start + len(rows)], draw.numbers(start, rows), rows)


def _count(counts: dict[Any, NDArray[np.int64]], block: _Block, target: str | None) -> None:
    """Drawn rows by class (None where there are no classes) and part; classes in the order they come."""
    import polars as pl

    at = block.parts >= _DRAWN
    here = (block.parts[at] - _DRAWN).astype(np.int64)
    if target is None:
        counts[None] = counts.get(None, 0) + np.bincount(here, minlength=3)
        return
    found = pl.DataFrame({"class": block.rows[target].filter(pl.Series(at)), "part": here}).group_by("class", "part", maintain_order=True).len()
    for label, part, n in found.iter_rows():
        counts.setdefault(label, np.zeros(3, np.int64))[part] += n


def _fill(parts: Parts, table: "Rows", draw: Draw, target: str | None, lacking: list[Any], wanted: list[int]) -> None:
    """Moves one draw of each lacking class into each wanted part that has none, from the part that has most; the lowest draw first.

    In a split by group, rows of other classes have the same draw and move as well. A class with fewer draws than parts has one in train at least.
    """
    import polars as pl

    together = draw.kind == "group"
    found: list[pl.DataFrame] = []
    for block in _blocks(parts, table, draw, target):
        rows = _named(block, target).filter(pl.col("part") >= _DRAWN)
        if target is not None:
            rows = rows.filter(pl.col("class").is_in(pl.Series(lacking, dtype=rows["class"].dtype).implode()))
        found.append(rows.unique())
    draws = pl.concat(found).unique()
    moved: dict[int, int] = {}
    moves: list[tuple[Any, int, int]] = []
    for label in lacking:
        own = (draws if target is None else draws.filter(pl.col("class") == label)).sort("number")
        numbers, of_draw = own["number"].to_list(), own["part"].to_numpy() - _DRAWN
        of_draw = np.array([moved.get(n, p) for n, p in zip(numbers, of_draw.tolist(), strict=True)], np.int8)
        for part in wanted:
            sizes = np.bincount(of_draw, minlength=3)
            donor = int(np.argmax(sizes))
            if sizes[part] or (sizes[donor] < 2 and (together or part != TRAIN)):
                continue
            i = int(np.flatnonzero(of_draw == donor)[0])
            of_draw[i] = part
            moves.append((label, numbers[i], part))
            if together:
                moved[numbers[i]] = part
    if not moves:
        return
    keys = ["number"] if together or target is None else ["class", "number"]
    said = pl.DataFrame(moves, {"class": draws.schema["class"], "number": pl.UInt64, "to": pl.Int8}, orient="row")
    to = said.unique(keys, keep="last", maintain_order=True).select(*keys, "to")
    for block in _blocks(parts, table, draw, target):
        new = _named(block, target).join(to, on=keys, how="left", maintain_order="left", nulls_equal=True)["to"]
        at = new.is_not_null().to_numpy() & (block.parts >= _DRAWN)
        block.parts[at] = _DRAWN + new.fill_null(0).to_numpy()[at]


def _named(block: _Block, target: str | None) -> "pl.DataFrame":
    """The class, number and part of each row."""
    import polars as pl

    label = pl.Series("class", [None] * len(block.parts), dtype=pl.Int8) if target is None else block.rows[target].alias("class")
    return pl.DataFrame([label, pl.Series("number", block.numbers), pl.Series("part", block.parts)])


class _Dealt(NamedTuple):
    numbers: U64
    """(G,) one for each group, ascending."""
    parts: Parts  # (G,)


def _dealt_out(parts: Parts, table: "Rows", draw: Draw, got: NDArray[np.int64], valid: float, test: float) -> _Dealt | None:
    """A few large groups may miss the shares by far (less than half, more than twice): then groups are dealt out in the order of their draws instead."""
    import polars as pl

    n_all = int(got.sum())
    if all(size == 0 or size / 2 <= got[part] / max(n_all, 1) <= 2 * size for part, size in ((TEST, test), (VALID, valid))):
        return None
    found = [_named(b, None).filter(pl.col("part") >= _DRAWN).group_by("number").len() for b in _blocks(parts, table, draw, None)]
    groups = pl.concat(found).group_by("number").agg(pl.col("len").sum()).sort("number")
    numbers, n_rows = groups["number"].to_numpy(), groups["len"].to_list()
    of_draw = np.full(len(numbers), TRAIN, dtype=np.int8)
    free = list(range(len(numbers)))
    for part, size in ((TEST, test), (VALID, valid)):
        taken: dict[int, None] = {}
        n_taken = 0
        for i in free:
            if len(free) - len(taken) > 1 and n_taken + n_rows[i] / 2 <= size * n_all:
                taken[i] = None
                n_taken += n_rows[i]
        if not taken and size and len(free) > 1:
            taken = {min(free, key=lambda i: (n_rows[i], i)): None}
        of_draw[list(taken)] = part
        free = [i for i in free if i not in taken]
    return _Dealt(numbers, of_draw)
