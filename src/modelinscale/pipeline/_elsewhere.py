"""What lies where model.yaml says that something was learned elsewhere: part of what goes into a step, so that other weights in the same folder are noticed."""

from typing import Any

from modelinscale.core.elsewhere import cut_by, digest, learned_from, taught
from modelinscale.core.files import told
from modelinscale.pipeline._place import Facts, Place, as_plain


def contents(place: Place, step: str, value: Any) -> Facts:
    """For a step's inputs: ``elsewhere`` with a digest for each local place that ``value`` (features, or a model) names; nothing where it names none.

    What is on the hub is told by its name and revision, which are among the settings. A place that is gone is taken to hold what it last held:
    the states and weights that came from it are kept, and what is done need not be done again.
    """
    found: dict[str, str] = {}
    for role, settings in taught(as_plain(value)):
        written = settings.get("path")
        if not isinstance(written, str):
            continue
        path, name = place.base / written, f"{role} {written}"
        with told(path, "read"):
            files = cut_by(path) if role == "tokenizer" else learned_from(path)
            found[name] = digest(files) if files else _last(place, step, name)
    return {"elsewhere": found} if found else {}


def _last(place: Place, step: str, name: str) -> str:
    made = place.newest(step)
    return "" if made is None else str(made.inputs.get("elsewhere", {}).get(name, ""))
