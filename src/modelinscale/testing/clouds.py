"""The small object stores for tests, by the scheme of their addresses. Each checks who asks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from modelinscale.testing.az import az_server
from modelinscale.testing.buckets import Server
from modelinscale.testing.gs import gs_server
from modelinscale.testing.s3 import s3_server

CLOUDS: dict[str, Callable[..., AbstractContextManager[Server]]] = {"az": az_server, "gs": gs_server, "s3": partial(s3_server, signed=True)}
"""``with CLOUDS["gs"]() as server``."""
