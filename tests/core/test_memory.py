"""What there is, what is needed, and a refusal in time."""

from pathlib import Path

import pytest

from modelinscale.core import memory
from modelinscale.core.errors import DataError
from modelinscale.testing import waits

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A made-up /proc and /sys/fs/cgroup: 8,000 MiB free."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 16384000 kB\nMemAvailable: {8000 * 1024} kB\n")
    (proc / "self" / "cgroup").write_text("0::/box/inner\n")
    cgroups.mkdir()
    return proc, cgroups


def group(folder: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_a_container_it_is_what_the_machine_has_free(machine: tuple[Path, Path]) -> None:
    assert memory.available(*machine) == 8000 * MIB


def test_a_container_gives_what_it_leaves_with_files_that_can_be_let_go(machine: tuple[Path, Path]) -> None:
    group(machine[1] / "box" / "inner", V2, "max", 0, "")
    group(machine[1] / "box", V2, str(1000 * MIB), 700 * MIB, f"inactive_file {100 * MIB}\n")
    assert memory.available(*machine) == 400 * MIB


def test_inside_a_container_the_group_stands_at_the_root(machine: tuple[Path, Path]) -> None:
    group(machine[1], V2, str(2000 * MIB), 500 * MIB, "")
    assert memory.available(*machine) == 1500 * MIB


def test_the_older_groups_are_read_too(machine: tuple[Path, Path]) -> None:
    (machine[0] / "self" / "cgroup").write_text("4:memory:/box\n3:cpu,cpuacct:/box\n")
    group(machine[1] / "memory" / "box", V1, str(1200 * MIB), 1000 * MIB, f"total_inactive_file {50 * MIB}\n")
    group(machine[1] / "memory", V1, str((1 << 63) - 4096), 0, "")
    assert memory.available(*machine) == 250 * MIB


def test_a_budget_leaves_room_beside_the_libraries() -> None:
    assert memory.room(2 << 30) == (2 << 30) - memory.BASE_BYTES
    assert memory.budget(1 << 30) == 1 << 30
    assert memory.budget(None) > memory.held() > 0


def test_work_that_does_not_fit_is_refused_before_it_begins() -> None:
    need = memory.Need("train trees", 3 << 30, "100,000,000 rows x 12 columns", "Name fewer columns.")
    memory.refuse(need, 8 << 30)
    with pytest.raises(
        DataError, match=r"train trees needs about 3.0 GiB: 100,000,000 rows .*`compute.memory` is 2.0 GiB.*Name fewer columns. Or set .*3.4 GiB"
    ):
        memory.refuse(need, 2 << 30)


def test_a_process_over_its_budget_stops_at_the_next_partition() -> None:
    with memory.guarded(memory.held() // 2) as guard:
        assert guard is not None
        waits.until(lambda: guard._over, "a look at what the process holds")
        with pytest.raises(DataError, match=r"reading rows: the process holds .* more than `compute.memory` allows .*rather than killed"):
            memory.check("reading rows")
    memory.check("afterwards nothing is watched")
    with memory.guarded(None) as none:
        assert none is None
        memory.check("nor without a budget")
