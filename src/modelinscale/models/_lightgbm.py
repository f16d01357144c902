"""LightGBM's Dataset and Booster without what its package imports beside them.

``import lightgbm`` imports scikit-learn (1.3 s of the 1.8 s of CPU time it costs) for wrappers that are not used here. This module loads
``lightgbm/basic.py`` under a private package name, with a ``compat.py`` that finds neither scikit-learn nor pandas. The public ``lightgbm`` and
``sklearn`` are not touched: a user's own import of them, before or after, gives the whole of both.
"""

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from modelinscale.models._threads import sleeping_threads

_ALIAS = "modelinscale.models._lightgbm_private"
_NOT_USED = ("sklearn", "pandas")


@cache
def lightgbm() -> ModuleType:
    """A module with ``Dataset``, ``Booster``, ``Sequence`` and ``train``, as in ``lightgbm``."""
    if "lightgbm" in sys.modules:
        return sys.modules["lightgbm"]
    with sleeping_threads():
        return _load()


class _Silent:
    """Where LightGBM's own lines go: ``verbosity`` does not reach all of its threads. Errors are raised all the same."""

    def info(self, line: str) -> None:
        """A line of no news."""

    def warning(self, line: str) -> None:
        """A line of advice on settings that are ours."""


def _load() -> ModuleType:
    found = importlib.util.find_spec("lightgbm")
    if found is None or found.origin is None:
        return importlib.import_module("lightgbm")  # raises with Python's own words
    package = ModuleType(_ALIAS)
    package.__path__ = [str(Path(found.origin).parent)]
    sys.modules[_ALIAS] = package
    try:
        _load_compat()
        basic, engine = importlib.import_module(f"{_ALIAS}.basic"), importlib.import_module(f"{_ALIAS}.engine")
        basic.register_logger(_Silent())
        package.__dict__.update(Dataset=basic.Dataset, Booster=basic.Booster, Sequence=basic.Sequence, train=engine.train)
        return package
    except (ImportError, AttributeError):
        # Another release, laid out in another way: then the whole package, at its full cost.
        for name in [n for n in sys.modules if n == _ALIAS or n.startswith(f"{_ALIAS}.")]:
            del sys.modules[name]
        return importlib.import_module("lightgbm")


def _load_compat() -> None:
    """Runs LightGBM's ``compat.py`` with an import statement of its own, which does not find what is not used; nobody else's import changes."""
    spec = importlib.util.find_spec(f"{_ALIAS}.compat")
    if spec is None or spec.loader is None:
        raise ImportError("lightgbm has no compat.py")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_but_for_what_is_not_used}
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def _import_but_for_what_is_not_used(
    name: str, globals: Mapping[str, object] | None = None, locals: Mapping[str, object] | None = None, fromlist: Sequence[str] = (), level: int = 0
) -> Any:
    if level == 0 and name.partition(".")[0] in _NOT_USED:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return __import__(name, globals, locals, fromlist, level)
