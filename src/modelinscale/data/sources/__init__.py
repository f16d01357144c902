"""Sources: where raw rows come from, resumable by cursor."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Schema

if TYPE_CHECKING:
    from threading import Event

    import pyarrow as pa

FEWEST_ROWS, _TEXT_BYTES, _STEPS = 64, 32, 50

Cursor = dict[str, Any]
"""Where a reader stands: plain JSON, opaque to everybody but the source."""


class Chunk(NamedTuple):
    """Some raw rows and the cursor after them. Columns may still be text where the format has no types (or none that held)."""

    batch: "pa.RecordBatch"
    cursor: Cursor
    where: str
    """Where these rows come from, for messages: ``orders.csv, from line 4182``."""
    more: tuple[str, ...] = ()
    """Columns that these rows have in the source, not asked for, and not left out by its own settings: told of, not brought."""
    again: bool = False
    """Whether these rows may have come before, and come again to replace what stands there: those that break the contract were told of then."""


class Source(Kind):
    """A place rows are read from. Reading from every cursor gives exactly the rest, once."""

    folder: ClassVar[str] = "data.sources"
    typed: ClassVar[bool] = False
    """Whether the format declares types, so that text in it is text."""

    @abstractmethod
    def columns(self) -> Schema:
        """The columns, inferred from a sample of the rows where the format does not say. Raises `SourceError` when nothing can be read."""

    def sample(self) -> "pa.Table | None":
        """Some rows as they are written, from which types can be inferred; None where the columns are fixed."""
        return None

    @abstractmethod
    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """The rows after ``after`` (all, if None) in chunks of bounded size, columns named as in ``schema``.

        Cells may be typed as ``schema`` says or still be text: `data.clean` makes them typed. A row that cannot be taken apart
        (wrong number of cells) is not dropped: it comes with the extra column ``_mis_broken`` saying why, its other cells null.
        """

    def within(self, n_bytes: int, schema: Schema) -> Self:
        """The same source, its chunks of these columns no larger than about ``n_bytes``, unless the user said how large. No cursor depends on it."""
        smaller: dict[str, int] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in ("block", "size", "rows") and isinstance(value, int) and value == field.default:
                most = n_bytes if name != "rows" else max(FEWEST_ROWS, int(n_bytes / self._row_bytes(schema)))
                if most < value:
                    smaller[name] = most
        return self.model_copy(update=smaller) if smaller else self

    def _row_bytes(self, schema: Schema) -> float:
        """About how much a row takes; how long text is, only the rows know."""
        return sum((_STEPS if c.type == "sequence" else 1) * 4 * c.width if c.width else _TEXT_BYTES if c.type == "string" else 8 for c in schema.columns) or 1

    def feed(self) -> Any:
        """Plain data that names what is read, apart from how much of it there is by now: the same feed goes on in the same table."""
        return self.plain()

    def content(self, cursor: Cursor) -> Any:
        """Plain data that tells what was read up to a cursor, apart from where it lay and when: equal only for equal rows."""
        return cursor

    def committed(self, cursor: Cursor) -> None:
        """Everything up to ``cursor`` is in the lake for good: a broker may be told. Never a condition for exactly once; called again after a kill."""

    def remembers(self) -> tuple[str, ...]:
        """Columns whose cells stand in the cursor as they are, and so in the lake: none of them can be kept from it."""
        return ()

    def behind(self, cursor: Cursor) -> int | None:
        """How many rows a follower has still to read after ``cursor``, where the source can tell at once; None elsewhere."""
        return None

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: "Event") -> "Iterator[Chunk | None]":
        """As `read`, but goes on with what arrives later until ``stop`` is set. None means that nothing is there now: what came so far may be committed.

        This default reads anew every ``every_s`` seconds; a stream keeps its connection instead.
        """
        while not stop.is_set():
            for chunk in self.read(after, schema):
                after = chunk.cursor
                yield chunk
                if stop.is_set():
                    return
            yield None
            stop.wait(every_s)

    @abstractmethod
    def fingerprint(self) -> Any:
        """Plain data that changes when there may be new rows (file names, sizes, times): decides whether a collect is needed."""
