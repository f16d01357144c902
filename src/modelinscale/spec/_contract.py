"""``data.contract``: a contract of the Open Data Contract Standard taken into a model.yaml; what the file says itself wins."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SpecError
from modelinscale.core.logs import log

if TYPE_CHECKING:
    from modelinscale.data.odcs import Imported


def read_contract(path: Path, table: str | None = None, *, named: str = "") -> "Imported":
    """A contract file. ``named``: the key that names it, if one does. Raises `SpecError` when it cannot be read or is none."""
    import yaml

    from modelinscale.data.odcs import load

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpecError(f"the contract {path} cannot be read: {reason}.", fix=f"Check the path under `{named}`." if named else "Check the path.") from error
    except yaml.YAMLError as error:
        raise SpecError(f"the contract {path} is not YAML: {' '.join(str(error).split())}.", fix="Mend it, or export it again.") from error
    try:
        return load(document, table)
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", fix=error.fix) from error


def merged(document: Any, base: Path) -> Any:
    """The plain model.yaml with its contract's part taken in: types, key, checks and personal columns that it does not name itself."""
    data = document.get("data") if isinstance(document, Mapping) else None
    named = data.get("contract") if isinstance(data, Mapping) else None
    if named is None:
        return document
    settings = {"file": named} if isinstance(named, str) else named
    if not isinstance(settings, Mapping) or not isinstance(settings.get("file"), str) or set(settings) - {"file", "table"}:
        return document  # told with its place when the settings are checked
    found = read_contract(base / settings["file"], settings.get("table"), named="data.contract")
    for note in found.told:
        log(__name__).warning("contract", extra={"note": note})
    assert isinstance(data, Mapping)
    checks = _checks(found.checks, data.get("checks") or {})
    parts: dict[str, Any] = {"columns": {**_uncast(found.columns, data.get("clean")), **(data.get("columns") or {})}, "checks": checks}
    parts["personal"] = {**found.personal, **(data.get("personal") or {})}
    parts["key"] = data.get("key") or list(found.key)
    return {**document, "data": {**data, **{name: part for name, part in parts.items() if part or name in data}}}


def _uncast(columns: Mapping[str, str], clean: Any) -> dict[str, str]:
    """Types of columns that cleaning does not make itself."""
    own = (
        {name for name, steps in clean.items() if any(word in repr(steps) for word in ("'cast'", "'units'", "'extract'"))}
        if isinstance(clean, Mapping)
        else set()
    )
    return {name: kind for name, kind in columns.items() if name not in own}


def _checks(theirs: Mapping[str, list[Any]], ours: Any) -> Any:
    """Both, column by column; of one type of check only ours."""
    if not isinstance(ours, Mapping):
        return ours
    found = dict(ours)
    for column, wanted in theirs.items():
        own = ours.get(column)
        listed = list(own) if isinstance(own, list | tuple) else [] if own is None else [own]
        known = {word for one in listed for word in ([one] if isinstance(one, str) else one if isinstance(one, Mapping) else [])}
        known |= {"at_least", "at_most"} if "between" in known else set()
        known |= {"between"} if known & {"at_least", "at_most", "positive"} else set()
        found[column] = [*listed, *(one for one in wanted if not known.intersection([one] if isinstance(one, str) else one))]
    return found
