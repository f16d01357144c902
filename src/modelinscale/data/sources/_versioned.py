"""Sources that are tables with versions of their own: first a snapshot, then what each later version appended.

Only appended rows can be told as new rows. A version that compacts files brings none and is passed over; one that changes or removes rows that may have
been read stops the source with an error, since what the lake holds of them can no longer be right.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from modelinscale.core.errors import SourceError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.data.arrow import INTERNAL
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._files import Names

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_ROWS = 20_000
"""Rows looked at for moments in text columns and widths of lists."""
AGAIN = "Collect into a new table (another `store`, or another `name`)."

Version = int
"""What the table's format calls a version: a number, or a snapshot's id."""

Part = Callable[[list[str], int], "Iterator[pa.RecordBatch]"]
"""Reads these columns of one file in batches of at most so many rows, in an order that does not change."""


class Change(NamedTuple):
    """What one version did."""

    version: Version
    kind: Literal["append", "rewrite", "change"]
    """append: rows were added, no others touched · rewrite: the same rows in other files · change: rows were removed or changed."""
    words: str
    """The format's own word for it."""


@dataclass(frozen=True)
class Snapshot:
    """A table as of a version."""

    table: str
    """Tells this version of this table from one of another table that was put in its place."""
    version: Version
    schema: "pa.Schema"
    parts: Mapping[str, Part]
    """Its files by name."""


class Versioned(Source):
    """What all tables with versions share."""

    without: Names = ()
    """Columns to leave out."""
    rows: int = Field(65_536, ge=1)
    """Rows read at a time."""

    typed: ClassVar[bool] = True

    @property
    @abstractmethod
    def place(self) -> str:
        """What the table is called in messages; no secrets in it."""

    @abstractmethod
    def snapshot(self, version: Version | None = None) -> Snapshot:
        """The table as of a version, None: the newest. Raises `SourceError` when there is no table there, or no such version any more."""

    @abstractmethod
    def changes(self, after: Version, until: Version) -> list[Change]:
        """What every version after ``after`` up to ``until`` did, in order. Raises `SourceError` when that is no longer known."""

    def columns(self) -> Schema:
        """The columns of the newest version. Raises `NotSupportedYet` naming every column whose cells no type of ours holds."""
        from modelinscale.data.infer import infer

        return infer(self.sample(), typed=self.typed)

    def sample(self) -> "pa.Table":
        """Some rows of the newest version, without the columns left out."""
        import pyarrow as pa

        newest = self.snapshot()
        names = self._names(newest.schema)
        schema = pa.schema([newest.schema.field(n) for n in names])
        batches: list[pa.RecordBatch] = []
        for _, part in sorted(newest.parts.items()):
            for batch in part(names, SAMPLE_ROWS):
                batches.append(batch.select(names).cast(schema))
                if sum(b.num_rows for b in batches) >= SAMPLE_ROWS:
                    return pa.Table.from_batches(batches, schema)
        return pa.Table.from_batches(batches, schema)

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of about ``rows`` rows: the snapshot at the first reading, then appended rows version by version. See the contract."""
        newest, place, names = self.snapshot(), _Place.of(after), list(schema.names)
        stands = place.done if place.at is None else place.at
        if stands is not None and self.snapshot(stands).table != place.table:
            raise SourceError(f"{self.place} is another table than the one that was read before.", fix=AGAIN)
        while place.done != newest.version:
            target = self._target(place, newest.version)
            snapshot = newest if target == newest.version else self.snapshot(target)
            self._check(snapshot.schema, names)
            known = set() if place.done is None else set(self.snapshot(place.done).parts)
            yield from self._step(place, snapshot, sorted(set(snapshot.parts) - known), names)
            place = _Place(snapshot.table, target)

    def _target(self, place: "_Place", newest: Version) -> Version:
        """The version up to which rows are taken next, as one step: all that were appended with nothing else in between."""
        if place.at is not None:
            return place.at
        if place.done is None:
            return newest
        changes = self.changes(place.done, newest)
        bad = next((c for c in changes if c.kind == "change"), None)
        if bad is not None:
            raise SourceError(
                f"{self.place} did more than append rows: version {bad.version} is a {bad.words}, and rows were read up to version {place.done}.",
                fix=f"Append new rows only, and state changes as new rows with the same key. {AGAIN}",
            )
        # A version that moves rows into other files brings none itself, and a step that reached across it would take them for new ones.
        kinds = [c.kind for c in changes]
        n_moves = next((i for i, kind in enumerate(kinds) if kind != "rewrite"), len(kinds))
        if n_moves:
            place.done = changes[n_moves - 1].version
            return newest if n_moves == len(kinds) else self._target(place, newest)
        return changes[kinds.index("rewrite") - 1].version if "rewrite" in kinds else newest

    def _step(self, place: "_Place", snapshot: Snapshot, parts: list[str], names: list[str]) -> Iterator[Chunk]:
        for i, name in enumerate(parts):
            if i < place.part:
                continue
            row = 0
            skip = place.row if i == place.part else 0
            for batch in snapshot.parts[name](names, self.rows):
                first, row = row, row + batch.num_rows
                if row <= skip or not batch.num_rows:
                    continue
                batch = batch.slice(max(0, skip - first)).select(names)
                cursor = _Place(snapshot.table, place.done, snapshot.version, i, row).cursor()
                yield Chunk(batch, cursor, f"{self.place}, version {snapshot.version}, {name}, from row {max(first, skip) + 1}")

    def _names(self, schema: "pa.Schema") -> list[str]:
        names: list[str] = [n for n in schema.names if not n.startswith(INTERNAL)]
        unknown = [w for w in self.without if w not in names]
        if unknown:
            raise SourceError(f"`without` names {', '.join(map(repr, unknown))}, which {self.place} does not have.{did_you_mean(unknown[0], names)}")
        return [n for n in names if n not in self.without]

    def _check(self, schema: "pa.Schema", names: list[str]) -> None:
        lacking = [n for n in names if n not in schema.names]
        if lacking:
            raise SourceError(
                f"{self.place} has no column {', '.join(map(repr, lacking[:10]))} any more.", fix=f"It has {len(schema.names)}: {', '.join(schema.names[:20])}."
            )

    def feed(self) -> Any:
        """The settings, without how many rows are read at a time."""
        return {k: v for k, v in self.plain().items() if k != "rows"}

    def fingerprint(self) -> Any:
        """Which table it is, and its newest version."""
        newest = self.snapshot()
        return [newest.table, newest.version]


@dataclass
class _Place:
    """Where a reader stands: versions up to ``done`` are read (None: none), and of the step to version ``at`` so many parts and rows of the next."""

    table: str = ""
    done: Version | None = None
    at: Version | None = None
    part: int = 0
    row: int = 0

    @classmethod
    def of(cls, cursor: Cursor | None) -> "_Place":
        if cursor is None:
            return cls()
        if cursor.get("form") != 1 or "table" not in cursor:
            raise SourceError("this cursor is not one of a table with versions, or of a newer version.", fix=AGAIN)
        return cls(**{k: v for k, v in cursor.items() if k != "form"})

    def cursor(self) -> Cursor:
        return {"form": 1, **vars(self)}
