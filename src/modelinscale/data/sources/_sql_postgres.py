"""PostgreSQL over ADBC: results come as a binary COPY and are Arrow from the first byte on.

Rows carry the number of the transaction that wrote them (``xmin``), so a read can take exactly the rows that are decided: those of transactions older
than every one still running. Source: PostgreSQL's manual, "Database Physical Storage" and "Transaction ID and Snapshot Information Functions".
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from modelinscale.core.errors import SourceError, needs
from modelinscale.core.schema import Column
from modelinscale.data.sources._sql import Native, Order, Relation, dead, first_line, number_less
from modelinscale.data.sources._sql_adbc import Adbc, batches
from modelinscale.data.sources._sql_read import ANEW
from modelinscale.data.sources._tls import NO_TLS, Tls

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

_ORDERS: dict[str, Order] = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8", "oid"), "number"),
    **dict.fromkeys(("timestamp", "date"), "moment"),
    "timestamptz": "zoned",
    **dict.fromkeys(("text", "varchar", "bpchar", "uuid", "name"), "text"),
}
_AS_FLOAT = {"numeric": "{}::float8", "money": "{}::numeric::float8", "interval": "extract(epoch FROM {})::float8"}
_AS_THEY_ARE = frozenset(("bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "date", "timestamp", "timestamptz", "bytea"))
_FLOAT_ARRAYS = {"_numeric"}
_BATCH_BYTES = 8 << 20

_OF_SERVER = re.compile(r"ERROR\]: *(?:FATAL|ERROR|PANIC): +(?:terminating connection|the database system is|canceling statement|out of memory|could not)")
"""What a server says of itself in the middle of a stream, and not of a cell."""


class Postgres(Adbc):
    """See the module."""

    def __init__(self, address: str, timeout_s: float, tls: Tls = NO_TLS) -> None:
        super().__init__(address, timeout_s)
        dbapi = needs("adbc_driver_postgresql.dbapi", extra="sql")
        manager = needs("adbc_driver_manager", extra="sql")
        self._error: Any = manager.Error
        self._connection: Any = None
        with tls.files() as files, self.told("connect"):
            self._connection = dbapi.connect(_with_limits(_with_files(address, files), timeout_s), autocommit=True)

    def begin(self) -> None:
        with self.told("begin"):
            self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for setting in ("TimeZone = 'UTC'", "standard_conforming_strings = on", "IntervalStyle = iso_8601", "DateStyle = ISO", "extra_float_digits = 1"):
                self._run(f"SET LOCAL {setting}")
            self._run(f"SET LOCAL lock_timeout = {max(1, round(self.timeout_s * 1000))}")

    def relation(self, table: str | None, query: str | None) -> Relation:
        if table is None:
            sql = f"({query}) AS q"
            return Relation(sql, "the query", self._columns(sql, {}))
        sql = ".".join(self.quoted(part) for part in parts_of(table))
        name = sql.replace("'", "''")
        with self.told(f"find the table {table}"):
            kind, oid = self.row(f"SELECT relkind::text, c.oid::bigint FROM pg_class c WHERE oid = '{name}'::regclass")
            keys = self.row(
                "SELECT coalesce(string_agg(i.indisprimary::int || ':' || (SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM unnest(i.indkey::int2[])"
                " WITH ORDINALITY AS k(number, n) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number), ';'), '')"
                f" FROM pg_index i WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL"
            )[0]
            present = self.row(f"SELECT coalesce(string_agg(attname, ','), '') FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND attnotnull")[0]
        indexes = [(one[0] == "1", tuple(one[2:].split(","))) for one in keys.split(";") if one]
        filled = set(present.split(","))
        return Relation(
            sql,
            table,
            self._columns(sql, dict.fromkeys(filled, False)),
            windows=kind in ("r", "p"),
            unique=tuple(frozenset(names) for _, names in indexes if filled.issuperset(names)),
            primary=next((names for primary, names in indexes if primary), ()),
        )

    def _columns(self, sql: str, nullable: dict[str, bool]) -> dict[str, Native]:
        with self.told("run the query"), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {sql} LIMIT 0")
            reader = cursor.fetch_record_batch()
            found = [(f.name, (f.metadata or {}).get(b"POSTGRESQL:type", b"").decode(), f.type) for f in reader.schema]
            reader.close()
        return {name: Native(name, kind, _ORDERS.get(kind), nullable.get(name, True), arrow) for name, kind, arrow in found}

    def window(self, seen: int | None, upto: int | None) -> tuple[int, str]:
        """The end of a window of transactions (``upto``, or where the decided ones end in this snapshot), and a condition for rows from ``seen`` up to it.

        ``age`` counts back from the next transaction, the same one throughout this snapshot. Rows older than 4 billion transactions may carry a number
        that was given again: see `turned`.
        """
        low, age = self.row(
            "SELECT s.low, age(((s.low % 4294967296)::text)::xid)::bigint FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS low) AS s"
        )
        end = low if upto is None else upto
        if low < max(end, seen or 0):
            raise SourceError(
                f"{self.place}: transactions here are numbered up to {low}, and rows were collected up to {max(end, seen or 0)}.",
                fix=f"It is not the database that was read before (restored from a dump?): {ANEW}.",
            )
        if age + low - min(end, seen if seen is not None else end) >= 1 << 31:
            raise SourceError(
                f"{self.place}: 2 billion transactions went by since the last collect: their numbers have come round.",
                fix="Move the lake's table away and collect again.",
            )
        behind = age + low - end
        decided = f"NOT age(xmin) BETWEEN 0 AND {behind}"
        return end, decided if seen is None else f"age(xmin) > {behind} AND age(xmin) <= {behind + end - seen}"

    def kept(self, relation: Relation, seen: int) -> bool:
        """Whether any row is still as a transaction before ``seen`` wrote it: none after the whole table was rewritten."""
        _, later = self.window(seen, None)
        held = later.split(" AND ")[1]  # at most as old as ``seen``
        return bool(self.row(f"SELECT EXISTS (SELECT 1 FROM {relation.sql} WHERE NOT ({held} AND age(xmin) >= 0))::int")[0])

    @property
    def turned(self) -> bool:
        """Whether this database has given transaction numbers a second time."""
        return int(self.row("SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::bigint)")[0]) >= 1 << 32

    def oldest(self) -> str:
        """Who has been writing for longest, for messages; empty if it cannot be told."""
        found = self.row(
            "SELECT coalesce((SELECT format('process %s (%s), since %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text),"
            " date_trunc('second', a.xact_start)) FROM pg_stat_activity a WHERE a.backend_xid IS NOT NULL ORDER BY a.xact_start LIMIT 1), '')"
        )
        return str(found[0])

    def stream(self, sql: str, kinds: "pa.Schema", n_rows: int) -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa

        with self.told("read"), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            cursor.execute(sql)
            with closing(batches(cursor)) as found:
                for batch in found:
                    yield pa.record_batch([_finite(_plain(c)) for c in batch.columns], names=batch.schema.names)

    def value(self, text: str, native: Native) -> str:
        return "'" + text.replace("'", "''") + f"'::{native.type}"

    def text(self, expression: str) -> str:
        return f"({expression})::text"

    def less(self, expression: str, lag: float, native: Native) -> str:
        return number_less(expression, lag) if native.order == "number" else f"({expression} - interval '{lag!r} seconds')"

    def now(self) -> str:
        return "now()"

    def cell(self, native: Native, column: Column | None) -> tuple[str, "pa.DataType"]:
        import pyarrow as pa

        name = self.quoted(native.name)
        if column is not None and column.type == "string" and native.type not in ("text", "varchar", "bpchar", "name", "bytea"):
            return f"{name}::text", pa.string()
        if native.type in _AS_FLOAT:
            return _AS_FLOAT[native.type].format(name), pa.float64()
        if native.type in _FLOAT_ARRAYS:
            return f"{name}::float8[]", pa.list_(pa.float64())
        if native.type in _AS_THEY_ARE or native.type.startswith("_"):
            return name, native.arrow
        return f"{name}::text", pa.string()

    def pulse(self, relation: Relation) -> Any:
        """The end of the decided transactions, in the whole server: it moves with every write, whoever's."""
        return int(self.row("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0])

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._error):  # the server may be gone: it ends the transaction itself
                connection.close()

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError) as error:
            state = getattr(error, "sqlstate", None) or ""
            if state[:2] in ("42", "3F"):
                raise SourceError(f"{self.place}: cannot {doing}: {first_line(error)}.", fix="Check the names under the source, and the rights.") from None
            of_cells = state[:2] in ("22", "23", "P0") or (not state and "PGRES_FATAL_ERROR" in str(error))  # in a stream, no state is given
            if of_cells and not _OF_SERVER.search(str(error)):
                told = RuntimeError("a value cannot be computed; the server's own words are not repeated, they may hold cells")
                raise dead(self.place, doing, told) from None
            raise dead(self.place, doing, error) from None

    def _run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)


def parts_of(table: str) -> list[str]:
    """``schema.table`` as its parts; a part in double quotes may hold dots.

    >>> parts_of('shop."odd.name"')
    ['shop', 'odd.name']
    """
    found = re.findall(r'"((?:[^"]|"")+)"|([^."]+)', table)
    return [(quoted or plain).replace('""', '"') for quoted, plain in found]


def _with_limits(address: str, timeout_s: float) -> str:
    """The address with what ends a connection to a server that does not answer any more; what it says itself stays."""
    seconds = max(2, round(timeout_s))
    limits = {"connect_timeout": seconds, "keepalives_idle": seconds, "keepalives_interval": 5, "keepalives_count": 3, "application_name": "modelinscale"}
    asked = urlsplit(address).query
    wanted = {k: v for k, v in limits.items() if f"{k}=" not in asked}
    return address + ("&" if asked else "?") + urlencode(wanted)


def _with_files(address: str, files: "tuple[Path | None, Path | None, Path | None]") -> str:
    """The address with certificates. Whoever names an authority wants the server's certificate and name checked."""
    named = {name: str(path) for name, path in zip(("sslrootcert", "sslcert", "sslkey"), files, strict=True) if path}
    asked = urlsplit(address).query
    if "sslrootcert" in named and "sslmode=" not in asked:
        named["sslmode"] = "verify-full"
    return address + ("&" if asked else "?") + urlencode(named) if named else address


def _plain(column: "pa.Array") -> "pa.Array":
    """Extension types as what they are stored as."""
    import pyarrow as pa

    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _finite(column: "pa.Array") -> "pa.Array":
    """Moments without infinity, which is a missing moment to us. The driver gives both ends as one of two numbers far before all others."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    if not (t.is_timestamp(column.type) or t.is_date32(column.type)):
        return column
    counts, edge = (column.view(pa.int64()), -(9 * 10**18)) if t.is_timestamp(column.type) else (column.view(pa.int32()), -2_100_000_000)
    lowest = pc.min(counts).as_py()
    if lowest is None or lowest > edge:
        return column
    return pc.if_else(pc.less(counts, edge), pa.scalar(None, column.type), column)
