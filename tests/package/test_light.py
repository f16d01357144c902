"""What is served is light, and a small device can run it."""

import subprocess
import sys
from pathlib import Path

from modelinscale.testing.packages import write_package

HEAVY = ("torch", "lightgbm", "pyarrow", "polars", "ray", "mlflow", "onnx", "lance", "sklearn", "scipy", "pandas", "sqlalchemy")


def test_opening_and_asking_a_package_imports_nothing_heavy_and_connects_nowhere(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "p")
    code = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"a connection was tried: {{args}}")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from modelinscale.package import open_package
package = open_package({str(folder)!r})
assert package.predict([{{"amount": 250.0}}])[0]["prediction"] is True
heavy = set({HEAVY!r}) & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
