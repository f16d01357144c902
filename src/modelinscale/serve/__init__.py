"""Serving: packages over HTTP, with rows as JSON and with the Open Inference Protocol v2.

The process imports NumPy, ONNX Runtime and a parser; nothing that trains.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from modelinscale.core.errors import NotSupportedYet, UsageError
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration, Size

__all__ = ["Log", "Serve", "serve"]

Positive = Annotated[Duration, Field(gt=0)]


class Log(Settings):
    """The prediction log: what was asked and answered, one line a row, in files that the source ``predictions`` reads."""

    rows: bool | Annotated[float, Field(gt=0, le=1)] = True
    """Whether rows are logged; a number between 0 and 1 logs that share of the requests, chosen by their ids."""
    folder: Path | None = None
    """Where; a folder for each model is made in it. Left out: ``predictions`` in the store of the model.yaml; nowhere for a package served without one."""
    keep: Positive = 30 * 86400.0
    """How long a row stays, at least; up to an hour more, as files are removed whole."""
    segment: Size = Field(64 << 20, gt=0)
    """Bytes after which a file is closed and a new one begun; also done every hour."""


class Serve(Settings):
    """Address and limits of the server. Whatever exceeds a limit is refused with a status that says so (4xx, 503), never dropped silently."""

    host: str = Field("127.0.0.1", min_length=1)
    """The address to listen on. ``0.0.0.0`` makes the server reachable from other machines; it knows no passwords, so put it behind something that does."""
    port: int = Field(8080, ge=0, le=65535)
    """The port; 0 takes a free one."""
    workers: int = Field(1, ge=1)
    """Processes that answer. One so far; in a cluster run one server a core and let the service spread the load."""
    batch_rows: int = Field(256, ge=1)
    """Rows of requests that arrived at the same time and go through the model together, at most. Nobody waits for a batch to fill."""
    max_rows: int = Field(10_000, ge=1)
    """Rows in one request, at most."""
    max_body: Size = Field(16 << 20, gt=0)
    """Bytes of one request's body, at most, before and after unpacking."""
    max_waiting: Size = Field(256 << 20, gt=0)
    """Bytes of all bodies in memory together, at most; above that new ones get 503."""
    max_connections: int = Field(1000, ge=1)
    """Open connections, at most; one more gets 503."""
    timeout: Positive = 30.0
    """How long an answer may take once the request is there; then 503."""
    header_timeout: Positive = 10.0
    """How long the head of a request may take to arrive, from its first byte or the opening of the connection; then 408."""
    body_timeout: Positive = 60.0
    """How long the body of a request may take to arrive; then 408."""
    idle_timeout: Positive = 75.0
    """How long a connection stays open between requests."""
    drain: Duration = Field(20.0, ge=0)
    """When told to stop: how long requests in work may take to finish."""
    unready: Duration = Field(0.0, ge=0)
    """When told to stop: how long to go on taking requests while ``/v2/health/ready`` already says no, so that load balancers can turn away first."""
    log: Log = Log()
    """The prediction log."""


def serve(packages: Sequence[Path], settings: Serve, ready: Callable[[int], None] = lambda port: None) -> None:
    """Answers until SIGTERM or SIGINT, then finishes what is in work and returns; a second signal ends it at once.

    ``ready`` is called with the port once requests are welcome. Raises `PackageError` for a damaged package, `UsageError` for two of one name,
    `MisError` when the address cannot be had. Must be called in the main thread, which is where signals arrive.
    """
    if not packages:
        raise UsageError("there is no package to serve.", fix="Name a package folder, or run `mis run` first.")
    if settings.workers > 1:
        raise NotSupportedYet(f"serving with {settings.workers} processes is planned and not supported yet.", fix="Start several servers, a port each.")
    from modelinscale.serve._run import run

    run(packages, settings, ready)
