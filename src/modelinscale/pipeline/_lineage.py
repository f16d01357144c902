"""What a run leaves for auditors: for each step a pair of OpenLineage events, and a line in the audit log for what changed the world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import MisError, StoreError
from modelinscale.core.identity import identity
from modelinscale.pipeline._collect import quarantine_name
from modelinscale.pipeline._place import Place, Result
from modelinscale.pipeline._plan import steps_of
from modelinscale.track.audit import Audit
from modelinscale.track.lineage import Dataset, Sender, event, run_id

if TYPE_CHECKING:
    from modelinscale.data.sources import Source
    from modelinscale.pipeline._context import Context

AUDIT, LINEAGE = ("audit", "log.jsonl"), ("lineage",)
"""Where they lie in the store."""


def audit_of(place: Place) -> Audit:
    """The project's audit log."""
    return Audit(place.store.path(*AUDIT))


class Witness:
    """Tells of the steps of one run while they are done."""

    def __init__(self, context: Context, clock: Clock = now) -> None:
        place = context.place
        self._context, self._clock = context, clock
        self._sender = Sender(place.spec.lineage, place.store.path(*LINEAGE), place.base)
        self.audit = audit_of(place)

    def made(self, step: str, name: str, make: Callable[[], Result]) -> Result:
        """Does the work of a step, named by its identity, and tells of it. An error is told and goes on its way."""
        spec, begun = self._context.spec, self._clock()
        run, job = run_id(spec.name, step, name, begun.isoformat()), f"{spec.name}.{step}"
        known: dict[str, Any] = {"run": run, "job": job, "namespace": spec.lineage.namespace, "inputs": self._inputs(step)}
        self._sender.send(event("START", at=begun, **known))
        try:
            result = make()
        except BaseException as error:
            # Only what we wrote ourselves is repeated: another library's words may hold anything.
            why = str(error) if isinstance(error, MisError) else type(error).__name__
            failed = {"errorMessage": {"message": why, "programmingLanguage": "PYTHON"}}
            with suppress(StoreError):  # a disk that takes nothing more is what `error` tells of
                self._sender.send(event("FAIL" if isinstance(error, Exception) else "ABORT", at=self._clock(), run_facets=failed, **known))
                self.audit.write(step, spec.name, failed=type(error).__name__)
            raise
        found = {"mis_step": {"step": step, "identity": result.identity, "seconds": result.seconds}}
        at = max(self._clock(), begun + timedelta(milliseconds=1))
        self._sender.send(event("COMPLETE", at=at, outputs=self._outputs(step, result), run_facets=found, **known))
        self._line(step, result)
        return result

    def _line(self, step: str, result: Result) -> None:
        """A line for what changed the lake, the registry or went out; training in between is in the lineage."""
        facts, name = result.facts, self._context.spec.name
        if step == "collect":
            self.audit.write(step, facts["table"], version=facts["version"], n_added=facts["n_added"], n_quarantined=facts["n_quarantined_now"])
        elif step == "export":
            self.audit.write(step, name, identity=facts["identity"])
        elif step == "register":
            self.audit.write(step, f"{name} version {facts['version']}", package=facts["package"], table=self._table(), notes=facts["notes"])

    def _table(self) -> str:
        collected = self._context.facts("collect")
        return f"{collected['table']}@{collected['version']}"

    # -- datasets

    def _inputs(self, step: str) -> list[Dataset]:
        if step == "collect":
            return read_by(self._context.place)
        steps = steps_of(self._context.spec)
        before = steps[steps.index(step) - 1]
        if before == "collect":
            return [_lake(self._context.place, self._context.facts("collect"), read=True)]
        return [self._folder(before)]

    def _outputs(self, step: str, result: Result) -> list[Dataset]:
        facts = result.facts
        if step == "collect":
            return collected_by(self._context.place, facts)
        if step == "register":
            package = self._context.place.store.path(facts["package"])
            version = {"version": {"datasetVersion": str(facts["version"])}}
            return [Dataset("file", str(package), {"columnLineage": {"fields": self._features()}, **version})]
        about: dict[str, Any] = {}
        if step in ("prepare", "export"):
            about["columnLineage"] = {"fields": self._features(facts if step == "prepare" else None)}
        if step == "evaluate":
            about["mis_metrics"] = {"metrics": facts["evaluation"]["metrics"]}
        return [self._folder(step, result, about)]

    def _folder(self, step: str, result: Result | None = None, more: Mapping[str, Any] | None = None) -> Dataset:
        found = result or self._context.done[step]
        about = {"version": {"datasetVersion": found.identity}, **(more or {})}
        quality: dict[str, Any] = {}
        if step == "prepare" and result is None:
            quality = {"dataQualityMetrics": {"rowCount": found.facts["n_train"], "columnMetrics": self._missing()}}
        return Dataset("file", str(found.folder), about, quality)

    def _missing(self) -> dict[str, Any]:
        """Missing cells of the training rows by column, as far as the features counted them."""
        states = self._context.states
        return {name: {"nullCount": int(state["missing"])} for name, state in states.items() if isinstance(state.get("missing"), int)}

    def _features(self, prepared: Mapping[str, Any] | None = None) -> dict[str, Any]:
        facts, collected = prepared or self._context.facts("prepare"), self._context.facts("collect")
        namespace, table = _at(self._context.place.store.uri("lake", collected["table"]))
        return {
            name: {"inputFields": [{"namespace": namespace, "name": table, "field": name, "transformations": [_how(False, settings["type"])]}]}
            for name, settings in facts["features"].items()
        }


def read_by(place: Place) -> list[Dataset]:
    """What a collect reads."""
    return [Dataset(*name, {"dataSource": {"name": name[1], "uri": _uri(*name)}}) for name in _read_names(place)]


def collected_by(place: Place, facts: Mapping[str, Any]) -> list[Dataset]:
    """What a collect writes: the table and its quarantine. ``facts``: table, version, schema, n_rows, n_added, n_quarantined_now."""
    rules = place.spec.data.personal
    from_where = {
        column["name"]: {
            "inputFields": [
                {"namespace": namespace, "name": name, "field": column["name"], "transformations": [_how(column["name"] in rules)]}
                for namespace, name in _read_names(place)
            ]
        }
        for column in facts["schema"]["columns"]
    }
    quarantine = Dataset(*_at(place.store.uri("lake", quarantine_name(facts["table"]))))
    lake = _lake(place, facts, {"columnLineage": {"fields": from_where}}, {"outputStatistics": {"rowCount": facts["n_added"]}})
    return [lake, Dataset(quarantine.namespace, quarantine.name, {}, {"outputStatistics": {"rowCount": facts["n_quarantined_now"]}})]


def _read_names(place: Place) -> list[tuple[str, str]]:
    return list(_sources(place.spec.source_at(place.base).plain()))


def _lake(
    place: Place, facts: Mapping[str, Any], more: Mapping[str, Any] | None = None, out: Mapping[str, Any] | None = None, *, read: bool = False
) -> Dataset:
    """The table version, as an output of collect or (``read``) an input of what comes after."""
    at = _at(place.store.uri("lake", facts["table"]))
    about = {
        "schema": {"fields": [{"name": c["name"], "type": c["type"]} for c in facts["schema"]["columns"]]},
        "dataSource": {"name": facts["table"], "uri": _uri(*at)},
        "version": {"datasetVersion": str(facts["version"])},
        **(more or {}),
    }
    quality = {"dataQualityMetrics": {"rowCount": facts["n_rows"], "columnMetrics": {}}}
    return Dataset(*at, about, quality if read else out or {})


def _how(masking: bool, words: str = "") -> dict[str, Any]:
    found = {"type": "DIRECT", "subtype": "TRANSFORMATION" if words or masking else "IDENTITY", "masking": masking}
    return {**found, "description": words} if words else found


def sources_of(source: Source) -> tuple[str, ...]:
    """Everything that a source reads, for people; addresses without user and password."""
    return tuple(name if space == "file" else f"{space}/{name}" for space, name in _sources(source.plain()))


def _sources(plain: Any) -> Iterator[tuple[str, str]]:
    """Namespace and name of everything that settings of a source read, addresses without user and password."""
    if isinstance(plain, list | tuple):
        for one in plain:
            yield from _sources(one)
    if not isinstance(plain, dict):
        return
    path, url = plain.get("path"), plain.get("url")
    if path:
        yield from (("file", str(one)) for one in ([path] if isinstance(path, str) else path))
    elif url:
        yield from (_address(one, plain) for one in ([url] if isinstance(url, str) else url))
    elif "type" in plain and not any(isinstance(v, dict | list) and any(_sources(v)) for v in plain.values()):
        yield f"modelinscale:{plain['type']}", identity(plain)
    else:
        for value in plain.values():
            yield from _sources(value) if isinstance(value, dict | list) else ()


def _address(url: str, plain: Mapping[str, Any]) -> tuple[str, str]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    what = next((str(plain[k]) for k in ("table", "topic", "subject", "stream") if plain.get(k)), "")
    name = ".".join(p for p in (parts.path.strip("/"), what) if p) or (identity(plain["query"]) if plain.get("query") else host)
    return f"{parts.scheme}://{host}", name


def _at(uri: str) -> tuple[str, str]:
    """Namespace and name of a place in the store."""
    scheme, _, rest = str(uri).rpartition("://")
    if not scheme:
        return "file", uri
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", name


def _uri(namespace: str, name: str) -> str:
    return f"file://{name}" if namespace == "file" else f"{namespace}/{name}" if "://" in namespace else f"{namespace}:{name}"
