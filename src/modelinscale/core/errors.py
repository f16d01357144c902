"""Errors as small lessons: what happened, where, what was expected, what to do."""

from importlib import import_module
from types import ModuleType

from modelinscale.core.secrets import veil


class MisError(Exception):
    """Base of every error a user can cause. ``fix`` says what to do; both are shown."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        self.message, self.fix = veil(message), veil(fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()


class UsageError(MisError):
    """A command or call was made in a way that cannot work; nothing was done."""

    exit_code = 2


class SpecError(UsageError, ValueError):
    """A mistake in model.yaml or in settings. Also a ``ValueError``, so that pydantic gathers it with the others."""


class SourceError(MisError):
    """A source cannot be read."""


class Unreachable(SourceError):
    """A source does not answer now and may do so later: who follows it waits and tries again."""


class NothingYet(SourceError):
    """A source is there and empty, so that not even its columns can be told: who follows it waits for its first rows."""


class DataError(MisError):
    """Rows or columns cannot be used as asked: empty, one class, a leaking split."""


class LakeError(MisError):
    """The lake table refused: damaged, foreign, or changed under us."""


class StoreError(MisError):
    """Bytes cannot be read or written: no space, no permission, held by another run."""


class InUse(StoreError):
    """Another process holds what is wanted: waiting for its end may help."""


class ComputeError(MisError):
    """The place where work runs cannot be reached, lost its workers, or is not fit for the work."""


class ModelError(MisError):
    """A model cannot learn or answer from what it was given."""


class ExportError(MisError):
    """The artefact would not answer as the training code does, so it was not written."""


class PackageError(MisError):
    """A package is damaged, incomplete, of another format, or not one of ours."""


class RequestError(MisError):
    """A request a client must change: answered with 4xx, never 5xx."""

    def __init__(self, message: str, *, fix: str = "", status: int = 400) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class NotSupportedYet(MisError):
    """An honest refusal: this combination is planned, or makes no sense, and nothing was pretended."""


def needs(module: str, *, extra: str) -> ModuleType:
    """The module, imported now; if it is missing, an error that says how to install it.

    >>> needs("json", extra="none").dumps([1])
    '[1]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UsageError(f"This needs the package {module!r}, which is not installed.", fix=f"pip install 'modelinscale[{extra}]'") from error


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`` Did you mean 'x'?`` when one of ``known`` is close to ``word``, else the empty string.

    >>> did_you_mean("numbr", ["number", "text"])
    " Did you mean 'number'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
