"""The same writes as `_rows`, through MLflow's own client: slower by seconds, right for every form of the database the installed MLflow knows."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from modelinscale.core.errors import StoreError, needs
from modelinscale.track.trackers import Run
from modelinscale.track.trackers._rows import HISTORY, IDENTITY, key, milliseconds, params_of, run_name, tags_of


class Client:
    """MLflow's client on one SQLite file."""

    WAITING: ClassVar[str] = "mis.waiting"
    """A version tag: the alias it gets, as long as that was not written."""

    def __init__(self, database: Path, root: Path) -> None:
        self._root = root
        self._uri = f"sqlite:///{database.absolute()}"
        self._opened: Any = None

    def create(self) -> None:
        """Makes the database."""
        with self._mlflow() as client:
            client.search_experiments(max_results=1)

    def next_number(self, name: str) -> int:
        with self._mlflow() as client:
            return max([int(v.version) for v in client.search_model_versions(f"name = '{name}'")], default=0) + 1

    def write_run(self, name: str, run: Run) -> str:
        from mlflow.entities import Metric, Param, RunTag

        with self._mlflow() as client:
            experiment = self._experiment(client, name)
            found = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{run.identity}'", max_results=1)
            if found:  # params cannot be changed once written, so a repeated run takes the place of the one before
                client.delete_run(found[0].info.run_id)
            made = client.create_run(experiment, start_time=milliseconds(run.started), tags=tags_of(run), run_name=run_name(run))
            run_id = str(made.info.run_id)
            end = milliseconds(run.ended)
            metrics = [Metric(key(k), float(v), end, 0) for k, v in run.metrics.items()]
            params = [Param(k, v) for k, v in params_of(run).items()]
            tags: list[RunTag] = []
            for start in range(0, max(len(metrics), len(params)), 100):  # MLflow takes at most 100 params at once
                client.log_batch(run_id, metrics[start : start + 100], params[start : start + 100], tags)
            client.set_terminated(run_id, end_time=end)
            return run_id

    def write_version(self, name: str, number: int, *, source: Path, run: str | None, tags: Mapping[str, str], alias: str, history: str) -> None:
        from mlflow.exceptions import MlflowException

        with self._mlflow() as client:
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = client.create_model_version(name, source=str(source), run_id=run, tags={**{key(k): v for k, v in tags.items()}, self.WAITING: alias})
            if int(made.version) != number:
                raise StoreError(
                    f"MLflow gave {name} the version {made.version}, expected {number}: another program registered one meanwhile.", fix="Run it again."
                )
        self.finish(name, number, alias, history)

    def finish(self, name: str, number: int, alias: str, history: str) -> None:
        """Writes the alias of a version that waits for it."""
        self.write_alias(name, alias, number, history)
        with self._mlflow() as client:
            client.delete_model_version_tag(name, str(number), self.WAITING)

    def write_alias(self, name: str, alias: str, number: int, history: str) -> None:
        with self._mlflow() as client:
            client.set_registered_model_tag(name, f"{HISTORY}.{alias}", history)
            client.set_registered_model_alias(name, alias, str(number))

    def _experiment(self, client: Any, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=(self._root.absolute() / "artifacts" / name).as_uri()))
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    @contextmanager
    def _mlflow(self) -> Iterator[Any]:
        """The client, opened once; what MLflow refuses becomes a `StoreError`."""
        needs("mlflow", extra="ui")
        for name in ("mlflow", "alembic"):  # MLflow sets its own level when it is imported; its migrations are no news to a user
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._opened is None:
                self._opened = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            yield self._opened
        except (MlflowException, SQLAlchemyError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"MLflow refused {self._uri}: {words[:300]}",
                fix=f"If it says the database is out of date: `mlflow db upgrade {self._uri}` (a copy first), or upgrade MLflow.",
            ) from error
