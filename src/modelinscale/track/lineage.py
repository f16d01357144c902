"""Lineage: what went into each step and what came out, as OpenLineage events (https://openlineage.io, spec 2-0-2), in a file or to a collector.

By default they lie in the store and nothing connects out. A collector that does not answer never stops a run: what it did not take waits in the store.
"""

import json
import os
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator

from modelinscale import __version__
from modelinscale.core.errors import SpecError
from modelinscale.core.files import told, write_bytes
from modelinscale.core.logs import log
from modelinscale.core.secrets import Address, Reference, remember, reveal, veiled
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration

PRODUCER = f"https://modelinscale.example/version/{__version__}"
_SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = {
    "schema": "1-2-0/SchemaDatasetFacet",
    "dataSource": "1-0-1/DatasourceDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataQualityMetrics": "1-0-3/DataQualityMetricsInputDatasetFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
}
"""The facets of the specification that we send; any other is our own and starts with ``mis_``."""
ENDPOINT = "/api/v1/lineage"
"""Where collectors take events, added to an address without a path."""
EVENTS, WAITING = "events.jsonl", "waiting.jsonl"
State = Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL"]


class OpenLineage(Settings):
    """Where lineage goes."""

    file: Path | None = None
    """A file of JSON lines, taken from where model.yaml lies. Left out: ``lineage/events.jsonl`` in the store."""
    url: Address | None = None
    """A collector over HTTP, such as Marquez: ``https://lineage.example.org``. Then nothing is written to a file."""
    token: Reference | None = None
    """What the collector wants to see (``${ENV:LINEAGE_TOKEN}``), sent as a bearer token."""
    namespace: str = Field("modelinscale", min_length=1)
    """The namespace of our jobs."""
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 5.0
    """How long one attempt may take."""
    tries: int = Field(3, ge=1, le=10)
    """Attempts before an event is put aside."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.file is not None and self.url is not None:
            raise SpecError("`lineage` names a file and an address.", fix="Keep one of them.")
        if self.url is not None and (urlsplit(self.url).scheme not in ("http", "https") or "://" not in self.url):
            raise SpecError("`lineage.url` must start with http:// or https://.", fix="Name the collector's address.")
        if self.token is not None and (self.url is None or (not self.url.startswith("https://") and not _is_here(self.url))):
            raise SpecError("`lineage.token` needs an address that starts with https://.", fix="A token must not travel unencrypted.")
        return self


@dataclass(frozen=True)
class Dataset:
    """Something read or written, by the naming rules of OpenLineage."""

    namespace: str
    name: str
    facets: Mapping[str, Any] = field(default_factory=dict)
    """Name -> content without the parts every facet has."""
    role_facets: Mapping[str, Any] = field(default_factory=dict)
    """Those that say something of it as an input, or as an output, of this run."""

    def plain(self, role: Literal["inputFacets", "outputFacets"]) -> dict[str, Any]:
        found = {"namespace": self.namespace, "name": self.name, "facets": facets(self.facets)}
        return {**found, role: facets(self.role_facets)} if self.role_facets else found


def facets(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Facets with producer and schema."""
    return {name: {"_producer": PRODUCER, "_schemaURL": _schema_url(name), **content} for name, content in contents.items()}


def _schema_url(name: str) -> str:
    if name not in _FACETS:
        assert name.startswith("mis_"), f"a facet of ours must start with mis_: {name}"
        return f"https://modelinscale.example/lineage/1-0-0/facets.json#/$defs/{name}"
    path = _FACETS[name]
    return f"https://openlineage.io/spec/facets/{path}.json#/$defs/{path.partition('/')[2]}"


def run_id(*parts: str) -> str:
    """A UUID that follows from what it names."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join((PRODUCER, *parts))))


def event(
    state: State,
    *,
    run: str,
    job: str,
    namespace: str,
    at: datetime,
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
    run_facets: Mapping[str, Any] | None = None,
    job_facets: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One RunEvent as plain data, without any secret that was revealed in this process."""
    engine = {"processing_engine": {"version": __version__, "name": "modelinscale"}}
    kind = {"jobType": {"processingType": "BATCH", "integration": "MODELINSCALE", "jobType": "TASK"}}
    made = {
        "eventType": state,
        "eventTime": at.isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": _SPEC,
        "run": {"runId": run, "facets": facets({**engine, **(run_facets or {})})},
        "job": {"namespace": namespace, "name": job, "facets": facets({**kind, **(job_facets or {})})},
        "inputs": [one.plain("inputFacets") for one in inputs],
        "outputs": [one.plain("outputFacets") for one in outputs],
    }
    found = veiled(made)
    assert isinstance(found, dict)
    return found


class Sender:
    """Takes events to where they belong. Never raises for a collector's sake; a full disk is the user's to know."""

    def __init__(self, settings: OpenLineage, folder: Path, base: Path) -> None:
        """``folder``: the store's, for the default file and for events that wait; ``base``: that of model.yaml."""
        self._settings = settings
        self._file = base / settings.file if settings.file is not None else folder / EVENTS
        self._waiting = folder / WAITING
        self._is_dead = False

    def send(self, event: Mapping[str, Any]) -> None:
        if self._settings.url is None:
            return _append(self._file, event)
        if self._is_dead or not self._deliver_waiting() or not self._deliver(event):
            _append(self._waiting, event)
        return None

    def _deliver_waiting(self) -> bool:
        """Sends what waits from earlier, oldest first; whether nothing waits any more."""
        if not self._waiting.exists():
            return True
        with told(self._waiting, "read"):
            lines = self._waiting.read_bytes().splitlines(keepends=True)
        for n, line in enumerate(lines):
            if not self._deliver(json.loads(line)):
                write_bytes(self._waiting, b"".join(lines[n:]))
                return False
        self._waiting.unlink()
        return True

    def _deliver(self, event: Mapping[str, Any]) -> bool:
        """Whether the collector took it. After a refusal it is left alone for the rest of the run: a run must not wait for it at every step."""
        import time

        why = ""
        for attempt in range(self._settings.tries):
            if attempt:
                time.sleep(0.2 * 2**attempt)
            why, again = self._post(event)
            if not why:
                return True
            if not again:
                break
        self._is_dead = True
        log(__name__).warning("the lineage collector does not take events; they wait in the store", extra={"reason": why, "waiting": str(self._waiting)})
        return False

    def _post(self, event: Mapping[str, Any]) -> tuple[str, bool]:
        """Why it failed ("" when it did not), and whether trying again makes sense."""
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import HTTPRedirectHandler, Request, build_opener

        class Stay(HTTPRedirectHandler):
            def redirect_request(self, *args: Any, **kwargs: Any) -> None:
                """Not followed: the token is for the address that was named."""

        assert self._settings.url is not None
        parts = urlsplit(reveal(self._settings.url, in_url=True))
        who, _, host = parts.netloc.rpartition("@")
        url = parts._replace(netloc=host, path=parts.path if parts.path not in ("", "/") else ENDPOINT).geturl()
        headers = {"Content-Type": "application/json", "User-Agent": f"modelinscale/{__version__}"}
        if who:
            headers["Authorization"] = "Basic " + b64encode(unquote(who).encode()).decode()
            remember(headers["Authorization"].removeprefix("Basic "))
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {reveal(self._settings.token)}"
        try:
            with build_opener(Stay).open(Request(url, json.dumps(event).encode(), headers), timeout=self._settings.timeout) as answer:
                answer.read(1 << 16)
        except HTTPError as error:
            error.close()
            return f"status {error.code}", error.code >= 500 or error.code == 429
        except (URLError, OSError, ValueError, HTTPException) as error:
            return f"{type(error).__name__}: {getattr(error, 'reason', None) or 'no answer'}", isinstance(error, OSError)
        return "", False


def _append(file: Path, event: Mapping[str, Any]) -> None:
    """One line in one write, so that writers beside each other do not mix."""
    with told(file, "write"):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, json.dumps(event, ensure_ascii=False).encode() + b"\n")
        finally:
            os.close(handle)


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
