"""Leaks: what would let a model look better in the test than it will be. Splits that let test rows be known, and columns that give the target away."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.memory import room
from modelinscale.core.schema import NESTED, Column, Schema
from modelinscale.core.task import Targets, names_of
from modelinscale.data._parts import TEST, TRAIN, VALID, Parts
from modelinscale.data.split import Split, held_rows, table_of

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.partitions import Rows

Floats = NDArray[np.float64]

SAMPLE = 20_000
"""Rows looked at in search of suspect columns."""
FEW = 512
"""Rows that rule out most columns."""
ENOUGH = 50
"""Fewer rows prove nothing about a column."""
_ID_NAME = re.compile(r"(?i:(^|[_\W])(id|ids|key|uuid|guid|idx|index|rowid|rownum|row|nr|number|no)$)|[a-z]I[dD]$")


@dataclass(frozen=True)
class Leak:
    """One way in which a split lets the model know what it is tested with."""

    kind: Literal["duplicates", "group", "time"]
    n_rows: int
    """Rows held out (to choose or to test) that are known through it."""
    n_held_out: int
    """Rows held out."""
    message: str
    fix: str


def guard(
    rows: "Rows | pa.Table | pl.DataFrame",
    parts: Parts,
    split: Split,
    *,
    target: Targets,
    content: Sequence[str],
    time: str | None = None,
    memory: int | None = None,
) -> tuple[Leak, ...]:
    """Refuses a split that leaks; the arguments are those of `assign`, with the parts it gave. ``memory``: what the process may hold (`find_leaks`).

    Raises `DataError` that says how many rows are known and what to write instead. With ``force: true`` the leaks are given back instead: train and test
    once more with the parts of `honest`, and the difference is how much better the forced split looks.
    """
    leaks = find_leaks(rows, parts, split, target=target, content=content, time=time, memory=memory)
    if not leaks or split.force:
        return leaks
    last = "To split like this all the same, and be told how much better it looks: `force: true`."
    if len(leaks) == 1:
        raise DataError(f"This split leaks: {leaks[0].message}", fix=f"{leaks[0].fix} {last}")
    listed = "\n".join(f"  {leak.message} {leak.fix}" for leak in leaks)
    raise DataError(f"This split leaks in {len(leaks)} ways:\n{listed}\n", fix=last)


def find_leaks(
    rows: "Rows | pa.Table | pl.DataFrame",
    parts: Parts,
    split: Split,
    *,
    target: Targets,
    content: Sequence[str],
    time: str | None = None,
    memory: int | None = None,
) -> tuple[Leak, ...]:
    """What is wrong with a split that draws rows (``hash``, ``random``); the others hold by the way they are made, or were asked for in so many words.

    ``rows`` hold the content and the target for ``random``, and the time and group columns where there are any. ``memory``: what one process may hold in
    all; where the hashes of all rows are more, the table is gone through several times, a range of hashes each time.
    """
    kind = split.resolved(time)
    if kind not in ("hash", "random"):
        return ()
    names = sorted({*content, *names_of(target)})
    table = held_rows(rows, list(dict.fromkeys([*(names if kind == "random" else ()), *split.group, *((time,) if time else ())])))
    n_held, found = sum(int(((some == TEST) | (some == VALID)).sum()) for some in _stretches(parts)), []
    if kind == "random":
        n_rows = _straddling(table, names, parts, memory)
        if n_rows:
            message = f"{n_rows:,} of {n_held:,} rows held out have an equal row (same features, same target) in another part."
            found.append(Leak("duplicates", n_rows, n_held, message, "Write `split: {type: hash}`: it keeps equal rows together."))
    if split.group:
        n_rows = _straddling(table, split.group, parts, memory)
        if n_rows:
            group = ", ".join(split.group)
            message = f"{n_rows:,} of {n_held:,} rows held out belong to a {group} that is in another part too."
            found.append(Leak("group", n_rows, n_held, message, f"Write `split: {{type: group, group: {_list(split.group)}}}`."))
    if time is not None:
        n_rows = _from_the_past(table, time, parts)
        if n_rows:
            message = f"{n_rows:,} of {n_held:,} rows held out are older ({time}) than the newest training row: the model would know their future."
            found.append(Leak("time", n_rows, n_held, message, "Write `split: {type: time}`, or take `time` away if order does not matter."))
    return tuple(found)


def honest(split: Split, leaks: Iterable[Leak]) -> Split:
    """The settings of a split of the same size without these leaks."""
    kinds = {leak.kind for leak in leaks}
    kind = "time" if "time" in kinds else "group" if "group" in kinds else "hash"
    return split.but(type=kind, force=False, group=split.group if kind == "group" else ())


_ROW_BYTES = 48
"""Of a row while equal hashes are looked for: hash and part, gathered, sorted."""


def _straddling(table: "Rows", names: Sequence[str], parts: Parts, memory: int | None) -> int:
    """Rows held out that are equal, in these columns, to a row of another part."""
    from modelinscale.data._drawn import Draw

    draw = Draw("hash", tuple(names), 0)
    n_ranges = max(1, -(-len(table) * _ROW_BYTES * 2 // room(memory)))
    total = 0
    for number in range(n_ranges):
        hashes: list[NDArray[np.uint64]] = []
        places: list[Parts] = []
        for start, block in table.blocks(names):
            here = parts[start : start + len(block)]
            drawn = draw.numbers(start, block)
            at = here >= 0
            if n_ranges > 1:
                at &= (drawn >> np.uint64(32)) * np.uint64(n_ranges) >> np.uint64(32) == np.uint64(number)
            hashes.append(drawn[at])
            places.append(here[at])
        total += _known(np.concatenate(hashes), np.concatenate(places)) if hashes else 0
    return total


def _known(hashes: NDArray[np.uint64], parts: Parts) -> int:
    """Rows held out whose hash is in another part too."""
    if not len(hashes):
        return 0
    order = np.argsort(hashes)
    hashes, parts = hashes[order], parts[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    straddles = np.minimum.reduceat(parts, starts) != np.maximum.reduceat(parts, starts)
    held_out = np.add.reduceat((parts != TRAIN).astype(np.int64), starts)
    return int(held_out[straddles].sum())


def _from_the_past(table: "Rows", time: str, parts: Parts) -> int:
    """Rows held out that are older than the newest training row."""
    import polars as pl

    newest: Any = None
    for start, block in table.blocks([time]):
        last = block[time].filter(pl.Series(parts[start : start + len(block)] == TRAIN)).max()
        newest = last if newest is None or (last is not None and last > newest) else newest
    if newest is None:
        return 0
    n = 0
    for start, block in table.blocks([time]):
        here = parts[start : start + len(block)]
        n += int((block[time].filter(pl.Series((here == TEST) | (here == VALID))) < newest).sum() or 0)
    return n


def _stretches(parts: Parts) -> Iterator[Parts]:
    """The parts a million rows at a time: what is made of them is then small."""
    for start in range(0, len(parts), 1 << 20):
        yield parts[start : start + (1 << 20)]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def suspects(rows: "pa.Table | pl.DataFrame", target: str, schema: Schema) -> dict[str, str]:
    """Columns that a model had better not see, each with the reason in words; the target is never one.

    Found: columns that never change, row counters, identifiers, and columns that determine the target exactly: one to one, by a class for each value,
    by being missing, in order, or as the sum or difference of two or three. Looks at up to 20,000 rows spread over the table; whatever is found
    there to be constant or exact is checked over all rows. Below 50 rows only constant columns are told.
    """
    table = table_of(rows, [c.name for c in schema.columns if c.type not in NESTED and c.name in _names(rows)])
    columns = [c for c in schema.columns if c.name != target and c.name in table.column_names]
    sample = _spread(table)
    found: dict[str, str] = {}
    for column in columns:
        reason = _constant(table, sample, column)
        if reason:
            found[column.name] = reason
    if sample.num_rows < ENOUGH:
        return found
    for column in columns:
        if column.name not in found and (reason := _identifier(table, sample, column)):
            found[column.name] = reason
    if target in table.column_names:
        rest = [c for c in columns if c.name not in found]
        found |= _giving_away(table, sample, rest, target, schema[target])
    return {c.name: found[c.name] for c in columns if c.name in found}


def _names(rows: "pa.Table | pl.DataFrame") -> list[str]:
    return list(getattr(rows, "column_names", None) or rows.columns)


def _spread(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    if table.num_rows <= SAMPLE:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, SAMPLE).astype(np.int64)))


def _constant(table: "pa.Table", sample: "pa.Table", column: Column) -> str:
    import pyarrow.compute as pc

    def values(of: "pa.Table") -> list[Any]:
        return list(pc.unique(of.column(column.name)).to_pylist()[:2])

    if sample.num_rows == 0 or len(values(sample)) > 1:
        return ""
    alone = values(table)
    if len(alone) > 1:
        return ""
    return "always missing" if alone[0] is None else f"always {str(alone[0])[:40]!r}" if isinstance(alone[0], str) else f"always {alone[0]}"


def _identifier(table: "pa.Table", sample: "pa.Table", column: Column) -> str:
    import pyarrow.compute as pc

    values = sample.column(column.name)
    if column.type not in ("int", "float", "string") or values.null_count > 0.02 * len(values):
        return ""
    n_distinct = pc.count_distinct(values).as_py()
    if n_distinct < 0.98 * len(values):
        return ""
    if column.type == "string":
        # Longer text that never repeats is text to learn from, not a name of the row.
        words = pc.mean(pc.add(pc.count_substring(pc.utf8_trim_whitespace(values), " "), 1)).as_py()
        return "an identifier: nearly every row has a value of its own" if words is not None and words < 2 else ""
    if n_distinct < len(values):
        return ""
    start = _numbers(table.column(column.name).slice(0, SAMPLE))
    steps = np.diff(start)
    if len(steps) and steps[0] != 0 and bool((steps == steps[0]).all()):
        return "a row counter"
    whole = _numbers(table.column(column.name))
    if not bool((whole == np.floor(whole)).all()):
        return ""
    dense = whole.max() - whole.min() < 1.05 * len(whole)
    if dense or _ID_NAME.search(column.name):
        return "an identifier: every row has a number of its own"
    return ""


def _giving_away(table: "pa.Table", sample: "pa.Table", columns: list[Column], target: str, kind: Column) -> dict[str, str]:
    """Columns that determine the target exactly: ruled out by a few rows, looked for in the sample, then held against all rows."""
    import pyarrow as pa

    labelled = sample.filter(sample.column(target).is_valid())
    if labelled.num_rows < ENOUGH:
        return {}

    def holds(names: Sequence[str], test: Callable[[pa.Table], str]) -> str:
        """The test's words where it says the same of the sample and of all rows."""
        words = test(labelled)
        if not words or sample is table:
            return words
        part = table.select([*names, target])
        return words if test(part.filter(part.column(target).is_valid())) == words else ""

    few = labelled.take(pa.array(np.linspace(0, labelled.num_rows - 1, FEW).astype(np.int64)))
    found: dict[str, str] = {}
    for column in columns:
        if not _contradicts(few, column.name, target):
            words = holds([column.name], partial(_determines, column=column, target=target, kind=kind))
            if words:
                found[column.name] = words
    numeric = [c.name for c in columns if c.type in ("int", "float", "bool") and c.name not in found]
    if kind.type in ("int", "float") and len(numeric) >= 2:
        for names, signs in _sums(labelled, numeric, target):
            words = holds(names, partial(_is_sum, names=names, signs=signs, target=target))
            if words:
                found |= {name: words for name in names if name not in found}
    return found


def _contradicts(rows: "pa.Table", name: str, target: str) -> bool:
    """Whether two of these few rows have the same value and different targets: then the value does not determine it."""
    import pyarrow.compute as pc

    x, y = (pc.dictionary_encode(rows.column(n).combine_chunks(), null_encoding="encode").indices.to_numpy().astype(np.int64) for n in (name, target))
    pairs = np.unique(x * (int(y.max()) + 1) + y)
    return len(pairs) > int(x.max()) + 1


def _determines(rows: "pa.Table", column: Column, target: str, kind: Column) -> str:
    import polars as pl

    both = pl.DataFrame({"x": pl.from_arrow(rows.column(column.name)), "y": pl.from_arrow(rows.column(target))})
    n_classes = both["y"].n_unique()
    if n_classes < 2:
        return ""
    if 0 < both["x"].null_count() < both.height and n_classes == 2:
        missing = both.select(pl.col("x").is_null().alias("m"), "y").n_unique()
        if missing == 2:
            return f"gives {target} away: it is missing for exactly one of its values"
    n_values = both["x"].n_unique()
    if 2 <= n_values <= both.height / 5 and n_values >= n_classes and both.n_unique() == n_values and n_classes <= both.height / 10:
        return f"gives {target} away: each of its {n_values} values goes with one value of {target} only"
    if column.type in ("int", "float", "time") and not both["x"].null_count():
        return _in_order(both, target, kind, n_classes)
    return ""


def _in_order(both: "pl.DataFrame", target: str, kind: Column, n_classes: int) -> str:
    import polars as pl

    if kind.type in ("int", "float") and n_classes >= ENOUGH:
        ordered = both.unique().sort("x", "y")
        steps = ordered["y"].diff().drop_nulls()
        strict = ordered["x"].n_unique() == ordered.height
        if strict and ordered.height >= ENOUGH and (bool((steps > 0).all()) or bool((steps < 0).all())):
            return f"gives {target} away: one follows from the other"
    elif n_classes <= 20 and int(both.group_by("y").len()["len"].min() or 0) >= 10:  # type: ignore[arg-type]
        ranges = both.group_by("y").agg(low=pl.col("x").min(), high=pl.col("x").max()).sort("low")
        if bool((ranges["low"][1:] > ranges["high"][:-1]).all()):
            return f"gives {target} away: each value of {target} has a range of its own"
    return ""


def _sums(rows: "pa.Table", names: list[str], target: str) -> Iterator[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Sets of two columns (of three, if there are none of two) with signs, whose sum may be the target: it is in a few rows far apart."""
    x, y = np.stack([_numbers(rows.column(n)) for n in names]), _numbers(rows.column(target))  # (D, n), (n,)
    varied = [i for i in range(len(names)) if np.isfinite(x[i]).all() and np.ptp(x[i]) > 0]
    if np.ptp(y) == 0:
        return
    probes = np.argsort(y, kind="stable")[np.linspace(0, len(y) - 1, 8).astype(int)]
    for size, most in ((2, 200), (3, 60)):
        some = False
        sets = np.array(list(combinations(varied[:most], size)), dtype=np.int64).reshape(-1, size)
        for signs in product((1.0, -1.0), repeat=size):
            terms = x[:, probes][sets] * np.array(signs)[None, :, None]  # (sets, size, probes)
            fits = _equal(terms.sum(axis=1), y[probes], np.abs(terms).sum(axis=1)).all(axis=1)
            for chosen in sets[fits]:
                some = True
                yield tuple(names[i] for i in chosen), signs
        if some:
            return


def _is_sum(rows: "pa.Table", names: tuple[str, ...], signs: tuple[float, ...], target: str) -> str:
    terms = np.stack([sign * _numbers(rows.column(name)) for name, sign in zip(names, signs, strict=True)])
    if not bool(_equal(terms.sum(axis=0), _numbers(rows.column(target)), np.abs(terms).sum(axis=0)).all()):
        return ""
    shown = " ".join(f"{'+' if sign > 0 else '-'} {name}" for name, sign in zip(names, signs, strict=True)).removeprefix("+ ")
    return f"gives {target} away: {shown} = {target}"


def _equal(a: Floats, b: Floats, size: Floats) -> NDArray[np.bool_]:
    """Up to the rounding of a sum of numbers of this size."""
    near: NDArray[np.bool_] = np.abs(a - b) <= 1e-9 * np.maximum(size, 1e-300)
    return near


def _numbers(column: "pa.ChunkedArray") -> Floats:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy()
    return values
