"""The split: which rows train, which choose (early stopping, calibration, threshold) and which test. A pure function of the rows and the settings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from modelinscale.core.errors import DataError, SpecError, did_you_mean
from modelinscale.core.settings import Settings
from modelinscale.core.units import seconds, show_seconds

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Parts = NDArray[np.int8]
"""The part of each row: `TRAIN`, `VALID`, `TEST`, or `UNUSED`."""

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, -1
NAMES = ("train", "valid", "test")
"""The parts by number."""

WORDS = {
    "train": ("train", "training", "learn", "fit", "development"),
    "valid": ("valid", "validation", "val", "dev", "eval"),
    "test": ("test", "testing", "holdout", "hold-out", "hold_out"),
}
"""What a given column may call the parts, in any case."""


def _size(value: Any) -> Any:
    """A share stays a number; ``7d`` stays text, checked."""
    if isinstance(value, str):
        seconds(value)
        return value
    return value


Part = Annotated[float | str, BeforeValidator(_size)]
"""A share of the rows (0.15), or for a split in time a duration (``7d``)."""

Word = bool | int | float | str


def _words(value: Any) -> Any:
    return (value,) if isinstance(value, bool | int | float | str) else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Split(Settings):
    """Which rows are held out, and how that is decided."""

    type: Literal["auto", "hash", "random", "time", "group", "column"] = "auto"
    """``auto``: ``time`` where ``data.time`` is declared, ``group`` or ``column`` where one is named here, else ``hash``.
    ``hash``: by what a row holds, so equal rows stay together and new rows never move old ones. ``random``: by a row's place in the table;
    refused where equal rows would come apart. ``time``: the last rows test. ``group``: rows of one group stay together. ``column``: a column says it."""
    valid: Part = 0.15
    """The share of rows that choose; for ``time`` a share or a duration (``7d``). 0: none."""
    test: Part = 0.15
    """The share of rows that test; for ``time`` a share or a duration."""
    group: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()
    """For ``group``: the column (or columns) whose rows belong together, such as a customer or a patient."""
    column: str | None = None
    """For ``column``: the one that holds train, valid or test."""
    values: dict[Literal["train", "valid", "test"], Annotated[tuple[Word, ...], BeforeValidator(_words)]] = Field({})
    """For ``column``: what it holds for each part, where that is not train, valid and test in so many words: ``{train: [1, 2], test: 3}``."""
    seed: int = Field(0, ge=0)
    """Another number gives another draw, for ``hash``, ``random`` and ``group``."""
    force: bool = False
    """Splits even where the test would know rows it should not; how much better that looks is measured and told."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        mistakes = [*self._size_mistakes(), *self._column_mistakes()]
        if len(mistakes) == 1:
            raise mistakes[0]
        if mistakes:
            raise SpecError(" ".join(str(m) for m in mistakes))
        return self

    def _size_mistakes(self) -> list[SpecError]:
        found = []
        for name in ("valid", "test"):
            size = getattr(self, name)
            if isinstance(size, str):
                if self.type not in ("auto", "time"):
                    found.append(
                        SpecError(f"`{name}: {size}` is a duration, which only a split in time has.", fix=f"Write a share, `{name}: 0.15`, or `type: time`.")
                    )
            elif not 0 <= size < 1:
                share = f" Did you mean {size / 100:g}?" if 1 < size < 100 else ""
                found.append(
                    SpecError(f"`{name}: {size:g}` is not a share between 0 and 1.{share}", fix="Write 0.15 for 15 percent, or a duration such as 7d.")
                )
        if not found and _share(self.valid) + _share(self.test) >= 1:
            found.append(SpecError(f"valid ({self.valid}) and test ({self.test}) leave nothing to train.", fix="Make them smaller."))
        if not found and self.test == 0 and self.type != "column":
            found.append(SpecError("`test: 0` leaves nothing to measure with.", fix="Write at least a small share, such as 0.1."))
        return found

    def _column_mistakes(self) -> list[SpecError]:
        found = []
        if self.type == "group" and not self.group:
            found.append(SpecError("a split by group needs `group`, the column whose rows belong together.", fix="Write `{type: group, group: customer}`."))
        if self.type == "column" and not self.column:
            found.append(SpecError("a split by column needs `column`, the one that says train or test.", fix="Write `{type: column, column: part}`."))
        if self.group and self.type == "column":
            found.append(SpecError("`group` is not for a split by column.", fix="Remove `group`."))
        if self.column and self.type not in ("auto", "column"):
            found.append(SpecError(f"`column` is not for a split of type {self.type}.", fix="Write `type: column`, or remove `column`."))
        if self.column and self.group:
            found.append(SpecError("`group` and `column` are both there.", fix="Keep one of them."))
        if self.values and not self.column:
            found.append(SpecError("`values` is for a split by column.", fix="Name the `column` they are in."))
        return found

    def resolved(self, time: str | None) -> Literal["hash", "random", "time", "group", "column"]:
        """What ``auto`` means when ``time`` is the declared time column (None: there is none)."""
        if self.type != "auto":
            return self.type
        if self.column:
            return "column"
        return "group" if self.group else "time" if time else "hash"


def columns_of(split: Split, *, time: str | None, content: Sequence[str], target: str) -> tuple[str, ...]:
    """The columns `assign` needs, each once: what pays to be read from the lake."""
    kind = split.resolved(time)
    needed = {"hash": content, "random": (), "time": (), "group": split.group, "column": (split.column or "", *content)}[kind]
    return tuple(dict.fromkeys([*needed, target, *([time] if time and kind in ("time", "column") else [])]))


def assign(
    rows: "pa.Table | pl.DataFrame",
    split: Split,
    *,
    target: str,
    content: Sequence[str],
    time: str | None = None,
    label_delay: float = 0.0,
    classes: bool = False,
) -> Parts:
    """The part of each of N rows, (N,).

    ``rows`` hold the target, and the columns that `columns_of` names. ``content``: the columns whose equality, with the target's, makes two rows equal (the
    features). ``time``: the declared time column. ``label_delay`` in seconds: rows so close before a later part that their label was not known
    when it began are unused. ``classes``: the target is a class, so each part should have each. Rows without a target are unused.

    `hash` and `group` do not move old rows when new ones come, except that in small tables single rows (groups) move so that each part has rows, and
    rows of each class where a class has as many as there are parts. Raises `DataError` when a part stays empty, or a column does not say what it should.
    """
    table = table_of(rows, columns_of(split, time=time, content=content, target=target))
    labelled = table.column(target).is_valid().to_numpy()
    if not labelled.any():
        raise DataError(f"the target {target!r} is missing in every row.", fix="Name the right `target`.")
    kind = split.resolved(time)
    if kind == "time":
        if time is None:
            raise DataError("a split in time needs a time column.", fix="Write `time: COLUMN` under `data`.")
        parts = _by_time(table.column(time), labelled, time, split.valid, split.test, label_delay)
    elif kind == "column":
        parts = _by_column(table, split, labelled, target, content, time, label_delay, classes)
    else:
        drawn = _drawn(table, split, kind, target, content)
        parts = _by_draw(drawn, labelled, _share(split.valid), _share(split.test), _codes(table.column(target)) if classes else None, kind)
    parts[~labelled] = UNUSED
    _refuse_empty(parts, split, kind, label_delay)
    return parts


def _drawn(table: "pa.Table", split: Split, kind: str, target: str, content: Sequence[str]) -> NDArray[np.uint64]:
    """The number that decides for each row: equal numbers stay together."""
    from modelinscale.core.seeds import derive
    from modelinscale.data._hash import finish, hash_rows

    if kind == "random":
        places = np.arange(table.num_rows, dtype=np.uint64)
        return finish(places + np.uint64(derive(split.seed, "places")))
    names = split.group if kind == "group" else sorted({*content, target})  # sorted: the order of features must not matter
    return hash_rows([table.column(n) for n in names], table.num_rows, split.seed)


def _by_draw(drawn: NDArray[np.uint64], labelled: NDArray[np.bool_], valid: float, test: float, codes: NDArray[np.int64] | None, kind: str) -> Parts:
    """Parts by fixed bounds on the drawn number; then single draws move where a part, or a class in a part, would have none."""
    from modelinscale.data._hash import share

    u = share(drawn)
    parts = np.full(len(drawn), TRAIN, dtype=np.int8)
    parts[u < test + valid] = VALID
    parts[u < test] = TEST
    wanted = [part for part, size in ((TRAIN, 1.0), (TEST, test), (VALID, valid)) if size > 0]
    at = np.flatnonzero(labelled)
    if kind == "group":
        _even_out(parts, drawn, at, valid, test)
    classes = np.zeros(len(at), np.int64) if codes is None else codes[at]
    counts = np.zeros((int(classes.max()) + 1, 3), dtype=np.int64)
    np.add.at(counts, (classes, parts[at].astype(np.int64)), 1)
    for code in np.flatnonzero((counts[:, wanted] == 0).any(axis=1)):
        _fill(parts, drawn, at[classes == code], wanted, together=kind == "group")
    return parts


def _fill(parts: Parts, drawn: NDArray[np.uint64], rows: NDArray[np.int64], wanted: list[int], *, together: bool) -> None:
    """Moves one draw of these rows (a class) into each wanted part that has none, from the part that has most; the lowest draw first.

    ``together``: rows of other classes have the same draw and move as well. A class with fewer draws than parts has one in train at least.
    """
    draws, inverse = np.unique(drawn[rows], return_inverse=True)
    of_draw = np.empty(len(draws), dtype=np.int8)
    of_draw[inverse] = parts[rows]
    for part in wanted:
        sizes = np.bincount(of_draw, minlength=3)
        donor = int(np.argmax(sizes))
        if sizes[part] or (sizes[donor] < 2 and (together or part != TRAIN)):
            continue
        moved = int(np.flatnonzero(of_draw == donor)[0])
        of_draw[moved] = part
        parts[(drawn == draws[moved]) if together else rows[inverse == moved]] = part


def _even_out(parts: Parts, drawn: NDArray[np.uint64], at: NDArray[np.int64], valid: float, test: float) -> None:
    """A few large groups may miss the shares by far (less than half, more than twice): then groups are dealt out in the order of their draws instead."""
    got = np.bincount(parts[at], minlength=3) / max(len(at), 1)
    if all(size == 0 or size / 2 <= got[part] <= 2 * size for part, size in ((TEST, test), (VALID, valid))):
        return
    draws, inverse = np.unique(drawn, return_inverse=True)
    n_rows = np.bincount(inverse[at], minlength=len(draws))
    of_draw = np.full(len(draws), TRAIN, dtype=np.int8)
    free = [int(i) for i in np.flatnonzero(n_rows)]
    for part, size in ((TEST, test), (VALID, valid)):
        taken: list[int] = []
        for i in free:
            if len(free) - len(taken) > 1 and sum(n_rows[taken]) + n_rows[i] / 2 <= size * len(at):
                taken.append(i)
        if not taken and size and len(free) > 1:
            taken = [min(free, key=lambda i: (n_rows[i], i))]
        of_draw[taken] = part
        free = [i for i in free if i not in taken]
    parts[:] = of_draw[inverse]


def _by_time(column: "pa.ChunkedArray", labelled: NDArray[np.bool_], name: str, valid: Part, test: Part, label_delay: float) -> Parts:
    """The last rows test, those before them choose; ``label_delay`` seconds before each of the two are unused. Rows of one moment stay together."""
    import pyarrow as pa
    import pyarrow.types as t

    is_moment = t.is_timestamp(column.type)
    if not (is_moment or t.is_integer(column.type) or t.is_floating(column.type)):
        raise DataError(f"the time column {name!r} holds {column.type}, no moments or numbers.", fix=f"Declare its type: `columns: {{{name}: time}}`.")
    durations = [str(size) for size in (valid, test) if isinstance(size, str)] + ([show_seconds(label_delay)] if label_delay else [])
    if durations and not is_moment:
        raise DataError(
            f"the time column {name!r} holds plain numbers, so {durations[0]} means nothing there.", fix="Write shares such as 0.15, no `label_delay`."
        )
    present = column.is_valid().to_numpy() & labelled
    whole = column.cast(pa.int64()) if is_moment else column
    times = whole.to_numpy()
    if whole.null_count and is_moment:
        times = whole.fill_null(0).to_numpy()
    ordered = np.sort(times[present])
    parts = np.full(len(times), UNUSED, dtype=np.int8)
    if not len(ordered):
        raise DataError(f"the time column {name!r} is missing in every row with a target.", fix="Name another column under `time`.")
    gap = label_delay * 1e6
    test_from = _cut(ordered, test, len(ordered), ordered[-1] + 1)
    before = ordered[ordered < test_from - gap]
    valid_from = _cut(before, valid, len(ordered), test_from - gap) if len(before) and valid else test_from
    parts[present & (times >= test_from)] = TEST
    parts[present & (times >= valid_from) & (times < test_from - gap)] = VALID
    parts[present & (times < valid_from - gap)] = TRAIN
    return parts


def _cut(ordered: NDArray[Any], size: Part, n_rows: int, end: Any) -> Any:
    """The moment from which the last rows are taken: a share of ``n_rows``, or a duration before ``end``. Nearest to the share among distinct moments."""
    if isinstance(size, str):
        return end - seconds(size) * 1e6
    wanted = max(round(size * n_rows), 1)
    at = ordered[max(len(ordered) - wanted, 0)]
    later = ordered[np.searchsorted(ordered, at, side="right") :]
    n_from = len(ordered) - int(np.searchsorted(ordered, at, side="left"))
    if len(later) and (n_from == len(ordered) or wanted - len(later) < n_from - wanted):
        return later[0]
    return at


def _by_column(
    table: "pa.Table",
    split: Split,
    labelled: NDArray[np.bool_],
    target: str,
    content: Sequence[str],
    time: str | None,
    label_delay: float,
    classes: bool,
) -> Parts:
    """What the column says; where it names no row to choose, a part of train does."""
    assert split.column is not None, "settings were checked"
    names = table.column(split.column).combine_chunks().dictionary_encode()
    known = names.dictionary.to_pylist()
    if len(known) > 100:
        raise DataError(
            f"{split.column!r} has {len(known):,} values, so it does not say which part a row is in.", fix="Name the column that holds train and test."
        )
    meaning = np.array([_part_of(value, split.values) for value in known] + [UNUSED], dtype=np.int8)
    unknown = [v for v, part in zip(known, meaning, strict=False) if part == UNUSED]
    if unknown and not split.values:
        shown = ", ".join(repr(v) for v in unknown[:5])
        near = did_you_mean(str(unknown[0]).lower(), [w for words in WORDS.values() for w in words])
        raise DataError(
            f"{split.column!r} holds {shown}, which are not words for train, valid or test.{near}",
            fix="Say what they mean: `values: {train: [...], valid: [...], test: [...]}`; values not listed are unused.",
        )
    parts: Parts = meaning[names.indices.fill_null(len(known)).to_numpy()]
    train = (parts == TRAIN) & labelled
    if (parts == VALID).any() or split.valid == 0 or not train.any():
        return parts
    if time is not None:
        inner = _by_time(table.column(time), train, time, 0.0, split.valid, label_delay)
        parts[train] = np.where(inner == TEST, VALID, inner)[train]
    elif isinstance(split.valid, str):
        raise DataError(
            f"`valid: {split.valid}` is a duration, but no time column is declared.", fix="Write a share, `valid: 0.15`, or `time: COLUMN` under `data`."
        )
    else:
        drawn = _drawn(table, split, "hash", target, content)
        inner = _by_draw(drawn, train, split.valid, 0.0, _codes(table.column(target)) if classes else None, "hash")
        parts[train] = inner[train]
    return parts


def _part_of(value: Word, values: Mapping[Literal["train", "valid", "test"], tuple[Word, ...]]) -> int:
    def plain(word: Word) -> str:
        return str(int(word) if isinstance(word, float) and word.is_integer() else word).strip().lower()

    listed: Mapping[Any, tuple[Word, ...]] = values or WORDS
    for number, name in enumerate(NAMES):
        if plain(value) in [plain(word) for word in listed.get(name, ())]:
            return number
    return UNUSED


def _refuse_empty(parts: Parts, split: Split, kind: str, label_delay: float) -> None:
    wanted = [TRAIN, TEST] + ([VALID] if split.valid != 0 else [])
    counts = np.bincount(parts[parts >= 0], minlength=3)
    empty = [NAMES[part] for part in sorted(wanted) if not counts[part]]
    if not empty:
        return
    got = ", ".join(f"{counts[part]:,} to {NAMES[part]}" for part in range(3))
    fixes = {
        "time": "Make `valid` and `test` smaller" + (f", or `label_delay` ({show_seconds(label_delay)}): it leaves a gap before each." if label_delay else "."),
        "group": f"There must be at least {len(wanted)} groups: name a finer column under `group`.",
        "column": "Say what its values mean: `values: {train: [...], valid: [...], test: [...]}`.",
    }
    fix = fixes.get(kind, f"There must be at least {len(wanted)} different rows with a target.")
    raise DataError(f"the split by {kind} leaves no rows to {' and '.join(empty)} ({got}).", fix=fix)


def _share(size: Part) -> float:
    """The share, or 0 for a duration."""
    return 0.0 if isinstance(size, str) else size


def _codes(column: "pa.ChunkedArray") -> NDArray[np.int64]:
    """The class of each row as a number; missing ones are -1."""
    import pyarrow as pa

    codes: NDArray[np.int64] = column.combine_chunks().dictionary_encode().indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return codes


def table_of(rows: "pa.Table | pl.DataFrame", names: Sequence[str]) -> "pa.Table":
    """The named columns. Raises `DataError` when one is not there."""
    import polars as pl
    import pyarrow as pa

    columns = rows.column_names if isinstance(rows, pa.Table) else rows.columns
    for name in names:
        if name not in columns:
            raise DataError(f"the split needs the column {name!r}, which is not there.{did_you_mean(name, columns)}", fix="Check `data.split`.")
    if isinstance(rows, pa.Table):
        return rows.select(list(names))
    # Text as plain offsets and bytes: Arrow's newer string views are not taken by all its functions yet.
    return rows.select(list(names)).to_arrow(compat_level=pl.CompatLevel.oldest())
