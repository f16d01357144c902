"""What reading needs of a database, whichever it is: columns, streams of Arrow batches, words for values and names, and how rows become visible.

One `Database` is one connection and, between `begin` and `close`, one snapshot: everything that a read asks is answered as of one moment.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from modelinscale.core.errors import SourceError, Unreachable
from modelinscale.core.schema import Column
from modelinscale.core.secrets import MASK, remember, reveal
from modelinscale.data.sources._tls import CHECK, NO_TLS, Tls, about_certificates, plain

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMES = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
"""Schemes of addresses, and the module that speaks with such a database."""

Order = Literal["number", "moment", "zoned", "text"]
"""What values of a column are ordered as: zoned moments are comparable with the database's clock, others are not."""


@dataclass(frozen=True)
class Native:
    """A column as the database has it."""

    name: str
    type: str
    """The database's own word."""
    order: Order | None = None
    """None: no cursor can be made of it."""
    nullable: bool = True
    arrow: Any = None
    """The Arrow type of its cells as they are delivered."""


@dataclass(frozen=True)
class Relation:
    """What is read from: a table, or a query in brackets."""

    sql: str
    """As it stands after FROM."""
    label: str
    """For messages: ``orders``, ``the query``."""
    columns: Mapping[str, Native]
    windows: bool = False
    """Whether rows tell which transaction wrote them, so that it is known which are decided."""
    unique: tuple[frozenset[str], ...] = ()
    """Sets of columns of which no two rows have the same."""
    primary: tuple[str, ...] = ()
    """The primary key, in order; empty if there is none or it is not known."""


class Database(ABC):
    """One connection, used by one thread at a time."""

    in_order: ClassVar[bool] = False
    """Whether a row with a greater cursor is never visible before one with a smaller: writers wait for each other."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects. ``address`` with its secrets revealed. Raises `SourceError`."""
        self.timeout_s = timeout_s
        self.place = place_of(address)

    @abstractmethod
    def begin(self) -> None:
        """Starts the snapshot in which everything after this is read; nothing can be changed in it."""

    @abstractmethod
    def relation(self, table: str | None, query: str | None) -> Relation:
        """The table or query. Raises `SourceError` when it is not there or cannot be run."""

    @abstractmethod
    def stream(self, sql: str, kinds: "pa.Schema", n_rows: int) -> Iterator["pa.RecordBatch"]:
        """The rows of a SELECT in batches, columns of ``kinds`` in order; never more in memory than ``n_rows`` or some MiB."""

    @abstractmethod
    def row(self, sql: str) -> tuple[Any, ...]:
        """The one row of a small SELECT."""

    @abstractmethod
    def quoted(self, name: str) -> str:
        """A column's or table's name."""

    @abstractmethod
    def value(self, text: str, native: Native) -> str:
        """A literal of a column's type from a value's text (see `text`)."""

    @abstractmethod
    def text(self, expression: str) -> str:
        """SQL that gives a value as text that `value` reads back exactly."""

    @abstractmethod
    def less(self, expression: str, lag: float, native: Native) -> str:
        """SQL for a value that lies ``lag`` (numbers: units, moments: seconds) below."""

    @abstractmethod
    def now(self) -> str:
        """SQL for the present moment as a zoned one."""

    @abstractmethod
    def cell(self, native: Native, column: Column | None) -> tuple[str, "pa.DataType"]:
        """SQL that delivers cells for a column of ours (None: as they are), and the Arrow type they come in."""

    def broken(self, natives: "list[tuple[Native, Column]]") -> str | None:
        """SQL that says why a row's cells are not of their column's type, null where they are; None where the database sees to it."""
        return None

    def pulse(self, relation: Relation) -> Any:
        """Plain data that changes whenever rows of the relation may have changed; over-sensitive rather than not enough."""
        return self.row(f"SELECT count(*) FROM {relation.sql}")[0]

    @abstractmethod
    def close(self) -> None:
        """Ends the snapshot and the connection; a stream that was not read to its end is broken off."""

    @abstractmethod
    def told(self, doing: str) -> AbstractContextManager[None]:
        """The driver's errors as `SourceError`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def connect(address: str, timeout_s: float, tls: Tls = NO_TLS) -> Database:
    """A connection to the database at an address whose secrets are still references. Raises `SourceError` when it cannot be had."""
    scheme = address.split("://")[0].lower()
    revealed = reveal(address, in_url=True)
    password = urlsplit(revealed).password
    if password:
        remember(unquote(password))  # a driver may tell it without its encoding
    if SCHEMES[scheme] == "postgres":
        from modelinscale.data.sources._sql_postgres import Postgres

        return Postgres(revealed, timeout_s, tls)
    if SCHEMES[scheme] == "mysql":
        from modelinscale.data.sources._sql_mysql import MySql

        return MySql(revealed, timeout_s, tls)
    from modelinscale.data.sources._sql_sqlite import Sqlite

    return Sqlite(revealed, timeout_s)


def place_of(address: str) -> str:
    """An address without user, password and options: for messages, and to say what is read."""
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{re.sub(r'^[^/?#]*@', '', rest).partition('?')[0]}"


def first_line(error: BaseException) -> str:
    """A driver's message without the statement, and without details, which may show cells."""
    text = str(error).strip()
    text = re.split(r"\s*\n|Query was:", text)[0]
    return re.sub(r"^(?:[A-Z_]+: )?(?:\[\w+\] )?(?:Failed to \w+(?: query)?: )?(?:could not begin COPY: )?(?:ERROR: +)?", "", text).rstrip(" .:")[:300]


_AWAY = re.compile(
    r"connection refused|connect call failed|timed out|timeout expired|network is unreachable|no route to host|reset by peer|broken pipe|closed the connection"
    r"|no connection to the server|starting up|shutting down|in recovery mode|terminating connection|too many clients|too many connections|connection slots"
    r"|could not translate host name|name or service not known|name resolution|gone away|lost connection|can't connect|database is locked",
    re.IGNORECASE,
)


def dead(place: str, doing: str, error: BaseException, *, of_cells: bool = False) -> SourceError:
    """What is said when the connection breaks or is refused; ``of_cells``: or a cell cannot be computed, whose value a database quotes.

    `Unreachable` where the server may answer later: drivers tell that in words alone.
    """
    words = first_line(error)
    if of_cells:
        words = re.sub(r"[\"'].*|(?<=: ).*", MASK, words)  # to the end: a cell may hold quotes itself
    broken_off = re.search(r"closed unexpectedly|EOF detected", words) is not None
    if about_certificates(words) and not broken_off:
        return SourceError(f"{place}: cannot {doing}: {plain(words)}.", fix=CHECK)
    first = "Check address, user and password, and whether the server answers. " if doing == "connect" else ""
    kind = Unreachable if broken_off or _AWAY.search(words) else SourceError
    return kind(f"{place}: cannot {doing}: {words}.", fix=f"{first}What was committed stays; the next collect goes on from there.")


def number_less(value: str, lag: float) -> str:
    """SQL: a number minus a lag, whole where the lag is."""
    if not math.isfinite(lag):
        raise SourceError(f"a lag of {lag} is none.")
    return f"({value} - {int(lag) if lag == int(lag) else lag!r})"
