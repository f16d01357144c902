"""What the stores in buckets share: settings, and the folder of this machine through which they are worked on."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from modelinscale.core.errors import needs
from modelinscale.core.secrets import Address
from modelinscale.core.units import Duration
from modelinscale.store import Located, Store, checked
from modelinscale.store._objects import Remote


class Bucket(Store):
    """A place in a bucket."""

    scheme: ClassVar[str]

    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
    """The bucket's name."""
    prefix: str = ""
    """Under which everything lies in the bucket: ``teams/a``."""
    cache: Path = Path(".mis")
    """A folder of this machine that holds copies, taken from where model.yaml lies. It may be removed: it is filled again."""
    lease: Annotated[Duration, Field(ge=2)] = 60.0
    """After so long without a sign of life another machine takes over a lock."""
    options: dict[str, Address] = {}
    """More, in the words of Rust's object_store: ``{aws_server_side_encryption: aws:kms}``; secrets by reference."""

    @field_validator("cache")
    @classmethod
    def _home(cls, cache: Path) -> Path:
        return cache.expanduser()

    @field_validator("prefix")
    @classmethod
    def _plain(cls, prefix: str) -> str:
        prefix = prefix.strip("/")
        return "/".join(checked(tuple(prefix.split("/")))) if prefix else ""

    @abstractmethod
    def access(self) -> dict[str, str]:
        """What the settings say of how to reach the bucket, in object_store's words."""

    @cached_property
    def _at(self) -> Remote:
        needs("obstore", extra="objects")
        url = f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        return Remote(url, {**self.access(), **self.options}, self.cache, self.lease)

    def uri(self, *parts: str) -> str:
        return Located("/".join((self._at.url, *checked(parts))), {**self.access(), **self.options}, self.cache.joinpath("beside", *parts))

    def path(self, *parts: str) -> Path:
        inner = tuple("/".join(checked(parts)).split("/")) if parts else ()
        if inner:
            self._at.look() if self._at.is_shared(inner) else self._at.fetch(inner)
        return self.cache.joinpath(*parts)

    def publish(self, *parts: str) -> AbstractContextManager[Path]:
        return self._at.publish(checked(parts))

    def lock(self, *parts: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
        return self._at.lock(checked(parts), wait_s)

    def list(self, *parts: str) -> Iterator[str]:
        yield from self._at.names(checked(parts))

    def discard(self, *parts: str) -> None:
        self._at.discard(checked(parts))

    def shared(self, wait_s: float = 600.0) -> AbstractContextManager[None]:
        return self._at.shared(wait_s)


def given(**settings: str | None) -> dict[str, str]:
    """Those that are given."""
    return {name: value for name, value in settings.items() if value is not None}


def over(endpoint: str | None) -> dict[str, str]:
    """What an endpoint needs said: that it is plain HTTP."""
    return {"allow_http": "true"} if endpoint is not None and endpoint.startswith("http://") else {}
