"""Checks and cleaners as they stand in model.yaml: for each column a name (``present``), a mapping (``{between: [0, 10]}``), or a list of these."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.kinds import Kind, load, names

K = TypeVar("K", bound=Kind)


def parse(base: type[K], value: Mapping[str, Any], *, twice: bool) -> dict[str, tuple[K, ...]]:
    """The kinds by column, in the order they are written; ``twice``: one may come again. Raises `SpecError` that lists every mistake in it."""
    from pydantic import ValidationError

    found: dict[str, tuple[K, ...]] = {}
    mistakes: list[SpecError] = []
    for column, written in value.items():
        kinds: list[K] = []
        for one in written if isinstance(written, list | tuple) else [written]:
            try:
                kinds += _parse(base, one)
            except SpecError as error:
                mistakes.append(SpecError(f"{column}: {error.message}", fix=error.fix))
            except ValidationError as error:
                mistakes += [_told(str(column), detail, _refusing(base, one, error.title)) for detail in error.errors()]
        types = [c.type for c in kinds]
        doubled = sorted({t for t in types if types.count(t) > 1})
        if doubled and not twice:
            mistakes.append(SpecError(f"{column}: `{doubled[0]}` is there twice.", fix="Keep one of them."))
        found[str(column)] = tuple(kinds)
    tell(mistakes)
    return found


def _refusing(base: type[K], value: Any, title: str) -> type[Kind]:
    """Which of the kinds that ``value`` names refused it; ``title``: its class's name."""
    words = [value["type"]] if isinstance(value, Mapping) and "type" in value else list(value) if isinstance(value, Mapping) else [value]
    return next((found for word in words if word in names(base.folder) and (found := load(base.folder, word)).__name__ == title), base)


def _told(column: str, detail: Any, cls: type[Kind]) -> SpecError:
    """One thing that pydantic refused, in our words."""
    place, word = ".".join([column, *map(str, detail["loc"])]), getattr(cls, "type", cls.word())
    cause, message = detail.get("ctx", {}).get("error"), detail["msg"][:1].lower() + detail["msg"][1:]
    if isinstance(cause, SpecError):
        return SpecError(f"{place}: {cause.message}", fix=cause.fix)
    if detail["type"] == "extra_forbidden":
        known = list(cls.model_fields) if len(detail["loc"]) == 1 else []
        near = did_you_mean(str(detail["loc"][-1]), known)
        return SpecError(f"{place}: `{word}` does not know this key.{near}", fix=f"Known here: {', '.join(known)}." if known else "")
    if detail["type"] == "missing":
        return SpecError(f"{place}: `{word}` requires this, and it is missing.")
    if detail["type"].startswith("value_error"):
        return SpecError(f"{place}: {message.removeprefix('value error, ')}.")
    return SpecError(f"{place}: expected {message.removeprefix('input should be ')}, found {detail['input']!r:.60}.")


def _parse(base: type[K], value: Any) -> list[K]:
    known = names(base.folder)
    if isinstance(value, base):
        return [value]
    if isinstance(value, str):
        return [_short(base, value, True)]
    if isinstance(value, Mapping) and "type" in value:
        return [base.parse(value)]
    if isinstance(value, Mapping) and value:
        common = {name: value[name] for name in getattr(base, "common", ()) if name in value}
        named = {name: argument for name, argument in value.items() if name not in common}
        off = [str(name) for name, argument in named.items() if argument is False and not getattr(load(base.folder, str(name)), "takes_false", False)]
        if off:
            raise SpecError(f"`{off[0]}: false` {'checks' if base.word() == 'check' else 'does'} nothing.", fix=f"Remove `{off[0]}`.")
        made = [_short(base, str(name), argument) for name, argument in named.items()]
        return [one.but(**common) for one in made] if common else made
    if value is None or value in ({}, []):
        raise SpecError(f"no {base.word()} is named.", fix=f"Known: {', '.join(known)}.")
    raise SpecError(f"expected a {base.word()}'s name or `name: settings`, found {value!r}.", fix=f"Known: {', '.join(known)}.")


def _short(base: type[K], name: str, argument: Any) -> K:
    found = load(base.folder, name)
    assert issubclass(found, base)
    return cast(K, found.short(argument))  # type: ignore[attr-defined]


def fields(cls: type[K], value: object) -> K:
    """A kind from what stands behind its name where that has no shorter form: ``true``, or its fields. Raises `SpecError`."""
    if value is True or value is None:
        value = {}
    own = [name for name in cls.model_fields if name not in getattr(cls, "common", ())]
    if not isinstance(value, Mapping):
        raise SpecError(f"`{cls.type}` cannot be {value!r}.", fix=f"Write `{cls.type}: true`." if not own else f"Fields: {', '.join(own)}.")
    return cls.model_validate(dict(value))


def tell(mistakes: list[SpecError]) -> None:
    """Raises them, if there are any, as one."""
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise SpecError("\n".join(f"  {m}" for m in mistakes).lstrip())
