"""Tables and queries of PostgreSQL, MySQL, MariaDB and SQLite: streamed, and with a cursor column only what is new."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from modelinscale.core.errors import SourceError, SpecError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.core.secrets import Address, Reference
from modelinscale.core.settings import Also
from modelinscale.core.units import Duration, seconds
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._tls import Tls

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.sources._sql import Database, Relation

SAMPLE_ROWS = 20_000
"""Rows looked at for moments in text columns and widths of lists."""


def _known_scheme(address: str) -> str:
    from modelinscale.data.sources._sql import SCHEMES

    scheme, found, _ = address.partition("://")
    if not found or scheme.lower() not in SCHEMES:
        raise SpecError(f"{scheme!r} is no database known here.{did_you_mean(scheme, tuple(SCHEMES))}", fix=f"Known: {', '.join(f'{s}://' for s in SCHEMES)}.")
    if scheme.lower() == "sqlite" and ":///" not in address:
        raise SpecError("a SQLite address has three slashes before a relative path, four before an absolute one.", fix="Write `sqlite:///shop.db`.")
    return address


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_lag(value: Any) -> Any:
    if isinstance(value, str):
        seconds(value)  # kept as written: a duration means nothing for numbers
    elif isinstance(value, bool) or (isinstance(value, int | float) and not 0 <= value < float("inf")):
        raise SpecError(f"a lag is a duration or a number from 0 up, found {value!r}.", fix="Write `10m` for moments, `1000` for numbers.")
    return value


Columns = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Also({"type": "string"})]


class Sql(Source):
    """A table or query of a database, for example ``{type: sql, url: "postgresql://mis:${ENV:PGPASSWORD}@db/shop", table: orders, cursor: id}``.

    With ``cursor`` a collect reads what is new since the last one, every row exactly once; docs/sources-sql.md tells what that rests on in each database.
    Without, all rows are read once, and a later collect only makes sure that they are still the same.
    """

    url: Annotated[Address, AfterValidator(_known_scheme)]
    """``postgresql://user:${ENV:PASSWORD}@host:5432/name``, ``mysql://...``, ``mariadb://...`` or ``sqlite:///file.db``."""
    table: str | None = Field(None, min_length=1)
    """The table, ``schema.table`` where needed."""
    query: str | None = Field(None, min_length=1)
    """A SELECT instead of a table."""
    cursor: Columns = ()
    """A column whose value is greater in a newer row (a number, a moment), or several of them, compared from the left."""
    key: Columns = ()
    """Columns that put rows with the same cursor in order. Left out: the primary key where there is one."""
    lag: Annotated[str | float | None, BeforeValidator(_as_lag)] = None
    """How far a row's cursor may lie below that of a row that became visible before it: a duration for moments, a number for numbers.
    PostgreSQL's tables and SQLite need none; ``0`` says that rows always become visible in order."""
    only: Columns = ()
    """Columns to read. Left out: all."""
    without: Columns = ()
    """Columns not to read."""
    rows: int = Field(65_536, ge=1)
    """Rows in a chunk, at most."""
    ca: Reference | None = None
    """The certificates (PEM) that the server's is checked against; left out: those of this machine."""
    certificate: Reference | None = None
    """This client's certificate (PEM), where the server asks for one."""
    certificate_key: Reference | None = None
    """Its key (PEM)."""
    timeout: Duration = Field(30.0, gt=0)
    """How long to wait for a connection or a lock, and for a server that does not answer any more."""

    typed: ClassVar[bool] = True

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise SpecError("name either a `table` or a `query`.", fix="Keep one of the two.")
        if self.lag is not None and not self.cursor:
            raise SpecError("`lag` says how late rows may come after others, and needs a `cursor`.", fix="Name a cursor column, or remove `lag`.")
        both = sorted({*self.cursor} & {*self.key})
        if both:
            raise SpecError(f"{both[0]!r} is in `cursor` and in `key`.", fix="Remove it from `key`.")
        if (self.ca or self.certificate) and self.url.lower().startswith("sqlite:"):
            raise SpecError("SQLite is a file: there is no connection to encrypt.", fix="Remove `ca` and `certificate`.")
        if self.only and self.without:
            raise SpecError("`only` and `without` say the same thing twice.", fix="Keep one of the two.")
        return self

    def columns(self) -> Schema:
        """The columns, as the database declares them. Raises `NotSupportedYet` naming every column whose cells no type of ours holds."""
        from modelinscale.data.infer import infer

        return infer(self.sample(), typed=self.typed)

    def sample(self) -> "pa.Table":
        """Some rows, as they are delivered."""
        import pyarrow as pa

        from modelinscale.data.sources._sql_read import selected

        with self._connected() as db:
            relation = db.relation(self.table, self.query)
            names = self._names(relation)
            cells = selected(db, relation, names, None)
            sql = f"SELECT {', '.join(cells.sql)} FROM {relation.sql} LIMIT {SAMPLE_ROWS}"
            batches = list(db.stream(sql, cells.kinds, SAMPLE_ROWS))
            found = pa.Table.from_batches(batches, None if batches else cells.kinds)
            return found.rename_columns(names)

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of at most ``rows`` rows, all of one snapshot. See the contract.

        Raises `SourceError` when the database cannot be reached or dies, when the table or a column is gone or has another type than before, and when
        ``lag`` is needed to be sure that no row is passed over.
        """
        from modelinscale.data.sources._sql_new import new_rows
        from modelinscale.data.sources._sql_whole import whole

        with self._connected() as db:
            relation = db.relation(self.table, self.query)
            self._names(relation)
            lacking = [n for n in (*schema.names, *self.cursor, *self.key) if n not in relation.columns]
            if lacking:
                near = did_you_mean(lacking[0], tuple(relation.columns))
                what = ", ".join(map(repr, lacking[:10]))
                raise SourceError(
                    f"{relation.label} has no column {what}.{near}", fix=f"It has {len(relation.columns)}: {', '.join(list(relation.columns)[:20])}."
                )
            yield from (new_rows if self.cursor else whole)(self, db, relation, after, schema)

    def feed(self) -> Any:
        """The table or query and where it is; not who reads it, nor how."""
        from modelinscale.data.sources._sql import place_of

        named = {k: v for k, v in self.plain().items() if k in ("table", "query", "cursor", "only", "without")}
        return {"type": self.type, "url": place_of(self.url).replace("postgres://", "postgresql://"), **named}

    def remembers(self) -> tuple[str, ...]:
        """The columns that put rows in order: those of `cursor` and `key`, and of the primary key."""
        from modelinscale.data.sources._sql_read import ordered

        with self._connected() as db:
            relation = db.relation(self.table, self.query)
            self._names(relation)
            return tuple(n.name for n in ordered(relation, self.cursor, self.key).natives) if self.cursor or self.key or relation.primary else ()

    def fingerprint(self) -> Any:
        """Moves whenever there may be rows to read; in PostgreSQL with every write to the server."""
        from modelinscale.data.sources._sql_new import newest

        with self._connected() as db:
            relation = db.relation(self.table, self.query)
            if not self.cursor or relation.windows:
                return db.pulse(relation)
            return newest(self, db, relation)

    def _connected(self) -> "Database":
        from modelinscale.data.sources._sql import connect

        db = connect(self.url, self.timeout, Tls(self.ca, self.certificate, self.certificate_key))
        try:
            db.begin()
        except BaseException:
            db.close()
            raise
        return db

    def _names(self, relation: "Relation") -> list[str]:
        """The columns to read. Raises `SourceError` for one named that is not there."""
        from modelinscale.data.arrow import INTERNAL

        unknown = [n for n in (*self.only, *self.without, *self.cursor, *self.key) if n not in relation.columns]
        if unknown:
            near = did_you_mean(unknown[0], tuple(relation.columns))
            raise SourceError(f"{relation.label} has no column {unknown[0]!r}.{near}", fix=f"It has: {', '.join(list(relation.columns)[:30])}.")
        reserved = [n for n in relation.columns if n.startswith(INTERNAL) and n not in self.without]
        if reserved:
            raise SourceError(f"column names must not start with {INTERNAL!r}: {', '.join(reserved)}.", fix="Give it another name in a `query`.")
        return [n for n in (self.only or tuple(relation.columns)) if n not in self.without]
