"""What a server says about itself: OpenAPI, metrics, the page."""

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from modelinscale.serve._stats import Histogram, Stats
from modelinscale.testing.packages import ROWS, write_package
from modelinscale.testing.servers import Running


def test_the_description_is_valid_openapi_and_names_every_address(server: Running) -> None:
    document = server.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    for path in ("/predict", "/predict/multiclass", "/v2", "/v2/health/ready", "/v2/models/regression/infer", "/v2/models/binary/versions/3", "/metrics", "/"):
        assert path in document["paths"]
    for path, methods in document["paths"].items():
        if "get" in methods:
            assert server.get(path).status_code == 200, path


def test_requests_and_answers_are_as_described(server: Running) -> None:
    document = server.get("/openapi.json").json()

    def checked(value: Any, schema: dict[str, Any]) -> bool:
        return bool(Draft202012Validator({**schema, "components": document["components"]}).is_valid(value))

    for name in ("binary", "multiclass", "regression"):
        post = document["paths"][f"/predict/{name}"]["post"]
        asked = post["requestBody"]["content"]["application/json"]
        assert checked(asked["example"], asked["schema"])
        assert checked({"rows": list(ROWS)}, asked["schema"])
        assert not checked({"rows": [{"amount": [1]}]}, asked["schema"])
        assert not checked({"rows": [{"nothing": 1}]}, asked["schema"])
        reply = server.post(f"/predict/{name}", {"rows": list(ROWS)}).json()
        assert checked(reply, post["responses"]["200"]["content"]["application/json"]["schema"])
    refused = server.post("/predict", {"rows": [{"count": "x"}]}).json()
    assert checked(refused, document["components"]["schemas"]["Error"])
    assert checked(server.get("/v2/models/binary").json(), document["components"]["schemas"]["ModelMetadata"])


def test_the_page_shows_columns_examples_and_loads_nothing(server: Running) -> None:
    for path in ("/", "/docs"):
        reply = server.get(path)
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'sha256-" in policy
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", reply.text)
        for word in ("amount", "place", "multiclass", "2024-05-01T13:00:00", "Paris"):
            assert word in reply.text


def test_what_a_package_holds_never_becomes_markup(start: Any, tmp_path: Path) -> None:
    assert any("<b>" in str(row["city"]) for row in ROWS)
    package = write_package(tmp_path / "p", labels=("</script><script>alert(1)</script>", "b"))
    with start(package) as up:
        text = up.get("/").text
    assert text.count("<script") == 2
    assert "<b>" not in text
    assert "\\u003c/script>" in text


def test_metrics_count_requests_rows_and_batches(start: Any, packages: dict[str, Path]) -> None:
    with start(packages["binary"]) as up:
        up.post("/predict", {"rows": [{}] * 3})
        up.post("/predict", {"rows": [{"count": "x"}]})
        up.get("/nowhere")
        up.get("/v2/models/anything")
        reply = up.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = reply.text.splitlines()
    for line in (
        'mis_requests_total{route="/predict",status="200"} 1',
        'mis_requests_total{route="/predict",status="422"} 1',
        'mis_requests_total{route="none",status="404"} 2',
        'mis_rows_total{model="binary"} 3',
        'mis_batch_rows_bucket{model="binary",le="4"} 1',
        'mis_request_seconds_count{route="/predict"} 2',
        "mis_requests_in_flight 0",
        "mis_ready 1",
        'mis_model_info{model="binary",version="3",identity="0123456789abcdef",family="linear"} 1',
    ):
        assert line in lines, line
    form = re.compile(r'(# (HELP|TYPE) .+|[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [0-9.e+-]+)')
    assert [line for line in lines if not form.fullmatch(line)] == []


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.add(value)
    assert histogram.lines("h", {"a": "b"}) == [
        'h_bucket{a="b",le="1"} 2',
        'h_bucket{a="b",le="2"} 3',
        'h_bucket{a="b",le="+Inf"} 4',
        'h_sum{a="b"} 12',
        'h_count{a="b"} 4',
    ]


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb"])
def test_labels_are_escaped(text: str) -> None:
    stats = Stats()
    shown = stats.text([{"model": text}], in_flight=0, connections=0, ready=True, uptime_s=1, logged={"a": (2, 1)})
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    assert f'mis_model_info{{model="{escaped}"}} 1' in shown
