"""MySQL and MariaDB through asyncmy: a cursor on the server's side, turned into Arrow a bounded number of rows at a time.

There is no driver that gives Arrow and bears what these databases hold: ADBC has none for Python, connectorx breaks off on zero dates and on times of a
day below zero. asyncmy reads 3 to 6 times as many rows a second as the drivers written in Python.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from modelinscale.core.errors import SourceError, needs
from modelinscale.core.schema import Column
from modelinscale.data.sources._sql import Database, Native, Order, Relation, dead, first_line, number_less
from modelinscale.data.sources._sql_postgres import parts_of
from modelinscale.data.sources._tls import NO_TLS, Tls

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_BINARY = 63
"""The character set of raw bytes."""
_UNSIGNED = 32
_WHOLE = {1: "tinyint", 2: "smallint", 3: "int", 8: "bigint", 9: "mediumint", 13: "year"}
_DECIMAL = {0: "decimal", 246: "decimal"}
_FLOAT = {4: "float", 5: "double"}
_MOMENT = {7: "timestamp", 10: "date", 12: "datetime", 14: "date"}
_BITS = 16
_FAREWELL_S = 0.1
"""For an encrypted connection to let go of its socket, which takes an answer of the server's."""
_NO_RIGHTS = {1044, 1045, 1142, 1143, 1698}
_WRONG_NAMES = {1049, 1054, 1064, 1146}


class MySql(Database):
    """See the module."""

    def __init__(self, address: str, timeout_s: float, tls: Tls = NO_TLS) -> None:
        super().__init__(address, timeout_s)
        self._asyncmy = needs("asyncmy", extra="sql")
        self._cursors = needs("asyncmy.cursors", extra="sql")
        self._error: Any = needs("asyncmy.errors", extra="sql").MySQLError
        self._connection: Any = None
        self._loop = _Loop(_FAREWELL_S if tls.is_asked or "ssl" in address.partition("?")[2] else 0.0)
        try:
            with self.told("connect"):
                self._connection = self._loop.run(self._asyncmy.connect(**_arguments(address, timeout_s, tls)))
        except BaseException:
            self._loop.stop()
            raise

    def begin(self) -> None:
        with self.told("begin"):
            for sql in (
                "SET SESSION time_zone = '+00:00'",
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ):
                self.rows(sql)

    def relation(self, table: str | None, query: str | None) -> Relation:
        if table is None:
            sql = f"({query}) AS q"
            return Relation(sql, "the query", self._columns(sql, frozenset()))
        sql = ".".join(self.quoted(part) for part in parts_of(table))
        with self.told(f"find the table {table}"):
            indexes: dict[str, list[str]] = {}
            for row in self.rows(f"SHOW INDEX FROM {sql} WHERE Non_unique = 0"):
                indexes.setdefault(row[2], []).append(row[4])
            filled = frozenset(row[0] for row in self.rows(f"SHOW COLUMNS FROM {sql}") if row[2] == "NO")
        unique = tuple(frozenset(names) for names in indexes.values() if None not in names and filled.issuperset(names))
        return Relation(sql, table, self._columns(sql, filled), unique=unique, primary=tuple(indexes.get("PRIMARY", ())))

    def _columns(self, sql: str, filled: frozenset[str]) -> dict[str, Native]:
        import pyarrow as pa

        found: dict[str, Native] = {}

        async def fields() -> list[Any]:
            cursor = self._connection.cursor(self._cursors.SSCursor)
            await cursor.execute(f"SELECT * FROM {sql} LIMIT 0")
            result = list(cursor._result.fields)  # `description` says neither which text is bytes nor which number is unsigned
            await cursor.close()
            return result

        with self.told("run the query"):
            for field in self._loop.run(fields()):
                code, name = field.type_code, field.name
                kind, arrow, order = "text", pa.string(), "text"
                if code in _WHOLE:
                    unsigned = bool(field.flags & _UNSIGNED)
                    kind, arrow, order = _WHOLE[code], pa.uint64() if unsigned and code == 8 else pa.int64(), "number"
                elif code in _DECIMAL or code in _FLOAT:
                    kind, arrow, order = {**_DECIMAL, **_FLOAT}[code], pa.float64(), "number"
                elif code in _MOMENT:
                    kind, arrow, order = _MOMENT[code], pa.timestamp("us"), "zoned" if code == 7 else "moment"
                elif code == _BITS:
                    kind, arrow, order = "bit", pa.int64(), ""
                elif field.charsetnr == _BINARY and code != 11:
                    kind, arrow, order = "bytes", pa.binary(), ""
                found[name] = Native(name, kind, _order(order), name not in filled, arrow)
        return found

    def stream(self, sql: str, kinds: "pa.Schema", n_rows: int) -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa

        async def start() -> Any:
            cursor = self._connection.cursor(self._cursors.SSCursor)
            await cursor.execute(sql)
            return cursor

        with self.told("read"):
            cursor = self._loop.run(start())
            while rows := self._loop.run(cursor.fetchmany(n_rows)):
                columns = zip(*rows, strict=True)
                yield pa.record_batch([_cells(cells, field.type) for cells, field in zip(columns, kinds, strict=True)], names=kinds.names)
            self._loop.run(cursor.close())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small statement."""

        async def run() -> list[tuple[Any, ...]]:
            async with self._connection.cursor() as cursor:
                await cursor.execute(sql)
                return list(await cursor.fetchall()) if cursor.description else []

        return self._loop.run(run())

    def row(self, sql: str) -> tuple[Any, ...]:
        with self.told("read"):
            return self.rows(sql)[0]

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def value(self, text: str, native: Native) -> str:
        if native.order == "number":
            return f"CAST('{text}' AS DOUBLE)" if native.type in ("float", "double") else text
        if native.order in ("moment", "zoned"):
            return f"CAST('{text}' AS DATETIME(6))"
        return f"_utf8mb4 0x{text.encode().hex()}" if text else "''"  # in hexadecimal: what a backslash means is a setting of the server's

    def text(self, expression: str) -> str:
        return f"CAST({expression} AS CHAR)"

    def less(self, expression: str, lag: float, native: Native) -> str:
        return number_less(expression, lag) if native.order == "number" else f"({expression} - INTERVAL {round(lag * 1e6)} MICROSECOND)"

    def now(self) -> str:
        return "UTC_TIMESTAMP(6)"

    def cell(self, native: Native, column: Column | None) -> tuple[str, "pa.DataType"]:
        import pyarrow as pa

        name = self.quoted(native.name)
        if column is not None and column.type == "string" and native.type not in ("text", "bytes"):
            return f"CAST({name} AS CHAR)", pa.string()
        if native.type == "bit":
            return f"({name} + 0)", pa.int64()
        return name, native.arrow

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._error, OSError, RuntimeError):
                self._loop.call(connection.close)  # without a farewell: it would first read what is left of a stream
        self._loop.stop()

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError, EOFError) as error:
            number, *words = error.args or (0,)
            text = f"{words[0]} ({number})" if words and isinstance(number, int) else str(error)
            if number in _NO_RIGHTS | _WRONG_NAMES:
                raise SourceError(f"{self.place}: cannot {doing}: {text}.", fix="Check the names under the source, and the rights.") from None
            of_server = isinstance(number, int) and number > 0 and not 2000 <= number < 3000  # those between are the client's own
            raise dead(self.place, doing, RuntimeError(first_line(RuntimeError(text))), of_cells=of_server) from None


class _Loop:
    """An event loop in a thread of its own: the caller may be inside one (a notebook)."""

    def __init__(self, farewell_s: float) -> None:
        self._loop, self._farewell_s = asyncio.new_event_loop(), farewell_s
        self._thread = threading.Thread(target=self._loop.run_forever, name="mysql", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, work: Any) -> None:
        async def run() -> None:
            work()
            await asyncio.sleep(0)  # the transport lets go of its socket

        self.run(run())

    def stop(self) -> None:
        if not self._loop.is_closed():
            self.run(asyncio.sleep(self._farewell_s))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _order(word: str) -> Order | None:
    orders: dict[str, Order] = {"number": "number", "moment": "moment", "zoned": "zoned", "text": "text"}
    return orders.get(word)


def _arguments(address: str, timeout_s: float, tls: Tls) -> dict[str, Any]:
    parts = urlsplit(address)
    options = {k: v[-1] for k, v in parse_qs(parts.query).items()}
    known = {"socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SourceError(f"unknown option {unknown[0]!r} in the address of a MySQL database.", fix=f"Known: {', '.join(sorted(known))}.")
    found: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.lstrip("/")) or None,
        "charset": "utf8mb4",
        "connect_timeout": max(1, round(timeout_s)),
        "conv": _conversions(),
        "autocommit": True,
    }
    if "socket" in options:
        found["unix_socket"] = options["socket"]
    if tls.is_asked:
        found["ssl"] = tls.context()
    elif any(k.startswith("ssl") for k in options):
        import ssl

        context = ssl.create_default_context(cafile=options.get("ssl_ca"))
        if "ssl_cert" in options:
            context.load_cert_chain(options["ssl_cert"], options.get("ssl_key"))
        found["ssl"] = context
    return found


def _conversions() -> dict[Any, Any]:
    """Numbers as numbers; moments and times stay text, which Arrow reads faster and with zero dates."""
    from asyncmy.converters import conversions

    found = dict(conversions)
    for code in (7, 10, 11, 12, 14):
        found[code] = str
    for code in (0, 246):
        found[code] = float
    return found


def _cells(cells: "tuple[Any, ...]", kind: "pa.DataType") -> "pa.Array":
    """Python values of one column as Arrow. A zero date (``0000-00-00``) says that there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    if not t.is_timestamp(kind):
        return pa.array(cells, kind)
    text = pa.array([c.decode() if isinstance(c, bytes) else c for c in cells], pa.string())
    dated = pc.match_substring_regex(text, "^0000|-00")
    return pc.if_else(dated, pa.scalar(None, pa.string()), text).cast(kind)
