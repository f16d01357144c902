"""Lineage: a pair of OpenLineage events for each step that was done, in the store or at a collector that may be dead."""

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import DataError, SpecError
from modelinscale.pipeline import STEPS
from modelinscale.pipeline._lineage import _sources
from modelinscale.spec import loads

SPEC = "name: shop\ndata: {source: rows.csv, personal: {who: drop}}\ntarget: y\nfeatures: {x: number, shop: category}\nmodel: linear\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    lines = [f"Ann{i},{i % 17},{'abc'[i % 3]},{'yes' if i % 17 > 8 else 'no'}" for i in range(300)]
    (tmp_path / "rows.csv").write_text("who,x,shop,y\n" + "\n".join(lines) + "\n")
    (tmp_path / "model.yaml").write_text(SPEC)
    return tmp_path


def events_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(event: dict[str, Any]) -> None:
    """What the specification (2-0-2) asks of a RunEvent and of every facet."""
    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert urlsplit(event["producer"]).scheme == "https"
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    uuid.UUID(event["run"]["runId"])
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    groups = [event["run"]["facets"], event["job"]["facets"]]
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
        groups += [dataset["facets"], dataset.get("inputFacets", {}), dataset.get("outputFacets", {})]
    for group in groups:
        for name, facet in group.items():
            assert urlsplit(facet["_producer"]).scheme == "https"
            assert urlsplit(facet["_schemaURL"]).fragment.startswith("/$defs/")
            assert name.startswith("mis_") == ("openlineage.io" not in facet["_schemaURL"])
    for dataset in event["outputs"]:
        for field in dataset["facets"].get("columnLineage", {}).get("fields", {}).values():
            for origin in field["inputFields"]:
                assert {"namespace", "name", "field"} <= origin.keys()
                assert all(how["type"] in ("DIRECT", "INDIRECT") for how in origin["transformations"])
    for dataset in event["inputs"]:
        if "dataQualityMetrics" in dataset.get("inputFacets", {}):
            assert isinstance(dataset["inputFacets"]["dataQualityMetrics"]["columnMetrics"], dict)


def test_each_step_done_is_a_pair_of_events_that_hang_together(project: Path) -> None:
    Project(project).run()
    found = events_of(project / ".mis" / "lineage" / "events.jsonl")
    for event in found:
        check(event)
    assert [e["eventType"] for e in found] == ["START", "COMPLETE"] * len(STEPS)
    assert [e["job"]["name"] for e in found[::2]] == [f"shop.{step}" for step in STEPS]
    ids = [e["run"]["runId"] for e in found]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == len(STEPS)
    for before, after in zip(found[1:-1:2], found[3::2], strict=True):
        made = {(d["namespace"], d["name"]) for d in before["outputs"]}
        assert {(d["namespace"], d["name"]) for d in after["inputs"]} <= made, after["job"]["name"]
    lake = found[1]["outputs"][0]
    assert [f["name"] for f in lake["facets"]["schema"]["fields"]] == ["x", "shop", "y"]
    assert lake["outputFacets"]["outputStatistics"]["rowCount"] == 300
    features = found[-1]["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert {(name, f["inputFields"][0]["field"], f["inputFields"][0]["name"]) for name, f in features.items()} == {
        ("x", "x", lake["name"]),
        ("shop", "shop", lake["name"]),
    }
    assert "Ann" not in (project / ".mis" / "lineage" / "events.jsonl").read_text()


def test_what_was_done_before_is_not_told_again(project: Path) -> None:
    Project(project).run(until="collect")
    Project(project).run(until="collect")
    assert len(events_of(project / ".mis" / "lineage" / "events.jsonl")) == 2


def test_a_step_that_fails_says_so_and_why(project: Path) -> None:
    (project / "model.yaml").write_text(SPEC.replace("personal:", "checks: {x: {between: [0, 3]}}, personal:"))
    with pytest.raises(DataError):
        Project(project).run()
    start, failed = events_of(project / ".mis" / "lineage" / "events.jsonl")
    check(failed)
    assert (start["eventType"], failed["eventType"]) == ("START", "FAIL")
    assert "break the contract" in failed["run"]["facets"]["errorMessage"]["message"]
    assert [(e.action, e.facts) for e in Project(project).audit.entries()] == [("collect", {"failed": "DataError"})]


class Collector(BaseHTTPRequestHandler):
    """What Marquez does as far as we see it; refuses the first ``refuse`` requests."""

    got: list[tuple[str, str, dict[str, Any]]]
    refuse: int
    status: int

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).refuse > 0:
            type(self).refuse -= 1
            self.send_response(type(self).status)
            self.send_header("Location", "/elsewhere")
        else:
            self.got.append((self.path, self.headers.get("Authorization", ""), body))
            self.send_response(201)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def collector() -> Iterator[tuple[str, type[Collector]]]:
    class Own(Collector):
        got, refuse, status = [], 0, 503

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", Own
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sent_to(url: str, project: Path) -> None:
    (project / "model.yaml").write_text(SPEC + f"lineage: {{url: '{url}', token: '${{ENV:LINEAGE_TOKEN}}', tries: 2}}\n")


def test_a_collector_gets_every_event_with_the_token(project: Path, collector: tuple[str, type[Collector]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEAGE_TOKEN", "t0ken-of-the-collector")
    url, handler = collector
    sent_to(url, project)
    handler.refuse = 1  # tried again
    Project(project).run(until="collect")
    assert [(path, token, e["eventType"]) for path, token, e in handler.got] == [
        ("/api/v1/lineage", "Bearer t0ken-of-the-collector", kind) for kind in ("START", "COMPLETE")
    ]
    assert not list((project / ".mis" / "lineage").glob("*")) if (project / ".mis" / "lineage").exists() else True


@pytest.mark.parametrize("status", [401, 503, 302])
def test_a_collector_that_refuses_stops_nothing_and_gets_the_events_later_in_order(
    project: Path, collector: tuple[str, type[Collector]], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("LINEAGE_TOKEN", "t0ken-of-the-collector")
    url, handler = collector
    sent_to(url, project)
    handler.refuse, handler.status = 10_000, status
    Project(project).run(until="collect")
    waiting = project / ".mis" / "lineage" / "waiting.jsonl"
    assert [e["eventType"] for e in events_of(waiting)] == ["START", "COMPLETE"]
    assert "t0ken" not in waiting.read_text()
    handler.refuse = 0
    Project(project).run(until="prepare")
    assert [e["job"]["name"] for _, _, e in handler.got] == ["shop.collect"] * 2 + ["shop.prepare"] * 2
    assert not waiting.exists()


def test_nobody_at_the_address_stops_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEAGE_TOKEN", "t0ken-of-the-collector")
    sent_to("http://127.0.0.1:9", project)
    Project(project).run(until="collect")
    assert len(events_of(project / ".mis" / "lineage" / "waiting.jsonl")) == 2


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{file: a.jsonl, url: 'https://x'}", "a file and an address"),
        ("{url: 'ftp://x/y'}", "must start with http"),
        ("{url: 'http://x/y', token: '${ENV:T}'}", "must not travel unencrypted"),
        ("{url: 'https://x/y', token: hunter2}", "must not be written here"),
        ("{url: 'https://u:hunter2@x/y'}", "must not hold a password"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(written: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        loads(f"data: {{source: a.csv}}\ntarget: y\nlineage: {written}\n")
    assert "hunter2" not in str(caught.value)


def test_addresses_of_sources_are_told_without_user_and_password() -> None:
    plain = {"type": "sql", "url": "postgresql://mis:${ENV:PW}@db:5432/shop", "table": "orders"}
    assert list(_sources(plain)) == [("postgresql://db:5432", "shop.orders")]
    both = {"type": "join", "sources": [plain, {"type": "csv", "path": ["a.csv", "b.csv"]}]}
    assert list(_sources(both)) == [("postgresql://db:5432", "shop.orders"), ("file", "a.csv"), ("file", "b.csv")]
