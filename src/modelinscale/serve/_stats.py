"""Counts for Prometheus: cheap to add to, put into words only when asked."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values fell at or below each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Mapping[str, str]) -> list[str]:
        """As Prometheus reads it: cumulative buckets, sum and count."""
        total, lines = 0, []
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            total += count
            lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf' if bound is None else f'{bound:g}'})} {total}")
        return [*lines, f"{name}_sum{_labels(labels)} {self._sum:.9g}", f"{name}_count{_labels(labels)} {total}"]


class Stats:
    """What happened since the server started. Labels come from fixed sets only: a client cannot make them grow."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, Histogram] = {}
        self._rows: dict[str, int] = {}
        self._batches: dict[str, Histogram] = {}
        self._batch_seconds: dict[str, Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request got its answer, so long after its last byte had come."""
        key = (route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = Histogram(SECONDS)
        histogram.add(seconds)

    def ran(self, model: str, n_rows: int, seconds: float) -> None:
        """One batch went through a model."""
        if model not in self._batches:
            self._batches[model], self._batch_seconds[model] = Histogram(ROWS), Histogram(SECONDS)
        self._rows[model] = self._rows.get(model, 0) + n_rows
        self._batches[model].add(n_rows)
        self._batch_seconds[model].add(seconds)

    def text(
        self,
        models: Sequence[Mapping[str, str]],
        *,
        in_flight: int,
        connections: int,
        ready: bool,
        uptime_s: float,
        logged: Mapping[str, tuple[int, int]],
    ) -> str:
        """All of it in Prometheus' text format 0.0.4. ``models``: labels of each model served (name, version, identity, family).

        ``logged``: rows written to and rows missing in the prediction log of each model that has one.
        """
        lines: list[str] = []

        def metric(name: str, kind: str, words: str, *rows: str) -> None:
            lines.extend((f"# HELP {name} {words}", f"# TYPE {name} {kind}", *rows))

        def counted(name: str, histograms: Mapping[str, Histogram], label: str) -> list[str]:
            return [row for key in sorted(histograms) for row in histograms[key].lines(name, {label: key})]

        requests = [f"mis_requests_total{_labels({'route': r, 'status': str(s)})} {n}" for (r, s), n in sorted(self._requests.items())]
        metric("mis_requests_total", "counter", "Requests answered, by route and HTTP status.", *requests)
        metric(
            "mis_request_seconds", "histogram", "Time from the last byte of a request to its answer.", *counted("mis_request_seconds", self._seconds, "route")
        )
        rows = [f"mis_rows_total{_labels({'model': m})} {n}" for m, n in sorted(self._rows.items())]
        metric("mis_rows_total", "counter", "Rows answered by a model.", *rows)
        metric("mis_batch_rows", "histogram", "Rows that went through a model together.", *counted("mis_batch_rows", self._batches, "model"))
        metric("mis_batch_seconds", "histogram", "Time a batch took, from cells to answers.", *counted("mis_batch_seconds", self._batch_seconds, "model"))
        rows = [f"mis_log_rows_total{_labels({'model': m})} {n}" for m, (n, _) in sorted(logged.items())]
        metric("mis_log_rows_total", "counter", "Rows written to the prediction log.", *rows)
        rows = [f"mis_log_dropped_rows_total{_labels({'model': m})} {n}" for m, (_, n) in sorted(logged.items())]
        metric("mis_log_dropped_rows_total", "counter", "Rows answered that the prediction log lacks: its queue or its disk was full.", *rows)
        metric("mis_requests_in_flight", "gauge", "Requests read and not answered yet.", f"mis_requests_in_flight {in_flight}")
        metric("mis_connections", "gauge", "Open connections.", f"mis_connections {connections}")
        metric("mis_ready", "gauge", "1 while new requests are welcome, 0 while stopping.", f"mis_ready {int(ready)}")
        metric("mis_uptime_seconds", "gauge", "Time since the server began to listen.", f"mis_uptime_seconds {uptime_s:.3f}")
        metric("mis_model_info", "gauge", "The models served; always 1.", *(f"mis_model_info{_labels(m)} 1" for m in models))
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
