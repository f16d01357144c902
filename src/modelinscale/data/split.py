"""The split: which rows train, which choose (early stopping, calibration, threshold) and which test. A pure function of the rows and the settings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from modelinscale.core.errors import DataError, SpecError, did_you_mean
from modelinscale.core.settings import Settings
from modelinscale.core.task import Targets, names_of, words_of
from modelinscale.core.units import seconds, show_seconds
from modelinscale.data._drawn import Draw, by_draw
from modelinscale.data._in_time import by_time
from modelinscale.data._parts import NAMES, TEST, TO_SAY, TRAIN, UNUSED, VALID, Parts

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.partitions import Rows

__all__ = ["NAMES", "TEST", "TRAIN", "UNUSED", "VALID", "Part", "Parts", "Split", "assign", "columns_of", "held_rows", "share_of", "table_of"]

MOST_WORDS = 100
"""Different values of a column that says parts, at most."""

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
        if not found and share_of(self.valid) + share_of(self.test) >= 1:
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


def columns_of(split: Split, *, time: str | None, content: Sequence[str], target: Targets) -> tuple[str, ...]:
    """The columns `assign` needs, each once: what pays to be read from the lake."""
    kind = split.resolved(time)
    needed = {"hash": content, "random": (), "time": (), "group": split.group, "column": (split.column or "", *content)}[kind]
    return tuple(dict.fromkeys([*needed, *names_of(target), *([time] if time and kind in ("time", "column") else [])]))


def assign(
    rows: "Rows | pa.Table | pl.DataFrame",
    split: Split,
    *,
    target: Targets,
    content: Sequence[str],
    time: str | None = None,
    label_delay: float = 0.0,
    classes: bool = False,
) -> Parts:
    """The part of each of N rows, (N,); besides these N bytes memory does not grow with the rows.

    ``rows`` hold the target, and the columns that `columns_of` names. ``content``: the columns whose equality, with the target's, makes two rows equal (the
    features). ``time``: the declared time column. ``label_delay`` in seconds: rows so close before a later part that their label was not known
    when it began are unused. ``classes``: the target is a class, so each part should have each. Rows without a target are unused.

    `hash` and `group` do not move old rows when new ones come, except that in small tables single rows (groups) move so that each part has rows, and
    rows of each class where a class has as many as there are parts. Raises `DataError` when a part stays empty, or a column does not say what it should.
    """
    table = held_rows(rows, columns_of(split, time=time, content=content, target=target))
    kind = split.resolved(time)
    if kind == "time" and time is None:
        raise DataError("a split in time needs a time column.", fix="Write `time: COLUMN` under `data`.")
    parts = np.full(len(table), TO_SAY, dtype=np.int8)
    names = names_of(target)
    for start, block in table.blocks(names):
        for name in names:
            parts[start : start + len(block)][block[name].is_null().to_numpy()] = UNUSED
    if not (parts == TO_SAY).any():
        raise DataError(f"the target {words_of(target)!r} is missing in every row.", fix="Name the right `target`.")
    of_class = names[0] if classes else None
    if kind == "time":
        assert time is not None
        by_time(parts, table, time, split.valid, split.test, label_delay)
    elif kind == "column":
        _by_column(parts, table, split, names, content, time, label_delay, of_class)
    else:
        draw = Draw(kind, split.group if kind == "group" else tuple(sorted({*content, *names})), split.seed)  # sorted: the order of features must not matter
        by_draw(parts, table, draw, share_of(split.valid), share_of(split.test), of_class)
    _refuse_empty(parts, split, kind, label_delay, of_class)
    return parts


def _by_column(
    parts: Parts, table: "Rows", split: Split, names: tuple[str, ...], content: Sequence[str], time: str | None, label_delay: float, of_class: str | None
) -> None:
    """What the column says; where it names no row to choose, a part of train does."""
    assert split.column is not None, "settings were checked"
    known: dict[Any, int] = {}
    for _, block in table.blocks([split.column]):
        for value in block[split.column].unique(maintain_order=True).to_list():
            if value is not None:
                known.setdefault(value, UNUSED)
        if len(known) > MOST_WORDS:
            raise DataError(
                f"{split.column!r} has more than {MOST_WORDS} values, so it does not say which part a row is in.",
                fix="Name the column that holds train and test.",
            )
    known = {value: _part_of(value, split.values) for value in known}
    unknown = [value for value, part in known.items() if part == UNUSED]
    if unknown and not split.values:
        shown = ", ".join(repr(v) for v in unknown[:5])
        near = did_you_mean(str(unknown[0]).lower(), [w for words in WORDS.values() for w in words])
        raise DataError(
            f"{split.column!r} holds {shown}, which are not words for train, valid or test.{near}",
            fix="Say what they mean: `values: {train: [...], valid: [...], test: [...]}`; values not listed are unused.",
        )
    some_choose = VALID in known.values() or split.valid == 0
    for start, block in table.blocks([split.column]):
        here = parts[start : start + len(block)]
        said = _said(block[split.column], known)
        here[:] = np.where(here == TO_SAY, said if some_choose else np.where(said == TRAIN, TO_SAY, said), here)
    if some_choose or not (parts == TO_SAY).any():
        return
    if time is not None:
        by_time(parts, table, time, 0.0, split.valid, label_delay, last=VALID)
    elif isinstance(split.valid, str):
        raise DataError(
            f"`valid: {split.valid}` is a duration, but no time column is declared.", fix="Write a share, `valid: 0.15`, or `time: COLUMN` under `data`."
        )
    else:
        by_draw(parts, table, Draw("hash", tuple(sorted({*content, *names})), split.seed), split.valid, 0.0, of_class)


def _said(values: "pl.Series", known: Mapping[Any, int]) -> Parts:
    """(N,): what each value means; a missing one is unused."""
    import polars as pl

    if not known:
        return np.full(len(values), UNUSED, np.int8)
    return values.replace_strict(list(known), list(known.values()), default=UNUSED, return_dtype=pl.Int8).fill_null(UNUSED).to_numpy()


def _part_of(value: Word, values: Mapping[Literal["train", "valid", "test"], tuple[Word, ...]]) -> int:
    def plain(word: Word) -> str:
        return str(int(word) if isinstance(word, float) and word.is_integer() else word).strip().lower()

    listed: Mapping[Any, tuple[Word, ...]] = values or WORDS
    for number, name in enumerate(NAMES):
        if plain(value) in [plain(word) for word in listed.get(name, ())]:
            return number
    return UNUSED


def _refuse_empty(parts: Parts, split: Split, kind: str, label_delay: float, classes_of: str | None) -> None:
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
    few = f"There must be at least {len(wanted)} different rows with a target."
    if classes_of is not None:
        few = f"Of one value of {classes_of!r} at least there must be {len(wanted)} different rows. If nearly every row has its own value, it is no class."
    fix = fixes.get(kind, few)
    raise DataError(f"the split by {kind} leaves no rows to {' and '.join(empty)} ({got}).", fix=fix)


def share_of(size: Part) -> float:
    """The share, or 0 for a duration."""
    return 0.0 if isinstance(size, str) else size


def held_rows(rows: "Rows | pa.Table | pl.DataFrame", names: Sequence[str]) -> "Rows":
    """As rows that are gone through block by block. Raises `DataError` when a named column is not there."""
    from modelinscale.data.partitions import Rows, rows_of

    table = rows if isinstance(rows, Rows) else rows_of(rows)
    for name in names:
        if name not in table.columns:
            raise DataError(f"the split needs the column {name!r}, which is not there.{did_you_mean(name, table.columns)}", fix="Check `data.split`.")
    return table


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
