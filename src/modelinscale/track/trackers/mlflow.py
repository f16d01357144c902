"""MLflow: runs and versions in an embedded SQLite database that MLflow's own pages and client read.

MLflow takes seconds to import and to create its database, so neither happens here as long as the database has the form this code knows:
its rows are then read and written with Python's own ``sqlite3``, a registration in one transaction. A database of another form (made or
upgraded by another MLflow) is written through MLflow's client. See ``docs/decisions/0007-mlflow-without-importing-it.md``.
"""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlparse

from modelinscale.core.clock import now
from modelinscale.core.errors import StoreError, UsageError, did_you_mean
from modelinscale.core.files import held, new_folder, sweep, told
from modelinscale.track import _history
from modelinscale.track._place import place
from modelinscale.track.trackers import CHAMPION, Main, Registered, Run, Tracker, Version, Write
from modelinscale.track.trackers._rows import BECAUSE, HISTORY, IDENTITY, MAIN_BETTER, MAIN_METRIC, MAIN_VALUE, Rows

if TYPE_CHECKING:
    from modelinscale.track.trackers._client import Client

WAIT_S = 30.0
"""How long a writer waits for another one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"(?![vV]?\d+$)(?!latest$)[A-Za-z0-9_-]{1,100}", re.IGNORECASE)


class Mlflow(Tracker):
    """MLflow, in an SQLite database inside the store. See it with ``mlflow ui --backend-store-uri sqlite:///.mis/track/mlflow.db``."""

    @property
    def database(self) -> Path:
        """The file MLflow's pages are pointed at."""
        return self.root / "mlflow.db"

    @property
    def packages(self) -> Path:
        """Where package folders are published."""
        return self.root.parent / "packages"

    def record(self, name: str, run: Run) -> str:
        _checked(name)
        with self._writing() as writer:
            return writer.write_run(name, run)

    def register(
        self, name: str, *, identity: str, write: Write, main: Main | None = None, run: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Registered:
        _checked(name)
        with self._writing() as writer:
            found = next((v for v in self.versions(name) if v.identity == identity), None)
            if found is None:
                return self._new_version(writer, name, identity, write, main, run, dict(tags or {}))
            if not found.folder.is_dir():  # somebody removed the folder; the registry still knows the version
                self._publish(name, found.number, write)
            because = self._placed(writer, name, found)
            return Registered(self._version(name, found.number), fresh=False, because=because)

    def alias(self, name: str, alias: str, number: int, *, anchor: str = "") -> None:
        _checked(name)
        if not _ALIAS.fullmatch(alias):
            raise UsageError(f"{alias!r} cannot be an alias.", fix="Use letters, digits, '_' and '-', and no version number.")
        self.number(name, str(number))
        with self._writing() as writer:
            history = self._history_with(name, alias, number, anchor)
            writer.write_alias(name, alias, number, history)

    def aliases(self, name: str) -> dict[str, int]:
        with self._reading() as rows:
            return rows.aliases(name) if rows else {}

    def versions(self, name: str) -> tuple[Version, ...]:
        with self._reading() as rows:
            if rows is None:
                return ()
            aliases = rows.aliases(name)
            return tuple(self._as_version(name, row, tags, aliases) for row, tags in rows.versions(name))

    def before(self, name: str, alias: str) -> int:
        there = {v.number for v in self.versions(name)}
        moves = [m for m in self._history(name, alias) if m.number in there]
        found = _history.before(moves, self.aliases(name).get(alias))
        if found is None:
            raise UsageError(f"{name} had no other {alias} before.", fix=f"Name one: {_listed(self.versions(name))}.")
        return found

    def anchors(self, name: str) -> tuple[str, ...]:
        return tuple(move.anchor for move in self._history(name, CHAMPION) if move.anchor)

    def number(self, name: str, version: str) -> int:
        versions = self.versions(name)
        if not versions:
            raise UsageError(f"{name} has no registered version yet.", fix="Run `mis run` first.")
        if version.isdecimal():
            if any(v.number == int(version) for v in versions):
                return int(version)
            raise UsageError(f"{name} has no version {version}.", fix=f"There is: {_listed(versions)}.")
        aliases = self.aliases(name)
        if any(v.number == aliases.get(version) for v in versions):  # an alias may outlive its version when that is deleted in MLflow's pages
            return aliases[version]
        if version == CHAMPION:
            raise UsageError(
                f"{name} has no champion: no version became one by itself, and none was made one.",
                fix=f"`mis show` tells how good each is, `mis promote N` makes one champion all the same. There is: {_listed(versions)}.",
            )
        raise UsageError(f"{name} has no version called {version!r}.{did_you_mean(version, list(aliases))}", fix=f"There is: {_listed(versions)}.")

    def resolve(self, name: str, version: str) -> Path:
        found = self._version(name, self.number(name, version))
        if not found.folder.is_dir():
            raise StoreError(f"The package of {name} version {found.number} is not at {found.folder} any more.", fix="Run `mis run`: it writes it again.")
        return found.folder

    # -- registering

    def _new_version(
        self, writer: "Rows | Client", name: str, identity: str, write: Write, main: Main | None, run: str | None, tags: dict[str, str]
    ) -> Registered:
        number = writer.next_number(name)
        folder = self._publish(name, number, write)
        placed = place(main, self._champion(name))
        tags = {**tags, IDENTITY: identity, BECAUSE: placed.because}
        if main is not None:
            tags |= {MAIN_METRIC: main.metric, MAIN_VALUE: repr(main.value), MAIN_BETTER: main.better}
        history = self._history_with(name, placed.alias, number)
        writer.write_version(name, number, source=folder, run=run, tags=tags, alias=placed.alias, history=history)
        return Registered(self._version(name, number), fresh=True, because=placed.because)

    def _publish(self, name: str, number: int, write: Write) -> Path:
        """The folder of a version, whole. One left by a writer that was killed before it registered belongs to nobody and is replaced."""
        folder = self.packages / name / str(number)
        sweep(folder.parent)
        with told(folder, "replace"):
            if folder.exists():
                # Hidden first, removed then: a kill in between must not leave half a package where packages are looked for.
                side = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
                folder.rename(side)
                shutil.rmtree(side)
        with new_folder(folder) as side:
            write(side, number)
        return folder

    def _placed(self, writer: "Rows | Client", name: str, version: Version) -> str:
        """Finishes a registration that was cut off between version and alias (MLflow's client cannot do both at once)."""
        with self._reading() as rows:
            assert rows is not None
            because = rows.version_tags(name, version.number).get(BECAUSE, "")
            waiting = rows.version_tags(name, version.number).get(writer.WAITING)
        if waiting:
            writer.finish(name, version.number, waiting, self._history_with(name, waiting, version.number))
        return because

    def _champion(self, name: str) -> Version | None:
        return next((v for v in self.versions(name) if CHAMPION in v.aliases), None)

    def _version(self, name: str, number: int) -> Version:
        return next(v for v in self.versions(name) if v.number == number)

    def _as_version(self, name: str, row: sqlite3.Row, tags: dict[str, str], aliases: dict[str, int]) -> Version:
        number = int(row["version"])
        main = None
        if MAIN_METRIC in tags and tags.get(MAIN_BETTER) in ("higher", "lower"):
            main = Main(tags[MAIN_METRIC], float(tags.get(MAIN_VALUE, "nan")), "higher" if tags[MAIN_BETTER] == "higher" else "lower")
        # Ours are found from where the store is now, so that a project can be moved; one somebody registered in MLflow lies where it says.
        folder = self.packages / name / str(number) if IDENTITY in tags else Path(unquote(urlparse(row["source"] or "").path))
        return Version(
            number=number,
            identity=tags.get(IDENTITY, ""),
            folder=folder,
            created=datetime.fromtimestamp((row["creation_time"] or 0) / 1000, UTC),
            aliases=tuple(sorted(a for a, n in aliases.items() if n == number)),
            main=main,
            run=row["run_id"] or None,
        )

    # -- history of aliases

    def _history(self, name: str, alias: str) -> tuple[_history.Move, ...]:
        with self._reading() as rows:
            return _history.parse(rows.model_tags(name).get(f"{HISTORY}.{alias}")) if rows else ()

    def _history_with(self, name: str, alias: str, number: int, anchor: str = "") -> str:
        """The moves of an alias with this one; where it was moved by others since, that is noted first."""
        moves, at = list(self._history(name, alias)), now().isoformat(timespec="seconds")
        present = self.aliases(name).get(alias)
        if present is not None and (not moves or moves[-1].number != present):
            moves.append(_history.Move(present, at))
        if present != number:
            moves.append(_history.Move(number, at, anchor))
        return _history.render(moves)

    # -- the database

    @contextmanager
    def _reading(self) -> Iterator[Rows | None]:
        """The rows to read; None when there is no database yet."""
        if not self.database.exists():
            yield None
            return
        with self._connected() as connection:
            yield Rows(connection, self.root)

    @contextmanager
    def _writing(self) -> Iterator["Rows | Client"]:
        """What writes into this database; one writer at a time, the database created first where there is none."""
        with held(self.root / "lock", wait_s=WAIT_S, what=str(self.root)):
            if not self.database.exists():
                self._create()
            with self._connected() as connection:
                rows = Rows(connection, self.root)
                if rows.known():
                    yield rows
                    return
            from modelinscale.track.trackers._client import Client

            yield Client(self.database, self.root)

    def _create(self) -> None:
        from modelinscale.track.trackers import _schema

        if _schema.installed_head() == _schema.HEAD:
            _schema.create(self.database, artifacts=self.root / "artifacts")
        else:
            from modelinscale.track.trackers._client import Client

            Client(self.database, self.root).create()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """An open connection. Turns what SQLite refuses into a `StoreError` that says what to do."""
        try:
            # mode=rw never makes a file; one that may only be read is opened for reading by itself.
            connection = sqlite3.connect(f"file:{quote(str(self.database.absolute()))}?mode=rw", uri=True, timeout=WAIT_S, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise _told(self.database, error) from error


def _told(path: Path, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path} is locked by another program ({error}).", fix="Wait until it ends, or close what has the file open.")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreError(f"{path} cannot be opened for this ({error}).", fix="Give this user the right to write the file and its folder.")
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(f"{path} cannot grow: {error}.", fix="Free some space, or put `store` on another disk.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            f"{path} is damaged or no SQLite database ({error}).",
            fix="Move it away and run `mis run`: a new one is made. The packages beside it stay whole and can be served by folder.",
        )
    return StoreError(
        f"{path} does not hold what was expected of it ({error}).", fix="It may come from a newer MLflow: upgrade modelinscale, or move the file away."
    )


def _checked(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a model.", fix="Use up to 128 letters, digits, '.', '_' and '-', the first a letter or digit.")


def _listed(versions: tuple[Version, ...]) -> str:
    shown = [f"{v.number}" + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in versions[-20:]]
    return ", ".join(shown) or "nothing"
