"""Model In Scale: from raw rows to a served model that keeps learning, from one file.

``import modelinscale as mis`` costs under 0.1 s of CPU: everything heavier is imported where it is first used.
"""

import os
from typing import TYPE_CHECKING

# Several dependencies report to their makers by default, and some read these names at import only,
# so they are set before any of them can be imported. Nothing here connects out unless a user's file names the address.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["DO_NOT_TRACK"] = "true"

if TYPE_CHECKING:
    from modelinscale.api import Project as Project
    from modelinscale.package import Package as Package
    from modelinscale.package import open_package as open_package

__version__ = "0.1.0"
__all__ = ["Package", "Project", "__version__", "open_package"]

_HOME = {"Project": "modelinscale.api", "Package": "modelinscale.package", "open_package": "modelinscale.package"}


def __getattr__(name: str) -> object:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'modelinscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
