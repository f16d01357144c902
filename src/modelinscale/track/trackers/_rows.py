"""MLflow's tables, read and written directly: every public method of `Rows` that writes is one transaction.

What is written is what MLflow's own client writes for the same calls (``create_run``, ``log_batch``, ``create_model_version``,
``set_registered_model_alias``, version 3.17); a test compares the two, another reads everything back through MLflow.
"""

import hashlib
import math
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from modelinscale.core.clock import now
from modelinscale.track.trackers import Run
from modelinscale.track.trackers._schema import HEAD

IDENTITY = "mis.identity"
BECAUSE = "mis.because"
MAIN_METRIC, MAIN_VALUE, MAIN_BETTER = "mis.main.metric", "mis.main.value", "mis.main.better"
HISTORY = "mis.history"
"""Tags of ours: on versions, and (the moves of an alias) on the registered model."""
_WORKSPACE = "default"
_KEY = re.compile(r"[^\w.\-/ :]")
_LONGEST_KEY, _LONGEST_PARAM, _LONGEST_TAG = 250, 6000, 8000


def key(text: str) -> str:
    """A name as MLflow takes it for params, metrics and tags: word characters, ``.``, ``-``, ``/``, ``:`` and spaces."""
    return _KEY.sub("_", text)[:_LONGEST_KEY]


def params_of(run: Run) -> dict[str, str]:
    return {key(k): str(v)[:_LONGEST_PARAM] for k, v in run.params.items()}


def tags_of(run: Run) -> dict[str, str]:
    """A run's tags, MLflow's own among them."""
    note = {"mlflow.note.content": run.note} if run.note else {}
    return {key(k): str(v)[:_LONGEST_TAG] for k, v in {**run.tags, **note, IDENTITY: run.identity, "mlflow.runName": run_name(run)}.items()}


def run_name(run: Run) -> str:
    return f"{run.started:%Y-%m-%d %H:%M} {run.identity[:8]}"


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class Rows:
    """The tables through one connection in autocommit mode. Raises ``sqlite3.Error``."""

    WAITING: ClassVar[str] = "mis.waiting"
    """A version tag that never occurs here: version and alias are written together."""

    def __init__(self, connection: sqlite3.Connection, root: Path) -> None:
        self._connection = connection
        self._root = root

    def known(self) -> bool:
        """Whether the tables have the form this module writes."""
        return [row[0] for row in self._connection.execute("SELECT version_num FROM alembic_version")] == [HEAD]

    # -- reading

    def versions(self, name: str) -> list[tuple[sqlite3.Row, dict[str, str]]]:
        """Every version that was not deleted with its tags, by number."""
        rows = self._connection.execute(
            "SELECT version, creation_time, source, run_id FROM model_versions"
            " WHERE workspace = ? AND name = ? AND current_stage IS NOT 'Deleted_Internal' ORDER BY version",
            (_WORKSPACE, name),
        ).fetchall()
        tags: dict[int, dict[str, str]] = {}
        for row in self._connection.execute("SELECT version, key, value FROM model_version_tags WHERE workspace = ? AND name = ?", (_WORKSPACE, name)):
            tags.setdefault(row["version"], {})[row["key"]] = row["value"]
        return [(row, tags.get(row["version"], {})) for row in rows]

    def version_tags(self, name: str, number: int) -> dict[str, str]:
        found = self._connection.execute(
            "SELECT key, value FROM model_version_tags WHERE workspace = ? AND name = ? AND version = ?", (_WORKSPACE, name, number)
        )
        return {row["key"]: row["value"] for row in found}

    def model_tags(self, name: str) -> dict[str, str]:
        found = self._connection.execute("SELECT key, value FROM registered_model_tags WHERE workspace = ? AND name = ?", (_WORKSPACE, name))
        return {row["key"]: row["value"] for row in found}

    def aliases(self, name: str) -> dict[str, int]:
        found = self._connection.execute(
            "SELECT alias, version FROM registered_model_aliases WHERE workspace = ? AND name = ? ORDER BY alias", (_WORKSPACE, name)
        )
        return {row["alias"]: int(row["version"]) for row in found}

    def next_number(self, name: str) -> int:
        """One more than the largest number ever given, deleted versions included: as MLflow counts."""
        found = self._connection.execute("SELECT max(version) FROM model_versions WHERE workspace = ? AND name = ?", (_WORKSPACE, name)).fetchone()[0]
        return int(found or 0) + 1

    # -- writing

    def write_run(self, name: str, run: Run) -> str:
        with self._transaction():
            experiment, location = self._experiment(name)
            found = self._connection.execute(
                "SELECT r.run_uuid FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid WHERE r.experiment_id = ? AND t.key = ? AND t.value = ?",
                (experiment, IDENTITY, run.identity),
            ).fetchone()
            # The same run gets the same name on every machine; MLflow's own are random hex of this length.
            run_id = found[0] if found else hashlib.sha256(f"{name}/{run.identity}".encode()).hexdigest()[:32]
            for table in ("metrics", "latest_metrics", "params", "tags"):
                self._connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))
            start, end = milliseconds(run.started), milliseconds(run.ended)
            values = (run_name(run), start, end, f"{location}/{run_id}/artifacts", experiment, run_id)
            if found:
                self._connection.execute(
                    "UPDATE runs SET name = ?, start_time = ?, end_time = ?, artifact_uri = ?, experiment_id = ?, status = 'FINISHED',"
                    " lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = ?",
                    values,
                )
            else:
                self._connection.execute(
                    "INSERT INTO runs (name, start_time, end_time, artifact_uri, experiment_id, run_uuid, source_type, source_name, entry_point_name,"
                    " user_id, status, source_version, lifecycle_stage) VALUES (?, ?, ?, ?, ?, ?, 'UNKNOWN', '', '', 'unknown', 'FINISHED', '', 'active')",
                    values,
                )
            self._many("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", params_of(run), run_id)
            self._many("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags_of(run), run_id)
            numbers = [(key(k), *_number(v), end, run_id) for k, v in run.metrics.items()]
            for table in ("metrics", "latest_metrics"):
                self._connection.executemany(f"INSERT INTO {table} (key, value, is_nan, timestamp, step, run_uuid) VALUES (?, ?, ?, ?, 0, ?)", numbers)
        return str(run_id)

    def write_version(self, name: str, number: int, *, source: Path, run: str | None, tags: Mapping[str, str], alias: str, history: str) -> None:
        at = milliseconds(now())
        with self._transaction():
            self._connection.execute(
                "INSERT INTO registered_models (workspace, name, creation_time, last_updated_time) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_updated_time = excluded.last_updated_time",
                (_WORKSPACE, name, at, at),
            )
            self._connection.execute(
                "INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source, storage_location, run_id,"
                " status) VALUES (?, ?, ?, ?, ?, 'None', ?, ?, ?, 'READY')",
                (_WORKSPACE, name, number, at, at, str(source), str(source), run),
            )
            self._connection.executemany(
                "INSERT INTO model_version_tags (workspace, name, version, key, value) VALUES (?, ?, ?, ?, ?)",
                [(_WORKSPACE, name, number, key(k), v) for k, v in tags.items()],
            )
            self._move(name, alias, number, history)

    def write_alias(self, name: str, alias: str, number: int, history: str) -> None:
        with self._transaction():
            self._move(name, alias, number, history)

    def finish(self, name: str, number: int, alias: str, history: str) -> None:
        """Writes the alias of a version that was registered without one."""
        raise AssertionError("version and alias are written together")

    def _move(self, name: str, alias: str, number: int, history: str) -> None:
        self._connection.execute(
            "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version",
            (_WORKSPACE, name, alias, number),
        )
        self._connection.execute(
            "INSERT INTO registered_model_tags (workspace, name, key, value) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (_WORKSPACE, name, f"{HISTORY}.{alias}", history),
        )

    def _experiment(self, name: str) -> tuple[int, str]:
        """Number and artifact location of the model's experiment, made where there is none; one deleted in MLflow's pages comes back."""
        select = "SELECT experiment_id, artifact_location, lifecycle_stage FROM experiments WHERE workspace = ? AND name = ?"
        found = self._connection.execute(select, (_WORKSPACE, name)).fetchone()
        if found is None:
            at = milliseconds(now())
            location = (self._root.absolute() / "artifacts" / name).as_uri()
            self._connection.execute(
                "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace)"
                " VALUES (?, ?, 'active', ?, ?, ?)",
                (name, location, at, at, _WORKSPACE),
            )
            found = self._connection.execute(select, (_WORKSPACE, name)).fetchone()
        elif found["lifecycle_stage"] != "active":
            self._connection.execute("UPDATE experiments SET lifecycle_stage = 'active' WHERE experiment_id = ?", (found["experiment_id"],))
        return int(found["experiment_id"]), str(found["artifact_location"])

    def _many(self, statement: str, values: Mapping[str, str], run_id: str) -> None:
        self._connection.executemany(statement, [(k, v, run_id) for k, v in values.items()])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _number(value: float) -> tuple[float, bool]:
    """A metric as MLflow stores it: NaN as 0 with a mark, infinities as the largest float."""
    if math.isnan(value):
        return 0.0, True
    if math.isinf(value):
        return math.copysign(sys.float_info.max, value), False
    return float(value), False
