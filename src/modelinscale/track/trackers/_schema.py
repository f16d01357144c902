"""The database as MLflow makes it, without the seconds its migrations take: ``_schema.sql`` is a dump of what MLflow made.

``python -m modelinscale.track.trackers._schema`` writes the dump anew from the installed MLflow; a test holds the two together.
"""

import re
import sqlite3
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from modelinscale.core.clock import now
from modelinscale.core.errors import StoreError
from modelinscale.core.files import told

FILE = Path(__file__).with_name("_schema.sql")
HEAD = "dc11669786a5"
"""MLflow's name (an alembic revision) for the form of the tables in the dump, and for the form `_rows` reads and writes."""


def create(path: Path, *, artifacts: Path) -> None:
    """Makes the database; it appears whole or not at all, and never in place of one that is there."""
    with told(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
            side = Path(folder) / path.name
            _filled(side, artifacts)
            side.chmod(0o644)
            side.rename(path)


def _filled(side: Path, artifacts: Path) -> None:
    at = int(now().timestamp() * 1000)
    try:
        connection = sqlite3.connect(side, isolation_level=None)
        try:
            connection.executescript(FILE.read_text(encoding="utf-8"))
            # MLflow adds this one when it first opens a database, with a folder below wherever it happens to be started.
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace)"
                " VALUES (0, 'Default', ?, 'active', ?, ?, 'default')",
                ((artifacts.absolute() / "Default").as_uri(), at, at),
            )
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise StoreError(f"{side.parent.parent} takes no new database ({error}).", fix="Free some space, or put `store` on another disk.") from error


@cache
def installed_head() -> str | None:
    """The form the installed MLflow gives its database, read from the names of its migrations, MLflow itself not imported; None: not installed."""
    found = find_spec("mlflow")
    if found is None or found.origin is None:
        return None
    revisions: set[str] = set()
    left: set[str] = set()
    for file in (Path(found.origin).parent / "store" / "db_migrations" / "versions").glob("*_*.py"):
        text = file.read_text(encoding="utf-8")
        revisions |= set(re.findall(r"^revision\b.*?[\"'](\w+)[\"']", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b.*", text, re.MULTILINE):
            left |= set(re.findall(r"[\"'](\w+)[\"']", line))
    heads = revisions - left
    return heads.pop() if len(heads) == 1 else None


def dump(database: Path) -> str:
    """Tables, indexes, triggers and MLflow's own rows of a database as SQL, experiments left out."""
    connection = sqlite3.connect(database)
    try:
        lines = [line for line in connection.iterdump() if not line.startswith('INSERT INTO "experiments"')]
    finally:
        connection.close()
    return "\n".join(line.replace(" \n", "\n") for line in lines) + "\n"


def main() -> None:
    """Writes the dump anew."""
    from modelinscale.core.files import write_bytes
    from modelinscale.track.trackers._client import Client

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        Client(database, Path(folder)).create()
        write_bytes(FILE, dump(database).encode())


if __name__ == "__main__":
    main()
