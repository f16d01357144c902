"""What the server answers: addresses, the functions behind them, and errors as their readers expect them."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from modelinscale.core.errors import RequestError, did_you_mean
from modelinscale.core.logs import log
from modelinscale.serve import _body, _oip, _oip_form
from modelinscale.serve._batch import Batcher, Work
from modelinscale.serve._log import PredictionLog
from modelinscale.serve._message import BINARY, Reply, Request, Route
from modelinscale.serve._openapi import openapi
from modelinscale.serve._page import page
from modelinscale.serve._stats import CONTENT_TYPE, Stats

if TYPE_CHECKING:
    from modelinscale.package import Answer, Package
    from modelinscale.serve import Serve
    from modelinscale.serve._server import Server

RETRY_S = 1
"""What ``Retry-After`` says."""
_EXAMPLE = '{"rows": [{"column": value, ...}, ...]}'

_log = log(__name__)


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /predict``."""

    rows: list[dict[str, Any]]


_decoder = msgspec.json.Decoder(Rows)


class Served:
    """One package on a server."""

    def __init__(self, package: "Package", batcher: Batcher, translator: _oip.Translator, examples: Sequence[Mapping[str, Any]]) -> None:
        self.package = package
        self.batcher = batcher
        self.translator = translator
        self.examples = examples
        self.version = _oip_form.version_of(package)
        self.about = {"name": package.manifest.name, "version": package.manifest.version}


class Application:
    """The routes. The first package answers ``/predict``; every package answers at ``/predict/NAME`` and ``/v2/models/NAME``."""

    server: "Server"
    """Set once the server exists."""

    def __init__(self, packages: Mapping[str, "Package"], settings: "Serve", stats: Stats, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._stats = stats
        self._started = time.monotonic()
        folder = settings.log.folder
        self._logs = {name: PredictionLog(folder, package, settings.log) for name, package in packages.items()} if folder and settings.log.rows else {}
        self._models = {
            name: Served(
                package,
                Batcher(package, stats, loop, batch_rows=settings.batch_rows, log=self._logs.get(name)),
                _oip.Translator(package, max_rows=settings.max_rows),
                golden_rows(package),
            )
            for name, package in packages.items()
        }
        self._first = next(iter(self._models))
        examples = {name: served.examples for name, served in self._models.items()}
        self._openapi = Reply(200, _body.encode(openapi(packages, examples, max_rows=settings.max_rows)))
        self._page = page(packages, examples)
        self._fixed = {
            "/": Route("/", {"GET": self._get_page}),
            "/docs": Route("/docs", {"GET": self._get_page}),
            "/openapi.json": Route("/openapi.json", {"GET": lambda request: request.answer(self._openapi)}),
            "/metrics": Route("/metrics", {"GET": self._get_metrics}),
            "/predict": Route("/predict", {"POST": self._predict}, self._first),
            "/v2": Route("/v2", {"GET": lambda request: request.answer(_reply(_oip_form.server_metadata()))}),
            "/v2/health/live": Route("/v2/health/live", {"GET": lambda request: request.answer(_reply({"live": True}))}),
            "/v2/health/ready": Route("/v2/health/ready", {"GET": self._get_ready}),
        }

    def warm(self) -> None:
        """Answers known rows, so that the first client does not pay for first times and the pace is known."""
        for served in self._models.values():
            served.batcher.warm(list(served.examples))

    def close(self) -> None:
        """Ends the threads."""
        for served in self._models.values():
            served.batcher.close()
        for one in self._logs.values():
            one.close()

    # Finding what answers.

    def route(self, request: Request) -> Route:
        """See `modelinscale.serve._server.App`."""
        path = request.path
        found = self._fixed.get(path) or self._under(path)
        method = "GET" if request.method == "HEAD" else request.method
        if method not in found.methods:
            request.route = found
            raise RequestError(f"{request.method[:20]} is not answered at {found.name}.", fix=f"Send {found.allow}.", status=405)
        if method == "POST":
            request.route = found
            if b"content-length" not in request.headers and b"transfer-encoding" not in request.headers:
                raise RequestError("a POST needs a body and its length.", fix="Send the header Content-Length, or Transfer-Encoding: chunked.", status=411)
            _body.check_coding(request)
            _body.check_json_type(request, also=(BINARY,) if b"inference-header-content-length" in request.headers else ())
        return found

    def _under(self, path: str) -> Route:
        """Routes that name a model."""
        parts = [unquote(p) for p in path.split("/")][1:]
        match parts:
            case ["predict", name]:
                return Route("/predict", {"POST": self._predict}, self._known(name))
            case ["v2", "models", name, *rest]:
                known = self._known(name)
                version = None
                if len(rest) >= 2 and rest[0] == "versions":
                    version, rest = self._known_version(known, rest[1]), rest[2:]
                if not rest:
                    return Route("/v2/models/NAME", {"GET": self._get_model}, known, version)
                if rest == ["ready"]:
                    return Route("/v2/models/NAME/ready", {"GET": self._get_model_ready}, known, version)
                if rest == ["infer"]:
                    return Route("/v2/models/NAME/infer", {"POST": self._infer}, known, version)
        shown = path if len(path) <= 80 else f"{path[:80]}…"
        raise RequestError(f"there is nothing at {shown}.{did_you_mean(path[:100], list(self._fixed))}", fix="See /docs.", status=404)

    def _known(self, name: str) -> str:
        if name not in self._models:
            raise RequestError(
                f"no model {name[:80]!r} is served here.{did_you_mean(name[:80], list(self._models))}", fix=f"Served: {', '.join(self._models)}.", status=404
            )
        return name

    def _known_version(self, name: str, version: str) -> str:
        served = self._models[name].version
        if version != served:
            raise RequestError(
                f"model {name!r} is served in version {served}, not {version[:80]!r}.", fix=f"Ask for version {served}, or for none.", status=404
            )
        return version

    # Answering.

    def handle(self, request: Request) -> None:
        """See `modelinscale.serve._server.App`."""
        assert request.route is not None
        method = "GET" if request.method == "HEAD" else request.method
        try:
            request.route.methods[method](request)
        except RequestError as error:
            request.answer(self.refusal(request, error))
        except Exception:  # noqa: BLE001 — our mistake: this client is told so and the others go on being served
            _log.exception("a request could not be answered", extra={"request": request.id, "route": request.route.name})
            request.answer(self.refusal(request, RequestError("the server failed.", fix=f"Tell whoever runs it: id {request.id}.", status=500)))

    def refusal(self, request: Request | None, error: RequestError) -> Reply:
        """See `modelinscale.serve._server.App`."""
        headers = b""
        if error.status == 405 and request is not None and request.route is not None:
            headers = b"allow: %s\r\n" % request.route.allow.encode()
        elif error.status == 415:
            headers = b"accept-encoding: %s\r\n" % _body.CODINGS.encode()
        elif error.status == 503:
            headers = b"retry-after: %d\r\n" % RETRY_S
        if request is not None and request.path.startswith("/v2"):
            # The protocol has one status for what a client must change, and one field.
            status = 400 if error.status == 422 else error.status
            return Reply(status, _body.encode({"error": str(error)}), headers=headers)
        told = {"message": error.message, "fix": error.fix or "See /docs for what is expected.", "id": request.id if request is not None else None}
        return Reply(error.status, _body.encode({"error": told}), headers=headers)

    def _predict(self, request: Request) -> None:
        served = self._served(request)
        rows = _body.decode(_decoder, _body.content(request, self._settings.max_body), _EXAMPLE).rows
        n_rows = len(rows)
        if n_rows > self._settings.max_rows:
            raise RequestError(
                f"{n_rows} rows are more than the {self._settings.max_rows} this server takes at once.", fix="Send them in several requests.", status=413
            )

        def write(answer: "Answer") -> Reply:
            return _reply({"id": request.id, "model": served.about, "predictions": served.package.shown(answer)})

        served.batcher.put(Work(request, n_rows, rows, None, write, lambda error: self.refusal(request, error)))

    def _infer(self, request: Request) -> None:
        served = self._served(request)
        body = _body.content(request, self._settings.max_body)
        asked = served.translator.read(body, request.headers.get(b"inference-header-content-length"))

        def write(answer: "Answer") -> Reply:
            return served.translator.write(asked, answer)

        served.batcher.put(Work(request, asked.n_rows, None, asked.tensors, write, lambda error: self.refusal(request, error)))

    def _served(self, request: Request) -> Served:
        """The model of the route. Raises `RequestError` (503) when its queue is so long that the answer would come too late."""
        assert request.route is not None
        served = self._models[request.route.model or self._first]
        if served.batcher.waiting_s > self._settings.timeout:
            raise RequestError("more requests are waiting than can be answered in time.", fix=f"Try again in {RETRY_S} s.", status=503)
        return served

    def _get_page(self, request: Request) -> None:
        request.answer(self._page)

    def _get_ready(self, request: Request) -> None:
        ready = not self.server.draining
        request.answer(_reply({"ready": ready}, 200 if ready else 503))

    def _get_model(self, request: Request) -> None:
        assert request.route is not None
        request.answer(_reply(_oip_form.model_metadata(self._models[request.route.model or ""].package)))

    def _get_model_ready(self, request: Request) -> None:
        assert request.route is not None
        ready = not self.server.draining
        request.answer(_reply({"name": request.route.model, "ready": ready}, 200 if ready else 503))

    def _get_metrics(self, request: Request) -> None:
        models = [
            {"model": n, "version": s.version, "identity": s.package.manifest.identity, "family": s.package.manifest.family} for n, s in self._models.items()
        ]
        text = self._stats.text(
            models,
            in_flight=self.server.working - 1,  # this one does not count
            connections=self.server.n_connections,
            ready=not self.server.draining,
            uptime_s=time.monotonic() - self._started,
            logged={name: (one.written_rows, one.dropped_rows) for name, one in self._logs.items()},
        )
        request.answer(Reply(200, text.encode(), CONTENT_TYPE))


def golden_rows(package: "Package") -> list[dict[str, Any]]:
    """Rows the package is known to answer, for examples and for warming up."""
    if package.folder is None:
        return []
    rows: list[dict[str, Any]] = json.loads((package.folder / "golden.json").read_bytes())["rows"]
    return rows


def _reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, _body.encode(value))
