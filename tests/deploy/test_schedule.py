"""Schedules: what is rendered is valid where it goes, says what was asked, holds no secret, and can be taken back."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelinscale.api import Project
from modelinscale.core.errors import NotSupportedYet, SpecError, UsageError
from modelinscale.deploy.targets import Deployed, Target
from modelinscale.deploy.targets._cron import every, times
from modelinscale.pipeline._deploy import Deployment

TEXT = """
name: fraud
target: y
compute: {type: local, memory: 2GiB}
data:
  source: {type: redis, url: "rediss://:${ENV:REDIS_PASSWORD}@localhost:6379/0", stream: orders, ca: "${FILE:ca.pem}"}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder whose name needs quoting; the secret has a value that must appear nowhere."""
    folder = tmp_path / "a project, 100%"
    folder.mkdir()
    (folder / "model.yaml").write_text(TEXT)
    monkeypatch.setenv("REDIS_PASSWORD", "open-sesame-4711")
    return folder


def render(folder: Path, **settings: Any) -> Deployment:
    found = Project(folder).deploy("schedule", settings)
    assert "sesame" not in str(found.plain())
    return found


def test_rendering_touches_nothing_and_repeats(project: Path) -> None:
    for form in ("systemd", "cron", "kubernetes"):
        before = sorted(project.rglob("*"))
        assert render(project, every="1d", **{"as": form}) == render(project, every="1d", **{"as": form})
        assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("when", [{"every": "1d"}, {"every": "90m"}, {"cron": "*/15 3 * * 1-5"}, {"cron": "0 0 1,15 2 *"}], ids=str)
def test_systemd_takes_the_units(project: Path, tmp_path: Path, when: dict[str, str]) -> None:
    found = render(project, **when)
    service = found.files["mis-fraud-run.service"]
    assert "EnvironmentFile=" in service
    assert "MemoryMax=2684354560\n" in service
    assert "100%%" in service
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for name, text in found.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run").mkdir()
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in found.files)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}, check=False)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip("systemd-analyze needs a running systemd here")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "mis-fraud" in line]) == (0, [])


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 3 * * *", "*-*-* 03:00:00"),
        ("*/15 3 * * 1-5", "Mon..Fri *-*-* 03:00/15:00"),
        ("5,35 */6 1-7 * *", "*-*-01..07 00/6:05,35:00"),
        ("0 0 * 1 0,6", "Sun,Sat *-01-* 00:00:00"),
    ],
)
def test_the_times_of_cron_are_those_of_systemd(cron: str, calendar: str) -> None:
    assert times(cron).calendar == calendar
    if shutil.which("systemd-analyze"):
        assert subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 3 * *", "has 4 fields"),
        ("99 * * * *", "no minute: 0 to 59"),
        ("0 3 * * mon", "no day of the week"),
        ("5-1 * * * *", "no minute"),
        ("*/0 * * * *", "minute"),
    ],
)
def test_times_that_are_none_are_told(cron: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        times(cron)


def test_days_in_both_ways_are_for_cron_only() -> None:
    assert times("0 3 1 * 1").cron == "0 3 1 * 1"
    with pytest.raises(SpecError, match="systemd cannot say"):
        _ = times("0 3 1 * 1").calendar


@given(st.integers(1, 20_000))
def test_an_interval_is_steady_in_cron_or_refused(minutes: int) -> None:
    try:
        found = every(minutes * 60.0)
    except SpecError:
        assert minutes not in (1, 5, 15, 30, 60, 360, 1440, 10_080)
        return
    minute, hour = found.minute, found.hour
    a_day = (60 // int(minute[2:]) if minute.startswith("*/") else 60 if minute == "*" else 1) * (
        24 // int(hour[2:]) if hour.startswith("*/") else 24 if hour == "*" else 1
    )
    assert a_day * minutes == (1440 if found.weekday == "*" else 10_080)


def test_a_line_of_cron_runs_as_it_stands(project: Path) -> None:
    """The shell that cron starts takes the words apart as meant, secrets from the file included."""
    (project / ".fraud.env").write_text("REDIS_PASSWORD=from-the-file\n")
    mis = project / "mis"
    mis.write_text('#!/bin/sh\necho "$PWD|$1|$3|$REDIS_PASSWORD"\n')
    mis.chmod(0o755)
    what = Deployed("fraud", project / "model.yaml", TEXT, (str(mis),), secrets=("REDIS_PASSWORD",))
    found = Target.parse({"type": "schedule", "cron": "5 4 * * *", "as": "cron"}).render(what)
    mark, line = found.files["mis-fraud-run.cron"].splitlines()
    assert mark.startswith("# mis-fraud-run of ")
    assert line.startswith("5 4 * * * cd ")
    words = line.removeprefix("5 4 * * * ").replace(r"\%", "%")  # as cron does
    done = subprocess.run(["/bin/sh", "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == f"{project}|run|{project}/model.yaml|from-the-file\n"


def test_kubernetes_takes_the_objects(project: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: objects are not checked against the schemas")
    found = render(project, cron="0 3 * * *", verb="collect", image="registry.example/mis:1", **{"as": "kubernetes"})
    objects = {name: yaml.safe_load(text) for name, text in found.files.items()}
    assert set(objects) == {"configmap.yaml", "claim.yaml", "cronjob.yaml"}
    for one in objects.values():
        validate.validate(one, "1.35", strict=True)
    job = objects["cronjob.yaml"]["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("0 3 * * *", "Forbid")
    (container,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mis", "collect", "--file", "/project/model.yaml", "--json"]
    assert container["image"] == "registry.example/mis:1"
    assert container["env"] == [{"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mis-fraud-collect", "key": "REDIS_PASSWORD"}}}]
    assert container["resources"]["requests"] == {"memory": str(2 << 30)}
    assert any("ca.pem" in note for note in found.notes)
    assert objects["configmap.yaml"]["data"]["model.yaml"] == TEXT


def test_names_that_are_alike_stay_apart_and_fit(project: Path) -> None:
    def unit(name: str) -> str:
        what = Deployed(name, project / "model.yaml", "", ("mis",))
        return next(iter(Target.parse({"type": "schedule", "every": "1d", "as": "cron"}).render(what).files)).removesuffix(".cron")

    assert unit("fraud") == "mis-fraud-run"
    names = ["a.b", "a_b", "a-b", "A" * 64, "A" * 63 + "b"]
    assert len({unit(n) for n in names}) == len(names)
    assert all(len(unit(n)) <= 52 for n in names)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "needs one of `every` and `cron`"),
        ({"every": "1d", "cron": "0 3 * * *"}, "needs one of"),
        ({"every": "7h", "as": "cron"}, "cannot say this interval"),
        ({"every": "1d", "as": "launchd"}, "Input should be 'systemd', 'cron' or 'kubernetes'"),
        ({"every": "1s"}, "greater than or equal to 60"),
    ],
)
def test_what_makes_no_schedule_is_told(project: Path, settings: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        render(project, **settings)


def test_a_command_that_is_not_there_yet_is_not_scheduled(project: Path) -> None:
    with pytest.raises(NotSupportedYet, match="`mis update` is planned"):
        render(project, every="1d", verb="update")


def test_a_cluster_is_left_to_its_own_tools(project: Path) -> None:
    with pytest.raises(NotSupportedYet, match="a cluster is not changed from here") as told:
        Project(project).deploy("schedule", {"every": "1d", "as": "kubernetes"}, apply=True)
    assert "kubectl apply -f" in told.value.fix


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose crontab is a file and whose systemctl notes what it is told."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "crontab").write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then cat {tmp_path}/table 2>/dev/null || {{ echo no crontab for you >&2; exit 1; }}; else cat > {tmp_path}/table; fi\n'
    )
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_a_line_of_cron_is_put_in_once_and_taken_back_whole(project: Path, machine: Path) -> None:
    others = "MAILTO=me\n0 1 * * * backup"
    (machine / "table").write_text(others)
    go = Project(project).deploy
    settings = {"every": "1d", "as": "cron"}
    assert go("schedule", settings, status=True).said == "not applied"
    go("schedule", settings, apply=True)
    once = (machine / "table").read_text()
    go("schedule", settings, apply=True)
    assert (machine / "table").read_text() == once
    assert once.startswith(others + "\n# mis-fraud-run of ")
    assert once.count("mis-fraud-run") == 1
    assert go("schedule", settings, status=True).said == "in this user's crontab"
    go("schedule", settings, undo=True)
    assert (machine / "table").read_text() == others + "\n"
    assert go("schedule", settings, undo=True).said == "nothing was applied"


def test_units_of_systemd_are_put_in_and_taken_back(project: Path, machine: Path) -> None:
    go, units = Project(project).deploy, machine / "config" / "systemd" / "user"
    go("schedule", {"every": "1d"}, apply=True)
    assert {path.name for path in units.iterdir()} == {"mis-fraud-run.service", "mis-fraud-run.timer"}
    assert "--user enable --now mis-fraud-run.timer" in (machine / "told").read_text()
    go("schedule", {"every": "1d"}, undo=True)
    assert list(units.iterdir()) == []
    assert "--user disable --now mis-fraud-run.timer" in (machine / "told").read_text()
    assert go("schedule", {"every": "1d"}, undo=True).said == "nothing was applied"


def test_units_of_another_project_of_that_name_are_left_alone(project: Path, machine: Path) -> None:
    Project(project).deploy("schedule", {"every": "1d"}, apply=True)
    other = machine / "other"
    other.mkdir()
    shutil.copy(project / "model.yaml", other)
    with pytest.raises(UsageError, match="is of another project of that name"):
        Project(other).deploy("schedule", {"every": "1d"}, apply=True)


def test_where_systemd_keeps_no_session_nothing_is_written(project: Path, machine: Path) -> None:
    (machine / "tools" / "systemctl").write_text("#!/bin/sh\necho no medium found >&2\nexit 1\n")
    with pytest.raises(NotSupportedYet, match="not in charge of this user's session here: no medium found"):
        Project(project).deploy("schedule", {"every": "1d"}, apply=True)
    assert not (machine / "config").exists()


@pytest.mark.parametrize("name", ["airflow_dag.py", "dagster_job.py"])
def test_the_examples_for_other_schedulers_are_python(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / name
    compile(path.read_text(encoding="utf-8"), name, "exec")
