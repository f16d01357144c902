"""SQLite over ADBC. Writers wait for each other, so rows become visible in the order in which they were written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

from modelinscale.core.errors import SourceError, needs
from modelinscale.core.schema import Column
from modelinscale.data.sources._sql import Native, Order, Relation, dead, first_line, number_less
from modelinscale.data.sources._sql_adbc import Adbc, batches

if TYPE_CHECKING:
    import pyarrow as pa


class Sqlite(Adbc):
    """See the module."""

    in_order: ClassVar[bool] = True

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        dbapi = needs("adbc_driver_sqlite.dbapi", extra="sql")
        manager = needs("adbc_driver_manager", extra="sql")
        self._error: Any = manager.Error
        self._connection: Any = None
        self._path = path_of(address)
        if not self._path.is_file():
            raise SourceError(
                f"there is no database {self._path}.", fix="Check the path: `sqlite:///shop.db` lies beside model.yaml, `sqlite:////data/shop.db` is absolute."
            )
        with self.told("open"):
            self._connection = dbapi.connect(f"file:{quote(str(self._path))}?mode=ro", autocommit=True)
            self._run(f"PRAGMA busy_timeout = {max(1, round(timeout_s * 1000))}")

    def begin(self) -> None:
        with self.told("begin"):
            self._run("BEGIN")
            self.row("SELECT count(*) FROM sqlite_master")  # the snapshot starts with the first read

    def relation(self, table: str | None, query: str | None) -> Relation:
        sql = f"({query})" if table is None else ".".join(self.quoted(part) for part in table.split("."))
        label = "the query" if table is None else table
        # The library's own connection tells declared types, which ADBC does not; it is closed at once.
        with self.told("run the query" if table is None else f"find the table {table}"):
            found = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=self.timeout_s)
            try:
                names = [d[0] for d in found.execute(f"SELECT * FROM {sql} LIMIT 0").description]
                declared: dict[str, tuple[str, bool, int]] = {}
                unique: list[frozenset[str]] = []
                if table is not None:
                    declared = {r[1]: (r[2].upper(), not (r[3] or r[5]), r[5]) for r in found.execute(f"PRAGMA table_info({sql})")}
                    for index in found.execute(f"PRAGMA index_list({sql})").fetchall():
                        if index[2] and not index[4]:
                            unique.append(frozenset(r[2] for r in found.execute(f"PRAGMA index_info({self.quoted(index[1])})")))
                kinds = {name: declared[name][0] if name in declared else self._seen(found, sql, name) for name in names}
            finally:
                found.close()
        columns = {name: Native(name, kind, _order(kind), declared.get(name, ("", True, 0))[1]) for name, kind in kinds.items()}
        primary = tuple(sorted((n for n, d in declared.items() if d[2]), key=lambda n: declared[n][2]))
        if primary:
            unique.append(frozenset(primary))
        filled = [names for names in unique if all(n in columns and not columns[n].nullable for n in names)]
        return Relation(sql, label, columns, unique=tuple(filled), primary=primary if frozenset(primary) in filled else ())

    def _seen(self, found: sqlite3.Connection, sql: str, name: str) -> str:
        """The type of a query's column, from its first cells."""
        kinds = {r[0] for r in found.execute(f"SELECT DISTINCT typeof({self.quoted(name)}) FROM (SELECT * FROM {sql} LIMIT 1000)")} - {"null"}
        return kinds.pop().upper() if len(kinds) == 1 else "REAL" if kinds == {"integer", "real"} else "TEXT"

    def stream(self, sql: str, kinds: "pa.Schema", n_rows: int) -> Iterator["pa.RecordBatch"]:
        """The driver takes the types from the first rows it sees: one of ours goes before them, and is taken off again."""
        import pyarrow as pa
        import pyarrow.types as t

        typical = ", ".join("0" if t.is_integer(f.type) else "0.0" if t.is_floating(f.type) else "''" for f in kinds)
        with self.told("read"), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(n_rows)})
            cursor.execute(f"SELECT * FROM (SELECT {typical}) UNION ALL SELECT * FROM ({sql})")
            n_ours = 1
            with closing(batches(cursor)) as found:
                for batch in found:
                    batch, n_ours = batch.slice(n_ours), 0
                    if batch.num_rows:
                        yield pa.record_batch(batch.columns, names=kinds.names)

    def value(self, text: str, native: Native) -> str:
        return text if native.order == "number" else "'" + text.replace("'", "''") + "'"

    def text(self, expression: str) -> str:
        return f"CASE typeof({expression}) WHEN 'real' THEN printf('%!.17g', {expression}) ELSE CAST({expression} AS TEXT) END"

    def less(self, expression: str, lag: float, native: Native) -> str:
        if native.order != "number":
            raise SourceError("SQLite has no moments to take a `lag` from.", fix="Leave `lag` out: its writers wait for each other.")
        return number_less(expression, lag)

    def now(self) -> str:
        raise AssertionError("SQLite has no zoned moments")

    def cell(self, native: Native, column: Column | None) -> tuple[str, "pa.DataType"]:
        import pyarrow as pa

        name = self.quoted(native.name)
        if native.type.startswith("BLOB"):
            return name, pa.binary()
        asked = column.type if column else ""
        if asked == "string" or native.order != "number":
            return f"CAST({name} AS TEXT)", pa.string()
        if asked in ("int", "bool") or (_is_whole(native.type) and asked != "float"):
            return f"CASE typeof({name}) WHEN 'integer' THEN {name} END", pa.int64()
        return f"CASE WHEN typeof({name}) IN ('integer', 'real') THEN CAST({name} AS REAL) END", pa.float64()

    def broken(self, natives: "list[tuple[Native, Column]]") -> str | None:
        """Any cell may hold anything in SQLite, whatever was declared."""
        import pyarrow.types as t

        cases = []
        for native, column in natives:
            kind = self.cell(native, column)[1]
            if t.is_integer(kind) or t.is_floating(kind):
                name = self.quoted(native.name)
                fits = "'integer', 'null'" if t.is_integer(kind) else "'integer', 'real', 'null'"
                what = f"{native.name} holds ".replace("'", "''")
                cases.append(f"WHEN typeof({name}) NOT IN ({fits}) THEN '{what}' || typeof({name}) || ': ' || substr(CAST({name} AS TEXT), 1, 100)")
        return f"CASE {' '.join(cases)} END" if cases else None

    def pulse(self, relation: Relation) -> Any:
        """Sizes and times of the file and of its log."""
        files = [self._path, self._path.with_name(self._path.name + "-wal")]
        return [[f.stat().st_size, f.stat().st_mtime_ns] if f.exists() else None for f in files]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._error):
                connection.close()

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError, sqlite3.Error) as error:
            if "no such" in str(error) or "syntax error" in str(error):
                raise SourceError(f"{self.place}: cannot {doing}: {first_line(error)}.", fix="Check the names under the source.") from None
            raise dead(self.place, doing, error, of_cells=doing == "read") from None

    def _run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)


def path_of(address: str) -> Path:
    """The file of ``sqlite:///shop.db`` (relative) or ``sqlite:////data/shop.db``."""
    return Path(unquote(address.partition(":///")[2].partition("?")[0]))


def _is_whole(kind: str) -> bool:
    return "INT" in kind or kind in ("BOOL", "BOOLEAN")


def _order(kind: str) -> Order | None:
    """By SQLite's rules of affinity. Source: sqlite.org/datatype3.html, 3.1."""
    if _is_whole(kind) or any(word in kind for word in ("REAL", "FLOA", "DOUB", "NUM", "DEC")):
        return "number"
    return None if kind.startswith("BLOB") else "text"
