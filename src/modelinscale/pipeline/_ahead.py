"""What later steps import, imported on a second core while the first ones wait for disks and native code."""

import threading
from importlib import import_module

from modelinscale.core.logs import log

MODULES = ("scipy.sparse", "modelinscale.models.linear", "onnx", "onnxruntime", "modelinscale.evaluate._report", "modelinscale.export._parity", "sqlite3")
"""In the order in which they are needed. On a small table importing is a third of a run's work."""


def import_ahead() -> None:
    """Starts importing in a thread and returns. Whoever needs a module meanwhile waits for it (import locks); what fails here fails again there."""
    threading.Thread(target=_import, name="import-ahead", daemon=True).start()


def _import() -> None:
    for name in MODULES:
        try:
            import_module(name)
        except ImportError as error:
            log(__name__).debug("not imported ahead", extra={"name_of_module": name, "reason": str(error)})
