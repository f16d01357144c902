"""What every change of a lake table is made of: where it lies, who is writing, and the record that a commit keeps of itself."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale import __version__
from modelinscale.core.errors import LakeError
from modelinscale.core.identity import identity
from modelinscale.core.secrets import reveal
from modelinscale.data._lake_errors import told
from modelinscale.data.arrow import INTERNAL
from modelinscale.data.sources import Cursor
from modelinscale.store import Located

if TYPE_CHECKING:
    import lance
    import pyarrow as pa


SEQ = INTERNAL + "seq"
"""The hidden column with the number of the commit that brought the row; never decreases from row to row."""
BLOCK_ROWS = 65_536
IO_BYTES = 64 << 20
"""Read ahead; the library's default buffers gigabytes on wide tables."""
CACHE_BYTES = 32 << 20
"""What is kept of the descriptions of files that were read; a million rows have 1.6 MB of it, and the library's default keeps a gigabyte."""
REMEMBERED = 100
"""So many of the last batches' names are kept in each record: one that comes back within them is known."""
COMMIT_KEY, NOTE_KEY = "mis.commit", "mis.note"


@dataclass(frozen=True)
class Where:
    """Where a table lies: a folder of this machine, or an object store with what is needed to reach it."""

    uri: str
    """A path, or ``s3://``, ``gs://``, ``az://``."""
    options: Mapping[str, str] | None = field(default=None, repr=False)
    """Of the object store: endpoint, region, credentials (never shown)."""

    def __post_init__(self) -> None:
        if self.options is None and isinstance(self.uri, Located):
            object.__setattr__(self, "options", {name: reveal(value) for name, value in self.uri.options.items()})

    @property
    def beside(self) -> Path:
        """A folder of this machine for what belongs to the table and can be made again from it."""
        return self.uri.beside if isinstance(self.uri, Located) else Path(self.uri)

    @property
    def folder(self) -> Path | None:
        """The folder; None for an object store."""
        return None if "://" in self.uri else Path(self.uri)

    @property
    def storage(self) -> dict[str, str] | None:
        return dict(self.options) if self.options else None


@dataclass(frozen=True)
class Commit:
    """What a commit says of itself, kept in the very transaction that brings its rows."""

    seq: int
    """Its number: 1 for the first."""
    batch: str
    """A name that the same rows get again when a writer is killed and comes back."""
    cursor: Cursor | None = None
    """Where the source stands after these rows."""
    run: str = ""
    """The run that wrote them."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain data of the writer's, such as running counts."""
    rows_version: int | None = None
    """The version that last changed rows, where this commit itself brought none."""
    what: str = "append"
    """append, upsert, erase, rotate, drop, evolve, compact, vacuum or upgrade."""
    by: str = ""
    """Who: user@host, process, version of this library."""
    n_added: int = 0
    n_removed: int = 0
    """Rows that left: replaced or deleted."""
    recent: Sequence[str] = ()
    """Short forms of the last batches' names, the newest last."""

    def knows(self, batch: str) -> bool:
        """Whether this batch is the commit's own or among the last `REMEMBERED`."""
        return batch == self.batch or short(batch) in self.recent

    @classmethod
    def read(cls, record: str) -> "Commit":
        """From its JSON; fields that a later version added are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in json.loads(record).items() if name in known})


def short(batch: str) -> str:
    return identity(batch)[:16]


@cache
def writer() -> str:
    """Who writes, as records say it."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} process {os.getpid()}, modelinscale {__version__}"


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def record(commit: Commit) -> dict[str, str]:
    return {COMMIT_KEY: compact_json(vars(commit))}


def commit_of(transaction: Any) -> Commit | None:
    """The record in a transaction; None for one that is not ours (a compaction's)."""
    found = transaction and (transaction.transaction_properties or {}).get(COMMIT_KEY)
    return Commit.read(found) if found else None


def last_commit(dataset: "lance.LanceDataset", uri: str) -> tuple[Commit, int]:
    """The newest record, and the version it made."""
    n = 1
    with told(uri, "read"):
        while True:
            found = dataset.get_transactions(n)
            for age, transaction in enumerate(found):
                commit = commit_of(transaction)
                if commit is not None:
                    return commit, int(dataset.version) - age
            if len(found) < n or n > 1 << 20:
                break
            n *= 16
    raise LakeError(
        f"{uri}: the record of its last commit is gone, and with it the place in the source.",
        fix="Another program cleaned this table up. Move the table away and collect again.",
    )


def note_of(transaction: Any) -> dict[str, str]:
    """Who did what, of a transaction of ours without a record."""
    found = transaction and (transaction.transaction_properties or {}).get(NOTE_KEY)
    return dict(json.loads(found)) if found else {}


def words(schema: "pa.Schema") -> str:
    return ", ".join(f"{f.name} {f.type}" for f in schema)
