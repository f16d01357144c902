"""Runs the benchmarks one after the other, saying what is left out and why.

python benchmarks/run.py   what `make bench` runs; the 5 GB file of memory.py is made 0.5 GB
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import MIS
from _real import HOME as REAL

HERE = Path(__file__).parent


def main() -> int:
    """The number of benchmarks that failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        example = HERE.parent / "examples" / "diabetes" / "model.yaml"
        (Path(folder) / "model.yaml").write_bytes(example.read_bytes())
        subprocess.run([MIS, "run", "-q", "-f", folder], check=True)
        todo: list[tuple[str, ...]] = [
            ("cold.py", str(Path(folder) / ".mis" / "packages" / "diabetes" / "1")),
            ("fraud.py",),
            ("memory.py", "--gigabytes", "0.5"),
            ("faults.py", "--kills", "20"),
        ]
        if REAL.is_dir():
            todo += [("real_sets.py",), ("parity.py",)]
        else:
            print("real_sets.py, parity.py: left out, the real data sets are not here (see CONTRIBUTING.md)")
        for script, *words in todo:
            start = time.perf_counter()
            code = subprocess.run([sys.executable, str(HERE / script), *words], check=False).returncode
            print(f"{script}: {'done' if code == 0 else f'FAILED ({code})'} in {time.perf_counter() - start:.0f} s", flush=True)
            failed += code != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
